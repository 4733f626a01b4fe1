import io
import os
import subprocess
import sys

import pytest

from vjepa.commands.console import one_line, show
from vjepa.commands.report import Report

REPORT = Report(
    title="probes [final]",
    rows=[{"probe": "linear", "top1": 0.123456}, {"probe": "attentive", "top5": 1.0}],
    figures={"chance": 0.1, "confusion": [[1]]},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_where_there_is_no_terminal(capsys):
    show(REPORT)
    assert capsys.readouterr().out.splitlines() == [
        "probes [final]",
        "probe      top1    top5",
        "linear     0.1235",
        "attentive          1",
        "chance: 0.1",
    ]


def test_a_table_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    show(REPORT)
    shown = terminal.getvalue()
    assert "┃" in shown and "attentive" in shown and "chance" in shown and "confusion" not in shown


def test_an_empty_report_shows_nothing(capsys):
    show(Report())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.csv"), "no such file or directory: 'a.csv'"),
        (ValueError("one\n  two"), "one two"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_one_line(error, line):
    assert one_line(error) == line


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "an info\na warning\n"),
        ({"RANK": "0"}, "an info\na warning\n"),
        ({"RANK": "1"}, "rank 1: a warning\n"),
        ({"SLURM_PROCID": "3"}, "rank 3: a warning\n"),
        ({"LOCAL_RANK": "2"}, "rank 2: a warning\n"),
    ],
)
def test_one_rank_shows_its_lines_and_the_others_warn_with_their_number(given, told):
    code = (
        "import logging; from vjepa.commands.console import log_to_stderr; log_to_stderr()\n"
        "log = logging.getLogger('vjepa.x'); log.info('an info'); log.warning('a warning')"
    )
    others = {name: value for name, value in os.environ.items() if "RANK" not in name and "SLURM" not in name}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=others | given, capture_output=True, text=True, check=True)
    assert done.stderr == told


def test_the_closing_lines_come_last_and_what_was_not_measured_is_not_shown(capsys):
    show(Report(title="run", figures={"top1": 0.5, "top5": None}, closing=("done", "next: vjepa extract")))
    assert capsys.readouterr().out.splitlines() == ["run", "top1: 0.5", "done", "next: vjepa extract"]


def test_markup_and_emoji_codes_of_names_stay_as_they_are(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    name = ":smile: [red] \x1b[31m"
    show(Report(title=name, rows=[{"video": name}], figures={"label": name}))
    assert terminal.getvalue().count(":smile: [red] \\x1b[31m") == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "stream", "code"),
    [
        ("--help", "| true", 0),
        ("estimate --help", "| head -1 >/dev/null", 0),
        ("nothing", "2>&1 | true", 2),
        ("--help", ">&-", 0),
        ("nothing", "2>&-", 2),
        ("--help", ">&- 2>&-", 0),
    ],
)
def test_output_that_nobody_reads_is_no_crash(tmp_path, verb, stream, code):
    command = f"{sys.executable} -m vjepa {verb} {stream}; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.returncode == code and "Traceback" not in ended.stderr and "rror" not in ended.stderr


@pytest.mark.slow
def test_a_name_is_written_in_an_encoding_that_lacks_its_letters():
    command = [sys.executable, "-m", "vjepa", "caf\u00e9"]
    ended = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 2 and b"caf\\xe9" in ended.stderr
