"""A checkpoint in any format: which networks it holds, and their tensors in our names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn

from vjepa.checkpoints.strict import CheckpointError
from vjepa.models.files import CLIPS, FORMAT

NetworkName = Literal["encoder", "context_encoder", "predictor", "probe"]
# "encoder" is the one to use (the moving average, if there is one), "context_encoder" the one trained
NETWORK_NAMES: tuple[NetworkName, ...] = ("encoder", "context_encoder", "predictor", "probe")
REST = "rest.safetensors"
# what the config of a probe that was trained here says beside its arguments and label names
PROBE_CARD = ("kind", "clip", "reads_encoder", "reads_predictor", "task_names", "recipe")
CARD_ENTRIES = (*PROBE_CARD, CLIPS)


def kind_of(name: NetworkName) -> str:
    """Return the kind of a network; both encoders have the same arguments."""
    return "encoder" if name == "context_encoder" else name


class Source(ABC):
    """An open checkpoint; its tensors are read later.

    Attributes:
        path: The file or folder.
        format: Name of the format.
        networks: Names of the networks in it.
        facts: Other contents, such as the step, for `vjepa inspect`.
        origin: Entry and prefix of each network in a Meta file.
        label_names: Names of a probe's classes, if they are known.
        card: Entries of `PROBE_CARD` in the config of a folder that `vjepa probe` wrote, and the clips that an encoder
            was trained on.
    """

    path: Path
    format: str
    networks: tuple[NetworkName, ...]
    facts: Mapping[str, Any] = MappingProxyType({})
    origin: Mapping[str, list[str]] = MappingProxyType({})
    label_names: tuple[str, ...] = ()
    card: Mapping[str, Any] = MappingProxyType({})

    _config: Mapping[str, Any]  # the arguments of each kind of network, if the format stores them

    def arguments(self, name: NetworkName, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return the constructor arguments of a network, with `overrides` in place of those of the checkpoint.

        `num_heads` is missing if neither contains it.
        """
        if kind_of(name) not in self._config:
            raise CheckpointError(f"{self.path} does not describe the {name}.")
        return {**self._config[kind_of(name)], **overrides}

    @abstractmethod
    def tensors(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the weights of a network that is built with `arguments`, in our names."""

    def rest(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return a network's tensors that ours, built with `arguments`, does not use; a conversion keeps them."""
        return {}

    def absent(self, name: NetworkName) -> str:
        """Return the message for a network that is not in the checkpoint."""
        return f"{self.path} has no {name}; it holds {', '.join(self.networks)}."


@dataclass(frozen=True)
class Contents:
    """Networks of a checkpoint, ready to be written in any format; `Source` describes the last three.

    Attributes:
        arguments: Constructor arguments by kind: "encoder", "predictor", "probe".
        tensors: Weights by network, in our names.
        rest: Tensors by network that ours do not use.
    """

    arguments: dict[str, dict[str, Any]]
    tensors: dict[NetworkName, dict[str, Tensor]]
    rest: dict[NetworkName, dict[str, Tensor]] = field(default_factory=dict)
    origin: Mapping[str, list[str]] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """Return the content of a folder's `config.json`."""
        origin = {"origin": dict(self.origin)} if self.origin else {}
        names = {"label_names": list(self.label_names)} if self.label_names else {}
        return {"format": FORMAT, **self.arguments, **origin, **names, **self.card}

    def rest_flat(self) -> dict[str, Tensor]:
        """Return the tensors that our networks do not use, as `<network>.<key>`."""
        # cloned: two encoders may share a table, but tensors of a safetensors file must not share memory
        return {
            f"{name}.{key}": value.clone() for name, rest in self.rest.items() for key, value in rest.items()
        }


def contents_of(networks: Mapping[NetworkName, nn.Module | None]) -> Contents:
    """Return the contents of a checkpoint of networks in memory; their `config` holds the arguments."""
    given = {name: network for name, network in networks.items() if network is not None}
    return Contents(
        arguments={kind_of(name): dict(network.config) for name, network in given.items()},  # type: ignore[arg-type]
        tensors={name: dict(network.state_dict()) for name, network in given.items()},
    )


def in_order(names: Sequence[str]) -> tuple[NetworkName, ...]:
    """Return the network names among `names`, in their usual order."""
    return tuple(name for name in NETWORK_NAMES if name in names)
