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
