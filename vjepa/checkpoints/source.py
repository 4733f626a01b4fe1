"""A checkpoint on disk, whatever its format: which networks it holds, and their tensors in our names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from vjepa.models.files import FORMAT

NetworkName = Literal["encoder", "context_encoder", "predictor", "probe"]
# "encoder" is the one to use (the moving average, where there was one), "context_encoder" the one trained
NETWORK_NAMES: tuple[NetworkName, ...] = ("encoder", "context_encoder", "predictor", "probe")
REST = "rest.safetensors"


def kind_of(name: NetworkName) -> str:
    """Both encoders are built alike."""
    return "encoder" if name == "context_encoder" else name


class Source(ABC):
    """A checkpoint that was opened, with no tensor read yet.

    `format` names what it is, `networks` the networks in it, `facts` what else it says (its step, what is left
    out), `origin` under which entry and prefix a Meta file had a network, `label_names` what the classes of a
    probe are called, if that is told.
    """

    path: Path
    format: str
    networks: tuple[NetworkName, ...]
    facts: dict[str, Any]
    origin: dict[str, list[str]]
    label_names: tuple[str, ...] = ()

    @abstractmethod
    def arguments(self, name: NetworkName, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Constructor arguments of a network, `overrides` in place of what the file says.

        `num_heads` is absent where neither tells it.
        """

    @abstractmethod
    def tensors(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Weights of a network that is built with `arguments`, in our names."""

    @abstractmethod
    def rest(self, name: NetworkName, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tensors of a network that ours, built with `arguments`, has no use for: kept for the way back."""

    @abstractmethod
    def absent(self, name: NetworkName) -> str:
        """Why a name cannot be loaded that is not among `networks`."""


@dataclass(frozen=True)
class Contents:
    """Everything a checkpoint says of its networks, ready to be written in any format.

    `arguments` by kind ("encoder", "predictor", "probe"), `tensors` and `rest` by name, in our names;
    `label_names` of a probe's classes, if they are told.
    """

    arguments: dict[str, dict[str, Any]]
    tensors: dict[NetworkName, dict[str, Tensor]]
    rest: dict[NetworkName, dict[str, Tensor]] = field(default_factory=dict)
    origin: dict[str, list[str]] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What a folder's config says of them."""
        origin = {"origin": self.origin} if self.origin else {}
        names = {"label_names": list(self.label_names)} if self.label_names else {}
        return {"format": FORMAT, **self.arguments, **origin, **names}

    def rest_flat(self) -> dict[str, Tensor]:
        """Tensors of no use to us, by name and key."""
        # cloned: two encoders may share a table, and a safetensors file takes no memory twice
        return {
            f"{name}.{key}": value.clone() for name, rest in self.rest.items() for key, value in rest.items()
        }


def contents_of(networks: Mapping[NetworkName, nn.Module | None]) -> Contents:
    """Contents that are networks in memory; each has its constructor's arguments in `config`."""
    given = {name: network for name, network in networks.items() if network is not None}
    return Contents(
        arguments={kind_of(name): dict(network.config) for name, network in given.items()},  # type: ignore[arg-type]
        tensors={name: dict(network.state_dict()) for name, network in given.items()},
    )


def rest_of(name: NetworkName, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one name among those of `Contents.rest_flat`."""
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}


def in_order(names: Sequence[str]) -> tuple[NetworkName, ...]:
    """The parts among some names, in their order."""
    return tuple(name for name in NETWORK_NAMES if name in names)
