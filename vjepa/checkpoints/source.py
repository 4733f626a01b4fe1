"""A checkpoint on disk, whatever its format: which networks it holds, and their tensors in our names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from vjepa.models.files import FORMAT

Part = Literal["encoder", "context_encoder", "predictor", "probe"]
# "encoder" is the one to use (the moving average, where there was one), "context_encoder" the one trained
PARTS: tuple[Part, ...] = ("encoder", "context_encoder", "predictor", "probe")
REST = "rest.safetensors"


def kind_of(part: Part) -> str:
    """Both encoders are built alike."""
    return "encoder" if part == "context_encoder" else part


class Source(ABC):
    """A checkpoint that was opened, with no tensor read yet.

    `format` names what it is, `parts` the networks in it, `facts` what else it says (its step, what is left
    out), `origin` under which entry and prefix a Meta file had a network, `label_names` what the classes of a
    probe are called, if that is told.
    """

    path: Path
    format: str
    parts: tuple[Part, ...]
    facts: dict[str, Any]
    origin: dict[str, list[str]]
    label_names: tuple[str, ...] = ()

    @abstractmethod
    def arguments(self, part: Part, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Constructor arguments of a network, `overrides` in place of what the file says.

        `num_heads` is absent where neither tells it.
        """

    @abstractmethod
    def tensors(self, part: Part, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Weights of a network that is built with `arguments`, in our names."""

    @abstractmethod
    def rest(self, part: Part, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tensors of a network that ours, built with `arguments`, has no use for: kept for the way back."""

    @abstractmethod
    def absent(self, part: Part) -> str:
        """Why a part cannot be loaded that is not among `parts`."""


@dataclass(frozen=True)
class Contents:
    """Everything a checkpoint says of its networks, ready to be written in any format.

    `arguments` by kind ("encoder", "predictor", "probe"), `tensors` and `rest` by part, in our names;
    `label_names` of a probe's classes, if they are told.
    """

    arguments: dict[str, dict[str, Any]]
    tensors: dict[Part, dict[str, Tensor]]
    rest: dict[Part, dict[str, Tensor]] = field(default_factory=dict)
    origin: dict[str, list[str]] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What a folder's config says of them."""
        origin = {"origin": self.origin} if self.origin else {}
        names = {"label_names": list(self.label_names)} if self.label_names else {}
        return {"format": FORMAT, **self.arguments, **origin, **names}

    def rest_flat(self) -> dict[str, Tensor]:
        """Tensors of no use to us, by part and key."""
        # cloned: two encoders may share a table, and a safetensors file takes no memory twice
        return {
            f"{part}.{key}": value.clone() for part, rest in self.rest.items() for key, value in rest.items()
        }


def networks_contents(networks: Mapping[Part, nn.Module | None]) -> Contents:
    """Contents that are networks in memory; each has its constructor's arguments in `config`."""
    given = {part: network for part, network in networks.items() if network is not None}
    return Contents(
        arguments={kind_of(part): dict(network.config) for part, network in given.items()},  # type: ignore[arg-type]
        tensors={part: dict(network.state_dict()) for part, network in given.items()},
    )


def rest_of(part: Part, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one part among those of `Contents.rest_flat`."""
    prefix = f"{part}."
    return {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}


def parts_in(names: Sequence[str]) -> tuple[Part, ...]:
    """The parts among some names, in their order."""
    return tuple(part for part in PARTS if part in names)
