"""What the arguments of a network may be: sizes that are whole numbers, shares, and names of a few choices."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, get_args

from vjepa.errors import SettingError
from vjepa.layers import MlpKind
from vjepa.models.positions import Position

MAX_DEPTH = 10_000  # of a stack of blocks: more is a slip of the pen, and would be built for hours
CHOICES: dict[str, tuple[str, ...]] = {"position": get_args(Position), "mlp": get_args(MlpKind)}


def check_arguments(
    arguments: Mapping[str, Any], *, whole: Collection[str], numbers: Collection[str]
) -> None:
    """See that a network can be built of `arguments`, before it is.

    Args:
        arguments: Of its constructor.
        whole: Which of them count something, and are at least 1; a depth may be 0.
        numbers: Which are finite numbers of at least 0.

    Raises:
        ValueError: Naming the argument, what it is and what it may be.
    """
    for name in whole:
        value, least = arguments[name], int(name != "depth")
        if type(value) is not int or value < least:
            raise SettingError(f"{name} is {value!r}. Give a whole number of at least {least}.")
    if arguments.get("depth", 0) > MAX_DEPTH:
        raise SettingError(f"depth is {arguments['depth']}. Give at most {MAX_DEPTH}.")
    for name in numbers:
        value = arguments[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise SettingError(f"{name} is {value!r}. Give a number of at least 0.")
    for name in CHOICES.keys() & arguments.keys():
        if arguments[name] not in CHOICES[name]:
            raise SettingError(f"{name} is {arguments[name]!r}. Give one of {', '.join(CHOICES[name])}.")
    if arguments["embed_dim"] % arguments["num_heads"]:
        raise SettingError(
            f"embed_dim {arguments['embed_dim']} must be divisible by num_heads {arguments['num_heads']}. Give "
            "num_heads that divides it."
        )


def height_and_width(size: Any) -> tuple[int, int]:
    """Pixels of a native clip, from one number or two.

    >>> height_and_width(224), height_and_width((48, 64))
    ((224, 224), (48, 64))

    Raises:
        ValueError: If it is something else.
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
