"""Output of the command line: tables on a terminal, plain lines elsewhere, logs on stderr."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from vjepa.commands.report import Report
from vjepa.names import printable

if TYPE_CHECKING:
    from rich.console import Console

# a full disk, an exceeded quota, a limit of a file's size
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST = 200  # characters; longer figures are not shown


@contextmanager
def usable_streams() -> Iterator[None]:
    """Give standard output and error that can be written in the block, also if they were closed or their reader ends.

    A letter that their encoding lacks is written as an escape.
    """
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed, as by `>&-`
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.callback(setattr, sys, name, None)
                setattr(sys, name, nowhere)
            elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        yield
        for stream in (sys.stdout, sys.stderr):
            _write(stream, "")  # what others have written


def _write(stream: Any, text: str) -> None:
    """Write at once; if the reader of a pipe is gone, as after `| head`, this and the rest go nowhere."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say(text: str) -> None:
    """Write `text` and a newline to standard output."""
    _write(sys.stdout, f"{text}\n")


def say_error(text: str) -> None:
    """Write the lines of `text` to standard error."""
    _write(sys.stderr, printable_lines(text))


def printable_lines(text: str) -> str:
    """Return a text of several lines with each of them printable."""
    return "\n".join(map(printable, text.split("\n")))


def fail(line: str, *, code: int) -> int:
    """Write one line to standard error and return the exit code."""
    _write(sys.stdout, "")
    _write(sys.stderr, f"vjepa: {printable(line)}\n")
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
        return f"{error.strerror[0].lower()}{error.strerror[1:]}: '{printable(str(error.filename))}'"
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
        say(printable(report.title))
    for line in _aligned(report.rows):
        say(line)
    for key, value in _scalars(report).items():
        say(f"{printable(key)}: {_text(value)}")


def _show_tables(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False)
    if report.rows:
        columns = list(dict.fromkeys(key for row in report.rows for key in row))
        table = Table(*columns, title=printable(report.title) or None, title_justify="left")
        for row in report.rows:
            table.add_row(*(_text(row[key]) if key in row else "" for key in columns))
        console.print(table)
    elif report.title:
        console.print(printable(report.title))
    if figures := _scalars(report):
        table = Table(show_header=False, box=None)
        for key, value in figures.items():
            table.add_row(printable(key), _text(value))
        console.print(table)


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
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


class OneLine(logging.Formatter):
    """Formats a log record as printable text; one of this package is one line."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.name.startswith("vjepa"):
            return printable(text)
        return printable_lines(text)


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
    handler.setFormatter(OneLine(form))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("vjepa").setLevel(logging.WARNING if rank else logging.INFO)


def rank_of_process() -> int:
    """Return the rank that torchrun, Lightning or SLURM gave to this process, else 0."""
    given = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((int(rank) for rank in given if rank), 0)
