"""What each network is built from: the constructor arguments that its checkpoint stores, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from vjepa.errors import SettingError
from vjepa.layers import Block, store_frequencies

MAX_DEPTH = 10_000  # blocks: a larger number is a slip of the pen, and would take hours to build
MAY_BE_ZERO = ("depth", "num_levels")


class Network(nn.Module):
    """Base of encoders and predictors: checks the constructor's arguments by their types and stores them.

    Attributes:
        config: The constructor's arguments by name, as `config.json` holds them: `type(self)(**self.config)` builds
            the same network with other weights.

    Raises:
        SettingError: If an `int` is not a positive whole number, a `float` is negative or not finite, or a `Literal`
            is not one of its values. The message names the argument, its value and what it may be.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config
        network = next(kind for kind in type(self).__mro__ if Network in kind.__bases__)
        hints = get_type_hints(vars(network)["__init__"])
        for name, value in config.items():
            _check(name, value, hints[name])
        if config["depth"] > MAX_DEPTH:
            raise SettingError(f"depth is {config['depth']}. Give at most {MAX_DEPTH}.")
        width, heads = config["embed_dim"], config["num_heads"]
        if width % heads:
            raise SettingError(
                f"embed_dim {width} must be divisible by num_heads {heads}. Give num_heads that divides it."
            )

    @property
    def num_parameters(self) -> int:
        """Number of weights; tables of positions do not count."""
        return sum(p.numel() for p in self.parameters())


def build_blocks(config: Mapping[str, Any]) -> nn.ModuleList:
    """Build the blocks of a network; the probability of skipping a branch rises linearly from 0."""
    shape = {name: config[name] for name in ("embed_dim", "num_heads", "mlp_ratio", "mlp")}
    rates = torch.linspace(0, config["drop_path"], config["depth"], device="cpu").tolist()
    blocks = nn.ModuleList(Block(**shape, drop_path=rate) for rate in rates)
    if config["position"] == "rope_stored":
        store_frequencies(blocks, config["embed_dim"] // config["num_heads"])
    return blocks


def height_and_width(size: Any) -> tuple[int, int]:
    """Return the height and width of a native clip in pixels, from one number or two.

    >>> height_and_width(224), height_and_width((48, 64))
    ((224, 224), (48, 64))

    Raises:
        SettingError: If it is something else.
    """
    sides = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != 2
        or any(type(s) is not int or s < 1 for s in sides)
    ):
        raise SettingError(
            f"img_size is {size!r}. Give height and width in pixels, or one number for a square."
        )
    return sides[0], sides[1]


def check_parts(name: str, lengths: tuple[int, ...], part_name: str, part: int) -> None:
    """Check that whole patches or tubelets cover a native clip; a clip smaller than one is refused elsewhere.

    Raises:
        SettingError: If something is left over.
    """
    for length in lengths:
        if length > part and length % part:
            raise SettingError(
                f"{name} {length} is not a multiple of {part_name} {part}: the rest would not be seen. Give "
                f"{length - length % part}, which has as many tokens."
            )


def _check(name: str, value: Any, kind: Any) -> None:
    least = 0 if name in MAY_BE_ZERO else 1
    if kind is int and (type(value) is not int or value < least):
        raise SettingError(f"{name} is {value!r}. Give a whole number of at least {least}.")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and not (number and 0 <= value < math.inf):
        raise SettingError(f"{name} is {value!r}. Give a number of at least 0.")
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise SettingError(f"{name} is {value!r}. Give one of {', '.join(get_args(kind))}.")
