"""FSDP2: each rank keeps a shard of every weight, of its gradient, its AdamW state and its moving average."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import nn

from vjepa.layers import Block
from vjepa.objectives import Objective
from vjepa.optim import gathered

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Network = TypeVar("Network", bound=nn.Module)


def shard_objective(objective: Objective, mesh: DeviceMesh) -> None:
    """Shard all networks in place: each block by itself, everything else with the objective.

    The target encoder is sharded like the context encoder, so that the moving average needs no communication. Call
    only the objective's `forward`, which gathers the weights outside the blocks. The mesh has one axis to shard over,
    or two: to replicate over the first and shard over the second.
    """
    from torch.distributed.fsdp import fully_shard

    for module in list(objective.modules()):
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def sharding_mesh(mesh: DeviceMesh) -> DeviceMesh:
    """Return the mesh to shard over, from Lightning's two axes (nodes, devices per node), or (all devices, 1)."""
    data, devices = mesh.mesh_dim_names or ()
    return mesh[data] if mesh[devices].size() == 1 else mesh


def gathered_network(network: Network) -> Network:
    """Return a copy of a sharded network with all of its weights, on the CPU; return any other network unchanged.

    All ranks must call it together.
    """
    from torch.distributed.tensor import DTensor

    if not any(isinstance(weight, DTensor) for weight in network.parameters()):
        return network
    tensors = {name: gathered(tensor).cpu() for name, tensor in network.state_dict().items()}
    plain = type(network)(**cast("dict", network.config))
    plain.load_state_dict(tensors)
    return plain


def add_missing_state(optimizer: torch.optim.Optimizer) -> None:
    """Give weights without a gradient so far the initial state of AdamW.

    A mask token beyond the number of mask strategies never gets a gradient, but a sharded run only resumes from
    states of all weights.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if not optimizer.state[weight]:
                averages = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[weight] = {"step": torch.tensor(0.0), **averages}
