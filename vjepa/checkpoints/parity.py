"""Whether two loads of the same networks agree: in the bits of their weights, and in their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, is_dataclass

import torch
from torch import Tensor, nn

from vjepa.checkpoints.source import NetworkName
from vjepa.checkpoints.strict import CheckpointError, few
from vjepa.models import ActionPredictor, Predictor, VideoEncoder
from vjepa.types import TokenGrid

# what another alignment in memory may change, over the largest output
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
TUBELETS, PATCHES = 2, 4  # extent of the random clip: enough for every weight to matter


@torch.no_grad()
def compare(
    before: Mapping[NetworkName, nn.Module], after: Mapping[NetworkName, nn.Module]
) -> dict[str, float]:
    """Return each network's largest difference of outputs for the same random input; NaN if both give NaN.

    Raises:
        CheckpointError: If the bits of a weight changed, or the outputs differ by more than rounding.
    """
    assert before.keys() == after.keys(), (before.keys(), after.keys())
    differences: dict[str, float] = {}
    for name, network in before.items():
        weights = after[name].state_dict()
        changed = [k for k, v in network.state_dict().items() if not _same_bits(v, weights[k])]
        expected, found = _outputs(network), _outputs(after[name])
        differences[name] = difference = float((expected.double() - found.double()).abs().max())
        allowed = ROUNDING[expected.dtype] * float(expected.abs().max())
        if changed or expected.isfinite().all() and not difference <= allowed:
            raise CheckpointError(
                f"the {name} is not the same after conversion: {few(changed) or 'no weight'} changed, outputs differ "
                f"by {difference:g}. Nothing was written; please report it."
            )
    return differences


def _same_bits(*tensors: Tensor) -> bool:
    a, b = (tensor.contiguous().flatten().view(torch.uint8) for tensor in tensors)
    return tensors[0].dtype == tensors[1].dtype and torch.equal(a, b)


def _outputs(network: nn.Module) -> Tensor:
    """Run a network on a random input that is the same for every network of its kind."""
    generator = torch.Generator().manual_seed(0)
    dtype = next(network.parameters(), torch.empty(0)).dtype  # a k-NN probe has no parameters

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    if isinstance(network, VideoEncoder):
        patch = network.config["patch_size"] * PATCHES
        tubelet, frames = network.config["tubelet_size"], network.config["num_frames"]
        return network(draw(1, 3, min(frames, TUBELETS * tubelet), patch, patch))
    grid = TokenGrid(t=TUBELETS, h=PATCHES, w=PATCHES)
    if isinstance(network, Predictor):
        if network.position == "sincos_wh":  # of images
            grid = TokenGrid(t=1, h=PATCHES, w=PATCHES)
        visible, hidden = torch.arange(len(grid))[None].chunk(2, dim=1)
        context = draw(1, visible.shape[1], max(network.num_levels, 1) * network.encoder_dim)
        return torch.stack(
            [
                torch.cat(network.forward_dense(context, visible, hidden, grid=grid, mask_token=i))
                if network.num_levels
                else network(context, visible, hidden, grid=grid, mask_token=i)
                for i in range(len(network.mask_tokens))
            ]
        )
    if isinstance(network, ActionPredictor):
        steps = [draw(1, grid.t, network.config[f"{name}_dim"]) for name in ("action", "state", "extrinsics")]
        return network(draw(1, len(grid), network.encoder_dim), *steps, grid=grid)
    probe_config: dict[str, int] = network.config  # type: ignore[assignment]
    scores = network(draw(1, len(grid), probe_config["embed_dim"]))
    return torch.cat(astuple(scores), dim=1) if is_dataclass(scores) else scores  # type: ignore[arg-type]
