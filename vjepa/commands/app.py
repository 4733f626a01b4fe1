"""The command line of `vjepa`: one parser per verb, and the border where errors become exit codes."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from vjepa import __version__
from vjepa.commands.console import (
    NO_SPACE,
    fail,
    log_to_stderr,
    one_line,
    say,
    say_error,
    show,
    usable_streams,
)
from vjepa.commands.flags import add_flags, flag_types, grouped
from vjepa.commands.report import as_report, write_result
from vjepa.commands.verbs import OTHER_WORDS, VERBS
from vjepa.errors import StoppedBySignal, UsageError, VjepaError, did_you_mean
from vjepa.files import held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jsonargparse import ArgumentParser

log = logging.getLogger(__name__)

NEGATIVE_NUMBERS = re.compile(r"^-\d[-\d.,eE+]*$")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code: 0 success, 2 user error, 1 crash, 128 + n if signal n ended it."""
    if argv is None:
        find_local_modules()
        argv = sys.argv[1:]
    with usable_streams():
        return _exit_code(list(argv))


def _exit_code(argv: list[str]) -> int:
    debug = bool(os.environ.get("VJEPA_DEBUG"))
    try:
        return _run(argv)
    except StoppedBySignal as stop:
        return fail(stop.message, code=int(stop.code or 0))
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's answer to Ctrl-C
            return fail("interrupted", code=130)
        if type(stop) is not SystemExit:  # Lightning's answer to SIGTERM
            return fail(
                "ended by SIGTERM; a fit continues from its last.ckpt with --ckpt_path last", code=143
            )
        return int(stop.code or 0)  # a parser has printed its help or configuration
    except KeyboardInterrupt:
        return fail("interrupted", code=130)
    except Exception as error:  # noqa: BLE001  the border: no caller can name the error better
        if debug:
            say_error(traceback.format_exc())
        if is_users(error):
            return fail(f"error: {one_line(error)}", code=2)
        if (refused := refused_values(error)) is not None:
            return fail(f"error: {refused}", code=2)
        hint = "" if debug else "; set VJEPA_DEBUG=1 for the traceback"
        return fail(f"crashed: {type(error).__name__}: {one_line(error)}{hint}", code=1)


def find_local_modules() -> None:
    """Let class paths name modules in the working directory, as `python -m vjepa` does.

    The directory comes last on the path, so that no file in it hides an installed package. Python's own switch for
    this, `-P` or PYTHONSAFEPATH, turns it off.
    """
    here = os.getcwd()
    if not sys.flags.safe_path and not {"", here} & set(sys.path):
        sys.path.append(here)


def is_users(error: Exception) -> bool:
    """Return whether `error` is the user's to mend: a `VjepaError`, a missing or forbidden file, a full disk."""
    if isinstance(error, (VjepaError, FileNotFoundError, PermissionError)):
        return True
    return isinstance(error, OSError) and error.errno in NO_SPACE


def refused_values(error: Exception) -> str | None:
    """Return what our classes said of their values, if the parser wrapped it in its own error; else None.

    The parser does so for an optional setting, and lists the message of each possible type.
    """
    text = str(error)
    if not text.startswith("Does not validate against any of the Union subtypes"):
        return None
    listed = text.partition("Errors:")[2].partition("Given value type:")[0]
    listed_lines = [line.strip() for line in listed.split("\n  - ") if line.strip()]
    ours = [line for line in listed_lines if not line.startswith(("Expected a", "Subclasses are"))]
    return " ".join(" ".join(ours or listed_lines).split())


def overview() -> str:
    """Return the text of `vjepa --help`."""
    width = max(map(len, VERBS)) + 2
    lines = [f"  {name:<{width}}{verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "example: vjepa fit --config configs/quickstart.yaml",
            "",
            "usage: vjepa VERB [options]      `vjepa VERB --help` explains a verb, --help_all every setting",
            "",
            *lines,
            "",
            f"vjepa {__version__}. Exit codes: 0 success, 2 a mistake in what was given, 1 a crash.",
        ]
    )


