"""The line of progress: what it says, in a run, and on a terminal that log lines share."""

import io
import logging

import pytest
from rich.console import Console
from rich.logging import RichHandler

from tests.training.runs import RUN_WARNINGS, clip_loader, quiet_trainer, tiny_module
from vjepa.commands.console import StatusLine
from vjepa.training import HealthVerdict, ProgressLines
from vjepa.training.progress import duration, progress_line


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "0 s"),
        (59.6, "1 min"),
        (126, "2 min 6 s"),
        (3600, "1 h"),
        (12_120, "3 h 22 min"),
        (1e5, "1 d 3 h"),
    ],
)
def test_durations(seconds, told):
    assert duration(seconds) == told


def test_the_line_of_a_long_run_fits_in_80_columns():
    line = progress_line(89_000, 90_000, seconds_per_step=12.25, loss=0.4123, judgement="healthy")
    assert line == "step 89000 of 90000  12.2 s/step  3 h 24 min left  loss 0.412  healthy" and len(line) < 80


@pytest.mark.filterwarnings(*RUN_WARNINGS)
def test_a_run_shows_steps_rate_time_loss_and_verdict(tmp_path):
    lines: list[str] = []
    callbacks = [ProgressLines(every_seconds=0.0, show=lines.append), HealthVerdict()]
    quiet_trainer(tmp_path, callbacks=callbacks).fit(tiny_module(), clip_loader(8, 2))
    assert lines[0].startswith("step 1 of 4  loss ")
    assert (
        lines[3].startswith("step 4 of 4  ") and " left  loss " in lines[3] and lines[3].endswith("healthy")
    )
    assert lines[4:] == [""]  # a line that stays in place is removed


def test_log_lines_stay_whole_above_the_status_line():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, legacy_windows=False)
    log = logging.Logger("of this test")
    log.addHandler(RichHandler(console=terminal, show_path=False, show_time=False))
    show = StatusLine(terminal)
    show("step 1 of 4  " + "x" * 100)
    log.warning("the disk is nearly full")
    show("step 2 of 4")
    show("")
    shown = terminal.file.getvalue()
    assert "the disk is nearly full" in shown and "…" in shown and "x" * 68 not in shown
    before, after = shown.split("the disk is nearly full")
    assert "\r\x1b[2K" in before  # the line was erased, then the log line written, then the line again
    assert after.index("\n") < after.index("step")
