"""Output of the command line: tables on a terminal, plain lines elsewhere, logs on stderr."""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from vjepa.commands.report import Report

if TYPE_CHECKING:
    from rich.console import Console

# a full disk, an exceeded quota, a limit of a file's size
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST = 200  # characters; longer figures are not shown


def say(text: str) -> None:
    """Write `text` and a newline to standard output."""
    sys.stdout.write(f"{text}\n")


def fail(line: str, *, code: int) -> int:
    """Write one line to standard error and return the exit code."""
    sys.stdout.flush()
    sys.stderr.write(f"vjepa: {line}\n")
    return code


def one_line(error: BaseException) -> str:
    """Return the message of `error` in one line, or its type if it has no message.

    >>> one_line(FileNotFoundError(2, "No such file or directory", "clips.csv"))
    "no such file or directory: 'clips.csv'"
    """
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        place = "" if error.filename is None else f" at {error.filename}"
        return (
            f"the disk is full{place} ({error.strerror}). Free some space or write elsewhere, and run the command "
            "again"
        )
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}: '{error.filename}'"
    return " ".join(str(error).split()) or type(error).__name__


def show(report: Report) -> None:
    """Show a report: a table on a terminal, `key: value` lines elsewhere, nothing if it is empty."""
    if sys.stdout.isatty():
        _show_tables(report)
    else:
        _show_lines(report)
    for line in report.closing:
        say(line)


def _show_lines(report: Report) -> None:
    if report.title:
        say(report.title)
    for line in _aligned(report.rows):
        say(line)
    for key, value in _scalars(report).items():
        say(f"{key}: {_text(value)}")


def _show_tables(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if report.rows:
        columns = list(dict.fromkeys(key for row in report.rows for key in row))
        table = Table(*columns, title=report.title or None, title_justify="left")
        for row in report.rows:
            table.add_row(*(_text(row[key]) if key in row else "" for key in columns))
        console.print(table, markup=False)
    elif report.title:
        console.print(report.title, markup=False)
    if figures := _scalars(report):
        table = Table(show_header=False, box=None)
        for key, value in figures.items():
            table.add_row(key, _text(value))
        console.print(table, markup=False)


def _aligned(rows: list[dict[str, Any]]) -> list[str]:
    """Return rows as aligned lines of plain text, with the names of the columns first.

    >>> _aligned([{"what": "loss", "value": 0.5}, {"what": "rank"}])
    ['what  value', 'loss  0.5', 'rank']
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [columns, *([_text(row[key]) if key in row else "" for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    return [
        "  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip() for line in table if columns
    ]


def _scalars(report: Report) -> dict[str, Any]:
    """Return the figures that were measured and are short enough to show; all stand in `result.json`."""
    words = {
        key: ", ".join(value)
        if isinstance(value, list) and value and all(isinstance(x, str) for x in value)
        else value
        for key, value in report.figures.items()
    }
    return {
        key: value
        for key, value in words.items()
        if value is not None and not isinstance(value, dict | list | tuple) and len(str(value)) <= LONGEST
    }


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def log_terminal() -> Console | None:
    """Return the terminal that log lines go to, which lines of progress must share; None if they go elsewhere."""
    from rich.logging import RichHandler

    handlers = logging.getLogger().handlers
    return next((each.console for each in handlers if isinstance(each, RichHandler)), None)


class StatusLine:
    """A line at the bottom of a terminal that stays below the log lines, cut to the terminal's width."""

    def __init__(self, terminal: Console) -> None:
        from rich.live import Live

        # standard output is not redirected: it may be a file
        self._live = Live(console=terminal, transient=True, auto_refresh=False, redirect_stdout=False)

    def __call__(self, text: str) -> None:
        """Show `text` in place of the line before, or remove the line if it is empty."""
        from rich.text import Text

        if not text:
            self._live.stop()
            return
        self._live.start()  # does nothing if it has started
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


def log_to_stderr() -> None:
    """Send log lines to standard error: those of the package from INFO on, of others from WARNING on.

    Of several ranks, the first shows its lines; the others show warnings alone, with their number.
    """
    rank = rank_of_process()
    handler: logging.Handler = logging.StreamHandler()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False)
    form = f"rank {rank}: %(message)s" if rank else "%(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, handlers=[handler])
    logging.getLogger("vjepa").setLevel(logging.WARNING if rank else logging.INFO)


def rank_of_process() -> int:
    """Return the rank that torchrun, Lightning or SLURM gave to this process, else 0."""
    given = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((int(rank) for rank in given if rank), 0)
