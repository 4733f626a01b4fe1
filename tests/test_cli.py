"""The command line's frame: verbs, help, exit codes, one-line errors, results."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vjepa.commands.app import VERBS, gather_numbers, main, split_verb, verb_parser
from vjepa.commands.report import Report
from vjepa.commands.verbs import Verb
from vjepa.errors import UsageError
from vjepa.types import TokenGrid


def count(
    *, files: tuple[str, ...], step: int = 1, weight: float, out: Path | None = None, seed: int = 0
) -> Report:
    """Counts files.

    Args:
        files: The files to count.
        step: Count each so often.
        weight: Of one file.
        out: Folder for `result.json`.
        seed: Changes nothing.
    """
    return Report(title="counted", figures={"total": weight * len(files[::step])})


def raise_full() -> None:
    """What a library's write to a full disk ends with."""
    json.loads("{}", object_hook=lambda _: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))


def fail(*, how: str) -> None:
    """Fails.

    Args:
        how: In which way.
    """
    if how == "house":
        TokenGrid(t=0, h=1, w=1)
    if how == "library":
        int("three")
    if how == "missing":
        Path("absent.csv").read_text()
    if how == "full":
        raise_full()
    if how == "usage":
        raise UsageError("two\n  lines")
    if how == "interrupt":
        raise KeyboardInterrupt
    assert how == "fine", f"how={how}"


@pytest.fixture(autouse=True)
def outside_verbs(monkeypatch):
    """Two verbs whose functions are in this file."""
    module = type(sys)("outside_verbs")
    module.count, module.fail = count, fail
    monkeypatch.setitem(sys.modules, "outside_verbs", module)
    example = "vjepa count a.mp4 --weight 2"
    monkeypatch.setitem(VERBS, "count", Verb("counts", "outside_verbs:count", example, positional="files"))
    monkeypatch.setitem(VERBS, "fail", Verb("fails", "outside_verbs:fail", "vjepa fail --how fine"))
    monkeypatch.delenv("VJEPA_DEBUG", raising=False)


@pytest.fixture
def told(capsys):
    """What went to standard error; one line."""

    def read() -> str:
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return read


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_verbs(argv, capsys):
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("example: vjepa fit --config")
    assert all(f"  {name} " in shown and verb.summary in shown for name, verb in VERBS.items())


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "vjepa", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "vjepa 0.1.0\n")


