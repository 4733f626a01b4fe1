"""Errors of jsonargparse and LightningCLI in one readable line, with the nearest real key."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vjepa.commands.recipes import check_config_files, existing, overlay_advice, place_of, unreadable
from vjepa.errors import UsageError, did_you_mean, first_wrong

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# jsonargparse's own wording; tests/test_parsing.py fails if a new version changes it
UNRECOGNIZED = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)
NOT_ACCEPTED = re.compile(r"(?:Subcommand '\w+' does not accept option|Option) '([^']+)'")
REQUIRED = re.compile(r"the following arguments are required: (.*)")
PARSER_KEY = re.compile(r'Parser key "([^"]+)"')
CLASS_PATH = re.compile(r"Problem with given class_path '([^']+)'")
CALLABLE = re.compile(
    r"expects a function or a callable class: .*Got value: Namespace\(class_path='([^']+)'", re.DOTALL
)
NO_ATTRIBUTE = re.compile(r"[Mm]odule '([^']+)' has no attribute '([^']+)'")

LONGEST = 600  # characters of a parser's message, which may quote the value
NOT_KEYS = {"help", "config", "print_config", "print_shtab", argparse.SUPPRESS}


@contextmanager
def explained(parser: ArgumentParser, argv: Sequence[str]) -> Iterator[None]:
    """Turn an error of `parser` inside the block into a `UsageError` of one line.

    The parser and the parser of each subcommand must be made with `exit_on_error=False`.
    """
    check_config_files(argv)
    try:
        yield
    except argparse.ArgumentError as error:
        raise UsageError(explain(parser, str(error), argv)) from error


def explain(parser: ArgumentParser, message: str, argv: Sequence[str]) -> str:
    """Return one line for a parser's error: what was got, the nearest real key, where to look."""
    parser, verb = chosen_parser(parser, argv)
    advice = f"See `{parser.prog.replace(' [options]', '')} --help`.{overlay_advice(argv)}"
    if found := NO_ATTRIBUTE.search(message):
        return _unknown_class(found, message, argv)
    if found := NOT_ACCEPTED.search(message):
        return f"{_unknown_key(parser, found, message, argv)} {advice}"
    if found := UNRECOGNIZED.search(message):
        return f"{_unknown_flag(parser, found[1])} {advice}"
    if found := REQUIRED.search(message):
        # a class's own key is named bare; the keys that led to the class stand before it
        within = "".join(f"{place}.init_args." for place in PARSER_KEY.findall(message[: found.start()]))
        missing = [within + key.removeprefix(f"{verb}.") for key in found[1].split(", ")]
        spelt = " and ".join(_spelt(parser, key) for key in missing)
        if len(missing) > 1 and not existing(argv):
            return f"no recipe: give one with --config RECIPE.yaml, or {spelt}. {advice}"
        return f"missing {spelt}: give it on the command line or in a --config file. {advice}"
    key = ".".join(PARSER_KEY.findall(message))
    files = ", ".join(existing(argv))
    where = place_of(key, argv) if key else f" ({files})" if files and files not in message else ""
    return f"{readable(message.replace('<unicode string>', unreadable(argv)))[:LONGEST]}{where}. {advice}"


def readable(message: str) -> str:
    """Return a parser's message as one line, without Python's spelling of types.

    >>> readable("Expected a <class 'float'>. Got value: fast")
    'Expected a float. Got value: fast'
    """
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message).replace("typing.", "")
    message = PARSER_KEY.sub(r"key '\1'", message)
    return " ".join(message.split()).rstrip(".")


def known_keys(parser: ArgumentParser) -> list[str]:
    """Return all dotted keys that a parser accepts, in the order of its help."""
    keys = (action.dest for action in parser._actions if not isinstance(action, argparse._SubParsersAction))
    return [key for key in dict.fromkeys(keys) if key not in NOT_KEYS]


def chosen_parser(parser: ArgumentParser, argv: Sequence[str]) -> tuple[ArgumentParser, str]:
    """Return the parser and the name of the subcommand in `argv`, or `parser` itself and ''."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            verb = next((arg for arg in argv if arg in action.choices), None)
            if verb is not None:
                return action.choices[verb], verb
    return parser, ""


def _spelt(parser: ArgumentParser, key: str) -> str:
    """Return `key` in the form that is typed: `--key`, or in capitals if it is positional."""
    action = next((action for action in parser._actions if action.dest == key), None)
    return f"--{key}" if action is None or action.option_strings else key.upper()


def _unknown_flag(parser: ArgumentParser, rest: str) -> str:
    flag = next((word.split("=")[0] for word in rest.split() if word.startswith("-")), None)
    if flag is None:
        return f"unexpected argument '{rest}': it belongs to no flag."
    match = did_you_mean(flag.lstrip("-"), [*known_keys(parser), "config"])
    return f"unknown flag {flag}: the nearest real one is --{match}."


def _unknown_key(parser: ArgumentParser, found: re.Match[str], message: str, argv: Sequence[str]) -> str:
    """Explain a key that the parser, or a class named in a `class_path`, does not accept."""
    classes = CLASS_PATH.findall(message[: found.start()]) + CALLABLE.findall(message)
    if classes:
        parent = ".".join(PARSER_KEY.findall(message[: found.start()]))
        match = did_you_mean(found[1], _class_keys(classes[-1]))
        where = f" of {classes[-1]}{place_of(f'{parent}.{found[1]}', argv)}"
        allowed = f"the nearest real one is '{match}'" if match else "it takes none"
        return f"unknown key '{parent}.{found[1]}'{where}: {allowed}."
    known = known_keys(parser)
    key, match = first_wrong(found[1], known), did_you_mean(found[1], known)
    return f"unknown key '{key}'{place_of(key, argv)}: the nearest real one is '{match}'."


def _unknown_class(found: re.Match[str], message: str, argv: Sequence[str]) -> str:
    module, name = found.groups()
    here = importlib.import_module(module)
    classes = [attr for attr in getattr(here, "__all__", vars(here)) if isinstance(getattr(here, attr), type)]
    key = ".".join(PARSER_KEY.findall(message))
    match = did_you_mean(name, classes)
    allowed = f"the nearest real one is {module}.{match}" if match else f"{module} defines no class"
    return f"unknown class {module}.{name} for '{key}'{place_of(f'{key}.{name}', argv)}: {allowed}."


def _class_keys(class_path: str) -> list[str]:
    """Return the keys that `init_args` of a class, or of a function that makes one, may have."""
    from jsonargparse import ArgumentParser

    module, name = class_path.rsplit(".", 1)
    made = getattr(importlib.import_module(module), name)
    parser = ArgumentParser(exit_on_error=False)
    if isinstance(made, type):
        parser.add_class_arguments(made)
    else:
        parser.add_function_arguments(made)
    return known_keys(parser)
