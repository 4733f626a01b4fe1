"""All-gather of Python objects."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

Value = TypeVar("Value")


def gathered(value: Value) -> list[Value]:
    """Return the `value` of every rank, in rank order; all ranks must call this together."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[Value] = [value] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found
