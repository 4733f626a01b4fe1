"""Groups of flags: a parameter of a verb that is a dataclass, and whose fields are flags of the verb itself.

A verb with many flags takes them as a few values, and `--fps 8` still stands without the name of its group:

    def extract(*, encoder: str, clips: Flat[ClipFlags] = ANY_CLIPS) -> Report: ...
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

T = TypeVar("T")
FLAT = "the fields are flags of the verb"
Flat = Annotated[T, FLAT]


def groups_of(function: Callable[..., Any]) -> dict[str, type]:
    """Return the dataclass of each parameter whose fields are flags, by the name of the parameter."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: get_args(hint)[0]
        for name, hint in hints.items()
        if get_origin(hint) is Annotated and FLAT in get_args(hint)
    }


def flag_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type of each flag of a verb, those of its groups included."""
    groups = groups_of(function)
    types = {name: hint for name, hint in get_type_hints(function).items() if name not in groups}
    for group in groups.values():
        types |= get_type_hints(group)
    return types


def add_flags(
    parser: ArgumentParser, function: Callable[..., Any], *, skip: Collection[str | int] = ()
) -> None:
    """Add the flags of a verb's function to its parser, with the help of the docstrings.

    The default of a field is that of the default value of its parameter.
    """
    groups = groups_of(function)
    parser.add_function_arguments(
        function, as_group=False, skip={*skip, *groups, "return"}, fail_untyped=True
    )
    for name, group in groups.items():
        parser.add_class_arguments(group, as_group=False, fail_untyped=True, instantiate=False)
        default = signature(function).parameters[name].default
        if default is not Parameter.empty:
            parser.set_defaults({field.name: getattr(default, field.name) for field in fields(group)})


def grouped(function: Callable[..., Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a verb's function: flags of a group as one value, the others unchanged."""
    left, arguments = dict(flags), {}
    for name, group in groups_of(function).items():
        given = {field.name: left.pop(field.name) for field in fields(group) if field.name in left}
        default = signature(function).parameters[name].default
        known = (
            {} if default is Parameter.empty else {f.name: getattr(default, f.name) for f in fields(group)}
        )
        arguments[name] = group(**known | given)
    return left | arguments