@pytest.mark.parametrize("name", [name for name in VERBS])
def test_verb_exists_and_its_help_begins_with_its_example(name, capsys):
    assert VERBS[name].example.startswith(f"vjepa {name}")
    assert main([*name.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"example: {VERBS[name].example}\n")


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if not verb.forwards])
def test_every_flag_of_a_verb_has_help(name):
    module, function = VERBS[name].target.split(":")
    parser = verb_parser(name, getattr(importlib.import_module(module), function))
    assert not [action.dest for action in parser._actions if not action.help]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["cuont", "a"], "unknown verb 'cuont': the nearest real one is 'count'"),
        (["trian"], "unknown verb 'trian': the nearest real one is 'fit'"),
        (["data"], "'data' needs a second word: data check, data index, data shard"),
        (["data", "chek", "x"], "unknown verb 'data chek': the nearest real one is 'data check'"),
        (
            ["count", "a", "--weight", "2", "--stepp", "3"],
            "unknown flag --stepp: the nearest real one is --step.",
        ),
        (
            ["count", "a", "--weight", "2", "--see", "3"],
            "unknown flag --see: the nearest real one is --seed.",
        ),
        (["count", "--weight", "2"], "missing FILES: give it"),
        (["count", "a"], "missing --weight: give it"),
        (["count", "a", "--weight", "two"], "key 'weight': Expected a float. Got value: two"),
        (["count", "a", "--config", "absent.yaml"], "File does not exist"),
        (["fail", "--how", "house"], "a token grid needs"),
        (["fail", "--how", "missing"], "no such file or directory: 'absent.csv'"),
        (["fail", "--how", "usage"], "two lines"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(argv, line, told):
    assert main(argv) == 2
    shown = told()
    assert shown.startswith("vjepa: error: ") and line in shown


@pytest.mark.parametrize("how", ["library", "bug"])
def test_a_crash_is_one_line_and_exit_1(how, told, capsys, monkeypatch):
    assert main(["fail", "--how", how]) == 1
    shown = told()
    assert shown.startswith("vjepa: crashed: ") and shown.endswith("set VJEPA_DEBUG=1 for the traceback")
    monkeypatch.setenv("VJEPA_DEBUG", "1")  # the advice works
    assert main(["fail", "--how", how]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_no_crash(told):
    assert main(["fail", "--how", "full"]) == 2
    assert "error: the disk is full (No space left on device). Free some space or write elsewhere" in told()


def test_an_interrupt_is_exit_130(told):
    assert main(["fail", "--how", "interrupt"]) == 130
    assert told() == "vjepa: interrupted"


def test_positionals_flags_and_config_together(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("weight: 2.5\nseed: 7\n")
    assert main(["count", "a", "b", "c", "--config", str(recipe), "--step=2"]) == 0
    assert capsys.readouterr().out == "counted\ntotal: 5\n"


def test_a_misspelt_key_in_a_config_names_file_line_and_key(tmp_path, told):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("weight: 2.5\nsed: 7\n")
    assert main(["count", "a", "--config", str(recipe)]) == 2
    assert f"unknown key 'sed' ({recipe}:2): the nearest real one is 'seed'." in told()


def test_out_holds_figures_settings_and_seed(tmp_path):
    assert main(["count", "a", "b", "--weight", "3", "--seed", "4", "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["total"], result["seed"]) == (6.0, 4)
    assert result["settings"] | {"out": ""} == {
        "files": ["a", "b"], "step": 1, "weight": 3.0, "seed": 4, "out": "",
    }  # fmt: skip


def test_print_config_prints_and_does_nothing(tmp_path, capsys):
    argv = ["count", "a", "--weight", "3", "--out", str(tmp_path / "out"), "--print_config"]
    assert main(argv) == 0
    assert "weight: 3.0" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_verbs_of_two_words():
    assert split_verb(["data", "check", "x"]) == ("data check", ["x"])
    assert split_verb(["count", "check"]) == ("count", ["check"])


def test_help_of_a_first_word_alone_lists_the_verbs(capsys):
    assert main(["data", "--help"]) == 0
    assert "data check" in capsys.readouterr().out


def test_out_is_looked_at_before_the_work(tmp_path, told):
    (tmp_path / "file").write_text("")
    command = ["count", "a.mp4", "--weight", "2", "--out"]
    assert main([*command, str(tmp_path / "file")]) == 2
    assert "is a file. Give a folder" in told()
    assert main([*command, "/proc/absent/out"]) == 2
    assert "Give another folder" in told()
    assert main([*command, str(tmp_path / "new" / "folder")]) == 0


def test_numbers_may_stand_apart():
    numbers = VERBS["probe"].numbers
    words = ["--lr", "1e-3", "3e-4", "--layers", "-4", "-1", "--weight_decay", "[0.1]", "--out", "x"]
    assert gather_numbers(words, numbers) == [
        "--grid.lr=[1e-3, 3e-4]", "--layers=[-4, -1]", "--grid.weight_decay=[0.1]", "--out", "x"
    ]  # fmt: skip
    from vjepa.commands.probe import probe

    given = ["--encoder=e", "--train=t", "--val=v", *words]
    parsed = verb_parser("probe", probe).parse_args(gather_numbers(given, numbers))
    assert parsed.grid.lr == (1e-3, 3e-4) and parsed.layers == (-4, -1)
    assert parsed.grid.weight_decay == (0.1,)
