"""The verb `vjepa data check`: an audit with its progress, its files and its report."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from vjepa.commands.console import log_terminal
from vjepa.commands.flags import Flat
from vjepa.commands.report import Report
from vjepa.data.audit.findings import RECIPE, UNUSABLE, AuditReport, ClipNeeds
from vjepa.data.audit.page import write_page
from vjepa.data.audit.run import check
from vjepa.data.jobs.engine import Engine, Running
from vjepa.data.manifests.quarantine import absolute
from vjepa.errors import UsageError
from vjepa.files import write_bytes, write_text
from vjepa.names import redacted

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
MAX_SHOWN = 100  # findings in the table at the end; all of them are in report.json
SECONDS_BETWEEN_LINES = 10.0
JOURNAL = "check.jsonl"
ANY_CLIP = ClipNeeds()
TITLES = {
    "short": "too short for a clip",
    "unusual": "unusual (read from the start each time)",
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
    needs: Flat[ClipNeeds] = ANY_CLIP,
    thorough: bool = False,
    engine: Engine = "local",
    num_processes: int | None = None,
    timeout_seconds: float | None = None,
    resume: bool = False,
) -> Report:
    """Decode every clip of a manifest once and list what is broken, duplicated, or in two splits.

    Args:
        source: Manifest, folder or video.
        out: Folder for result.json, report.json (all findings and files), report.html (histograms, thumbnails), and
            quarantine.csv, the list of unusable files and rows with reasons. A fit excludes these with
            --data.reading.quarantine.
        root: Folder that relative paths in the manifest start from.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of your own decoder.
        against: Another manifest, such as the validation clips', which should share nothing with the first.
        needs: The clip of your recipe; rows that are too short for one are listed.
        thorough: Compare every frame read by index with a full decode, not a sample; takes about twice as long.
        engine: Processes of this machine, or tasks of a Ray cluster.
        num_processes: Number of files decoded in parallel. 0 decodes in this process. Default: one per core.
        timeout_seconds: Time limit per file; beyond it the file's process is ended. Default: 60.
        resume: Continue the check that was begun in the same folder.
    """
    if resume and out is None:
        raise UsageError("--resume without --out: there is no check to resume. Give the folder it wrote to.")
    journal = None if out is None else out / JOURNAL
    if out is not None and journal is not None:
        out.mkdir(parents=True, exist_ok=True)
        if not resume:
            journal.unlink(missing_ok=True)
    running = Running.filled(
        engine, num_processes, timeout_seconds, default_seconds=TIMEOUT_SECONDS, journal=journal
    )
    report = check(
        source,
        root=root,
        decoder=decoder,
        against=against,
        needs=needs,
        thorough=thorough,
        running=running,
        progress=show_bar if sys.stderr.isatty() else log_progress,
    )
    if out is not None:
        write_quarantine(out / "quarantine.csv", report)
        write_findings(out / "report.json", report)
        write_page(out / "report.html", report, decoder=decoder, running=running)
    return _report(report, out)


def _report(report: AuditReport, out: Path | None) -> Report:
    written = "" if out is None else f"page: {out / 'report.html'}\nquarantine: {out / 'quarantine.csv'}\n"
    rows = [
        {"what": found.kind, "path": found.path, "reason": found.reason}
        for found in report.findings[:MAX_SHOWN]
    ]
    return Report(title=written + title_of(report), rows=rows, figures=report.figures())


def title_of(report: AuditReport) -> str:
    """Return the outcome in one line; rare kinds of findings are named only if there are some."""
    begun = (
        f"{len(report.broken)} broken files, {len(report.empty)} rows without a frame, "
        f"{len(report.repeated)} rows repeated"
    )
    rest = [
        f"{count} {text}"
        for kind, text in TITLES.items()
        if (count := sum(f.kind == kind for f in report.findings))
    ]
    if report.num_padded:
        share = f"{100 * report.num_padded / len(report.manifest):.0f} %"
        rest.append(f"{share} of the rows shorter than a clip of {RECIPE}, which repeats their last frame")
    count = len(report.findings)
    shown = f" (the first {MAX_SHOWN} of {count} findings)" if count > MAX_SHOWN else ""
    return ", ".join([begun, *rest]) + shown


def write_quarantine(path: Path, report: AuditReport) -> None:
    """Write the unusable files and rows; an entry without `start` and `end` means the whole file."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["path", "reason", "start", "end"])
    for found in report.findings:
        if found.kind in UNUSABLE:
            place = absolute(found.path)
            writer.writerow([place, redacted(found.reason), found.start, found.end])
    write_bytes(file.getvalue().encode("utf-8", "surrogateescape"), path)


def write_findings(path: Path, report: AuditReport) -> None:
    """Write all findings and the record of every file as JSON."""
    content = {
        "findings": [asdict(found) for found in report.findings],
        "files": {path: asdict(file) for path, file in report.files.items()},
        **report.figures(),
    }
    write_text(json.dumps(content, indent=1), path)


def show_bar(steps: Iterator[None], total: int) -> Iterable[None]:
    """Show a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), "files", TimeRemainingColumn())
    with Progress(*columns, console=log_terminal() or Console(stderr=True), transient=True) as bar:
        yield from bar.track(steps, total=total)


def log_progress(steps: Iterator[None], total: int) -> Iterable[None]:
    """Log the progress every ten seconds, for a log file."""
    last = time.monotonic()
    for done, step in enumerate(steps, start=1):
        yield step
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info("%d of %d files decoded", done, total)