def split_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the verb of one or two words that `argv` begins with, and the arguments after it.

    >>> split_verb(["data", "check", "clips.csv"])
    ('data check', ['clips.csv'])

    Raises:
        UsageError: If there is no such verb; the message names the nearest.
    """
    for words in (2, 1):
        name = " ".join(argv[:words])
        if len(argv) >= words and name in VERBS:
            return name, list(argv[words:])
    started = [name for name in VERBS if name.startswith(f"{argv[0]} ")]
    got = " ".join(argv[:2]) if started and len(argv) > 1 and not argv[1].startswith("-") else argv[0]
    if got in {name.split()[0] for name in started}:
        raise UsageError(f"'{got}' needs a second word: {', '.join(started)}. See `vjepa --help`.")
    near = did_you_mean(got, [*VERBS, *OTHER_WORDS])
    raise UsageError(
        f"unknown verb '{got}': the nearest real one is '{OTHER_WORDS.get(near or '', near)}'. See `vjepa --help`."
    )


def verb_parser(name: str, function: Callable[..., Any]) -> ArgumentParser:
    """Make the parser of a verb from the signature and docstring of its function."""
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    verb = VERBS[name]
    doc = parse(function.__doc__ or "")
    parser = ArgumentParser(
        prog=f"vjepa {name}", description=doc.short_description, exit_on_error=False, allow_abbrev=False
    )
    # argparse takes -1 for a value, but -1,5 for an unknown flag
    parser._negative_number_matcher = NEGATIVE_NUMBERS
    parser.add_argument("--config", action="config", help="a YAML file with any of the settings below")
    helps = {param.arg_name: param.description for param in doc.params}
    skip: set[str | int] = set()
    for positional in (verb.positional or "").split():
        _add_positional(parser, positional, function, help=helps.get(positional) or "")
        skip.add(positional)
    add_flags(parser, function, skip=skip)
    hints = flag_types(function)
    for action in parser._actions:
        hint = hints.get(action.dest)
        if hint is bool or bool in get_args(hint):
            action.nargs, action.const = "?", True  # `--resume` alone is `--resume true`
    return parser


def gather_numbers(argv: Sequence[str], numbers: Mapping[str, str]) -> list[str]:
    """Replace the flags of `numbers` by the settings they stand for, with one list each.

    >>> gather_numbers(["--lr", "1e-3", "3e-4", "--out", "x"], {"lr": "grid.lr"})
    ['--grid.lr=[1e-3, 3e-4]', '--out', 'x']
    """
    gathered: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word.removeprefix("--") not in numbers or not word.startswith("--"):
            gathered.append(word)
            continue
        values = []
        while rest and (not rest[0].startswith("-") or rest[0][1:2].isdigit()):
            values.append(rest.pop(0))
        given = ", ".join(values)
        whole = given if given.startswith("[") else f"[{given}]"
        gathered.append(f"--{numbers[word.removeprefix('--')]}={whole}")
    return gathered


def _add_positional(parser: ArgumentParser, name: str, function: Callable[..., Any], *, help: str) -> None:
    hint = get_type_hints(function)[name]
    many = get_origin(hint) in (list, tuple)
    parser.add_argument(
        name, type=get_args(hint)[0] if many else hint, nargs="+" if many else None, help=help
    )


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        say(overview())
        return 0
    begins = any(name.startswith(f"{argv[0]} ") for name in VERBS)
    if begins and argv[1:] in (["-h"], ["--help"]):
        say(overview())
        return 0
    if argv[0] == "--version":
        say(f"vjepa {__version__}")
        return 0
    name, rest = split_verb(argv)
    verb = VERBS[name]
    if "-h" in rest or "--help" in rest:
        from vjepa.commands.help import help_of

        say(help_of(name))
        return 0
    rest = ["--help" if word == "--help_all" else word for word in rest]
    log_to_stderr()
    module, attribute = verb.target.split(":")
    function = getattr(importlib.import_module(module), attribute)
    if verb.forwards:
        report = as_report(function(name, rest))
        show(report)
        return report.exit_code
    return _carry_out(name, function, rest)


def check_writable(out: Path) -> None:
    """Check that results can be written, before the work starts.

    Raises:
        UsageError: If `out` is a file, or its place is not writable.
    """
    nearest_real = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest_real.is_dir():
        raise UsageError(f"--out {out}: {nearest_real} is a file. Give a folder, new or old.")
    try:
        tempfile.TemporaryFile(dir=nearest_real).close()
    except OSError as error:
        raise UsageError(
            f"--out {out}: nothing can be written to {nearest_real}. Give another folder."
        ) from error


def _carry_out(name: str, function: Callable[..., Any], argv: list[str]) -> int:
    """Parse `argv`, run the verb's function, show its report, write it to `--out`, and return the exit code."""
    from vjepa.commands.parsing import explained
    from vjepa.commands.recipes import check_empty_mappings

    parser, argv = verb_parser(name, function), gather_numbers(argv, VERBS[name].numbers)
    with explained(parser, argv):
        parsed = parser.parse_args(argv)
        check_empty_mappings(parsed.as_dict(), argv)
        settings = json.loads(parser.dump(parsed, format="json"))
        flags = {key: value for key, value in parser.instantiate(parsed).items() if key != "config"}
        arguments = grouped(function, flags)
    given = flags.get("out")
    # the verb itself writes to a URL, and to a file
    out = None if given is None or VERBS[name].writes_file or "://" in str(given) else Path(given)
    if VERBS[name].writes_file and given is not None:
        check_writable(Path(given).parent)
    if out is None:
        report = as_report(function(**arguments))
    else:
        check_writable(out)
        several = int(flags.get("world_size") or os.environ.get("WORLD_SIZE") or 1) > 1
        with held(out, shared=several) as free:
            if not free:
                raise UsageError(
                    f"--out {out}: another process writes to it. Wait until it ends, or give another folder."
                )
            report = as_report(function(**arguments))
            path = write_result(out, figures=report.figures, settings=settings, seed=flags.get("seed"))
            log.info("results in %s", path)
    show(report)
    return report.exit_code
