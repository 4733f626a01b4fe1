"""Fields of a group are flags of the verb itself."""

from dataclasses import dataclass

import pytest
from jsonargparse import ArgumentParser

from vjepa.commands.flags import Flat, add_flags, flag_types, grouped


@dataclass(frozen=True)
class Size:
    """A size.

    Args:
        width: Pixels from left to right.
        height: Pixels from top to bottom.
        square: Whether both are the same.
    """

    width: int
    height: int | None = None
    square: bool = False


WIDE = Size(width=4, height=2)


def verb(*, name: str, size: Flat[Size] = WIDE, top: int = 5) -> tuple[str, Size, int]:
    """Do it.

    Args:
        name: What it is called.
        size: How large it is.
        top: How many.
    """
    return name, size, top


def parsed(*argv):
    parser = ArgumentParser(exit_on_error=False)
    add_flags(parser, verb)
    return parser, verb(**grouped(verb, dict(parser.instantiate(parser.parse_args(list(argv))).items())))


def test_fields_are_flags_with_the_defaults_of_the_value():
    parser, (name, size, top) = parsed("--name", "a", "--height", "7")
    assert (name, size, top) == ("a", Size(width=4, height=7), 5)
    assert "Pixels from top to bottom" in parser.format_help() and "--size" not in parser.format_help()
    assert flag_types(verb) | {"return": None} == {
        **{"name": str, "top": int, "width": int, "height": int | None, "square": bool, "return": None}
    }


def test_values_from_python_are_grouped_alike():
    assert verb(**grouped(verb, {"name": "a", "square": True}))[1] == Size(width=4, height=2, square=True)
    with pytest.raises(TypeError, match="colour"):
        verb(**grouped(verb, {"name": "a", "colour": "red"}))
