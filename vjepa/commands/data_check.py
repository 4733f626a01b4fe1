"""`vjepa data check`: an audit with its progress, its files and its report."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from vjepa.commands.report import Report
from vjepa.data.audit.findings import UNUSABLE, AuditReport, ClipNeeds
from vjepa.data.audit.page import write_page
from vjepa.data.audit.run import Running, check
from vjepa.data.jobs.engine import Engine
from vjepa.data.remote import is_url
from vjepa.errors import UsageError
from vjepa.files import write_bytes, write_text

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
SHOWN = 100  # findings shown at the end; all of them are in report.json
SECONDS_BETWEEN_LINES = 10.0
JOURNAL = "check.jsonl"
TITLES = {
    "short": "too short for a clip",
    "variable": "of variable frame rate",
    "odd_fps": "of an odd frame rate",
    "duplicate": "duplicates",
    "leak": "leaks between splits",
}


def check_command(
    *,
    source: str,
    out: Path | None = None,
    root: str | None = None,
    decoder: str = "auto",
    against: str | None = None,
    num_frames: int = 1,
    fps: float | None = None,
    min_seconds: float = 0.0,
    engine: Engine = "local",
    num_processes: int | None = None,
    timeout_seconds: float | None = None,
    resume: bool = False,
) -> Report:
    """Decode every clip of a manifest once and list what is broken, doubled, or on both sides of a split.

    Args:
        source: Manifest, folder or video.
        out: Folder for result.json, report.json (all findings and files), report.html (histograms, pictures), and
            quarantine.csv, the list of what no clip can be made of, with reasons; a fit leaves it out by
            --data.reading.quarantine.
        root: Folder that relative paths in the manifest start from.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a decoder of your own.
        against: Another manifest, such as that of the validation clips, which should share nothing with the first.
        num_frames: Frames in a clip of your recipe; rows too short for one are listed.
        fps: Frames of the clip a second; without it, a clip takes every frame.
        min_seconds: Shortest video or part that is wanted.
        engine: Processes of this machine, or tasks of a Ray cluster.
        num_processes: Files decoded at a time. 0 decodes in this process. Default: one a core.
        timeout_seconds: How long a file may take before its process is ended; 60 by default.
        resume: Take up the check that was begun in the same folder.
    """
    if resume and out is None:
        raise UsageError("--resume without --out: there is no check to take up. Give the folder it wrote to.")
    if num_processes is None:
        num_processes = (os.cpu_count() or 1) if engine == "local" else 0
    if timeout_seconds is None and (num_processes or engine == "ray"):
        timeout_seconds = TIMEOUT_SECONDS
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if not resume:
            (out / JOURNAL).unlink(missing_ok=True)
    running = Running(
        engine=engine,
        num_processes=num_processes,
        timeout_seconds=timeout_seconds,
        journal=None if out is None else out / JOURNAL,
    )
    needs = ClipNeeds(num_frames=num_frames, fps=fps, min_seconds=min_seconds)
    report = check(
        source,
        root=root,
        decoder=decoder,
        against=against,
        needs=needs,
        running=running,
        progress=shown_on_terminal if sys.stderr.isatty() else told_in_lines,
    )
    if out is not None:
        write_quarantine(out / "quarantine.csv", report)
        write_findings(out / "report.json", report)
        write_page(out / "report.html", report, decoder=decoder, running=running)
    rows = [
        {"what": found.kind, "path": printable(found.path), "reason": printable(found.reason)}
        for found in report.findings[:SHOWN]
    ]
    return Report(title=title_of(report), rows=rows, figures=report.figures())


def printable(text: str) -> str:
    """In one line, what can be shown of a name: on disk it may hold line ends, and need not be Unicode."""
    shown = text.encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)


def title_of(report: AuditReport) -> str:
    """The outcome in one line; findings that most sets are free of are named only where there are some."""
    begun = (
        f"{len(report.broken)} broken files, {len(report.empty)} rows without a frame, "
        f"{len(report.repeated)} rows repeated"
    )
    rest = [
        f"{count} {text}"
        for kind, text in TITLES.items()
        if (count := sum(f.kind == kind for f in report.findings))
    ]
    shown = f" (the first {SHOWN} of {len(report.findings)} findings)" if len(report.findings) > SHOWN else ""
    return ", ".join([begun, *rest]) + shown


def write_quarantine(path: Path, report: AuditReport) -> None:
    """Write what no clip can be made of; a row without `start` and `end` is the whole file."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["path", "reason", "start", "end"])
    for found in report.findings:
        if found.kind in UNUSABLE:
            place = found.path if is_url(found.path) else os.path.abspath(found.path)
            writer.writerow([place, found.reason, found.start, found.end])
    write_bytes(file.getvalue().encode("utf-8", "surrogateescape"), path)


def write_findings(path: Path, report: AuditReport) -> None:
    """Write all findings and the record of every file as JSON."""
    content = {
        "findings": [asdict(found) for found in report.findings],
        "files": {path: asdict(file) for path, file in report.files.items()},
        **report.figures(),
    }
    write_text(json.dumps(content, indent=1), path)


def shown_on_terminal(steps: Iterator[None], total: int) -> Iterable[None]:
    """A bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), "files", TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(steps, total=total)


def told_in_lines(steps: Iterator[None], total: int) -> Iterable[None]:
    """A line every ten seconds, for a log file."""
    told = time.monotonic()
    for done, step in enumerate(steps, start=1):
        yield step
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log.info("%d of %d files decoded", done, total)
