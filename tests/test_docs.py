"""Documents hold what they say: Python blocks run, and every `vjepa` line names a real verb and real flags.

A block that follows `<!-- no-run: reason -->` is left out.
"""

import importlib
import shlex
from pathlib import Path

import pytest

from tests.docs_blocks import Block, blocks_of, commands_of, files
from vjepa.commands.app import VERBS, split_verb, verb_parser
from vjepa.commands.parsing import chosen_parser, known_keys
from vjepa.errors import UsageError, did_you_mean

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = ["config", "help", "print_config"]
BLOCKS = {path: blocks_of(path.read_text(encoding="utf-8")) for path in files(ROOT)}
WITH_PYTHON = [path for path, blocks in BLOCKS.items() if any(block.language == "python" for block in blocks)]
COMMANDS = [
    pytest.param(command, id=f"{path.relative_to(ROOT).as_posix()}:{block.line} {command}")
    for path, blocks in BLOCKS.items()
    for block in blocks
    if block.language in ("bash", "sh", "shell", "console")
    for command in commands_of(block)
]


def flags_of(name: str) -> list[str]:
    """All flags of a verb, as its own parser knows them."""
    verb = VERBS[name]
    module, function = verb.target.split(":")
    target = getattr(importlib.import_module(module), function)
    if not verb.forwards:
        return known_keys(verb_parser(name, target)) + ALWAYS + list(verb.numbers)
    from vjepa.commands.fit import FitCLI

    parsers = []

    def keep(cli, parser, args):
        parsers.append(parser)
        raise UsageError("only the parser is wanted")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UsageError):
        patch.setattr(FitCLI, "parse_arguments", keep)
        target(name, [])
    return known_keys(chosen_parser(parsers[0], [name])[0]) + ALWAYS


def check_command(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    if not words or words[0] in ("--help", "--version"):
        return
    name, rest = split_verb(words)
    known = flags_of(name)
    for word in rest:
        if word.startswith("--"):
            flag = word[2:].split("=")[0].rstrip("+").removesuffix(".help")
            # below a class chosen by its path, the class decides about the keys
            above = [".".join(flag.split(".")[:depth]) for depth in range(1, flag.count(".") + 2)]
            typed = flag in known or any(key in known for key in above if key.count(".") >= 1)
            assert typed, f"{command}: --{flag} is no flag; the nearest is --{did_you_mean(flag, known)}"


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "document"}
    for block in BLOCKS[path]:
        if block.language == "python":
            padding = "\n" * (block.line - 1)  # so that a traceback names the document's own line
            exec(compile(padding + block.text, str(path), "exec"), namespace)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_real_verbs_and_flags(command):
    check_command(command)


def test_a_wrong_flag_or_verb_in_a_document_is_seen():
    check_command("vjepa doctor --out DIR  # fine")
    with pytest.raises(AssertionError, match="the nearest is --out"):
        check_command("vjepa doctor --ot DIR")
    with pytest.raises(UsageError, match="the nearest real one is 'doctor'"):
        check_command("vjepa docter")


def test_blocks_and_commands_are_found():
    text = (
        "# Title\n\n```python\nx = 1\n```\n\n<!-- no-run: needs a GPU -->\n```python\ny = 2\n```\n"
        "```bash\npip install . && vjepa doctor \\\n  --out DIR\nVJEPA_DEBUG=1 vjepa demo | tail\n```\n"
    )
    python, shell = blocks_of(text)
    assert python == Block("python", "x = 1\n", 4)
    assert commands_of(shell) == ["vjepa doctor  --out DIR", "vjepa demo"]
