"""The run of an audit: examines the files of one or two manifests in jobs, and collects the findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vjepa.data.audit.examine import FileJob, FileRecord, Interval, PartRecord, examine
from vjepa.data.audit.findings import (
    RECIPE_NEEDS,
    AuditReport,
    ClipNeeds,
    Finding,
    duplicates,
    leaks,
    of_files,
    of_rows,
)
from vjepa.data.decoders.base import decoder_class
from vjepa.data.jobs.engine import Running
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, ManifestRow

ShowProgress = Callable[[Iterator[None], int], Iterable[None]]


def check(
    source: str | Path,
    *,
    root: str | Path | None = None,
    decoder: str = "auto",
    against: str | Path | None = None,
    needs: ClipNeeds | None = None,
    thorough: bool = False,
    running: Running | None = None,
    progress: ShowProgress | None = None,
) -> AuditReport:
    """Decode every frame of every file of a manifest, each file once.

    Args:
        source: A manifest, folder or video, as for `read_manifest`.
        root: Folder that relative paths start from.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `Decoder`.
        against: Another manifest, such as the validation clips', which should share nothing with `source`.
        needs: The requirements of a recipe's clip.
        thorough: Whether to compare every frame read by index with a full decode, not a sample of them.
        running: The processes to use; by default this one, without a time limit.
        progress: Wraps an iterator with one step per file; its second argument is the number of files.

    Raises:
        ManifestError: If a manifest itself is wrong.
    """
    manifest = read_manifest(source, root=root)
    other = read_manifest(against, root=root) if against is not None else None
    decoder_class(decoder)  # an unknown name is refused here, not by each file
    needs, running = needs or ClipNeeds(), running or Running()
    jobs = file_jobs([*manifest.rows, *(other.rows if other else ())], decoder, thorough=thorough)
    files, ended = _examined(jobs, running, progress)
    own = {row.path: files[row.path] for row in manifest.rows}
    parts = _by_row(manifest, jobs, files)
    found: list[Finding] = [
        *of_files(own, ended, needs),
        *of_rows(manifest, parts, needs),
        *duplicates(own),
        *leaks(_by_split(manifest, other), files),
    ]
    moving = (parts[row] for row in manifest.rows if row in parts and parts[row].num_frames > 1)
    num_padded = sum(bool(RECIPE_NEEDS.lacking(part)) for part in moving)
    return AuditReport(manifest, own, tuple(found), num_padded)


def _examined(
    jobs: Sequence[FileJob], running: Running, progress: ShowProgress | None
) -> tuple[dict[str, FileRecord], set[str]]:
    """Return the record of each file in the order of the jobs, and the files whose decoding hung or crashed."""
    files = {job.path: FileRecord() for job in jobs}
    ended: set[str] = set()

    def steps() -> Iterator[None]:
        for result in running.run(examine, jobs, key=FileJob.key):
            path = jobs[result.index].path
            if result.ended:
                ended.add(path)
            files[path] = FileRecord.read(result.value or {"reason": result.error})
            yield

    for _ in progress(steps(), len(jobs)) if progress else steps():
        pass
    return files, ended


def file_jobs(rows: Iterable[ManifestRow], decoder: str, *, thorough: bool = False) -> list[FileJob]:
    """Return one job per file with all its parts, in the order in which the rows name the files."""
    parts: dict[str, dict[Interval, None]] = {}
    for row in rows:
        parts.setdefault(row.path, {})[row.start, row.end] = None
    return [FileJob(path, tuple(named), decoder, thorough) for path, named in parts.items()]


def _by_row(
    manifest: Manifest, jobs: Sequence[FileJob], files: Mapping[str, FileRecord]
) -> dict[ManifestRow, PartRecord]:
    """Return the record of each row whose file can be read."""
    readable = [job for job in jobs if not files[job.path].reason]
    parts = {job.path: dict(zip(job.parts, files[job.path].parts, strict=True)) for job in readable}
    return {row: parts[row.path][row.start, row.end] for row in manifest.rows if row.path in parts}


def _by_split(manifest: Manifest, other: Manifest | None) -> Iterator[tuple[str, ManifestRow]]:
    """Yield each row of one or two manifests with the name of its split."""
    if other is None:
        yield from ((row.split or "no split", row) for row in manifest.rows)
        return
    names = _short_names([manifest.source, other.source])
    for name, rows in zip(names, (manifest.rows, other.rows), strict=True):
        yield from ((f"{name} {row.split}".strip(), row) for row in rows)


def _short_names(sources: Sequence[str]) -> list[str]:
    names = [Path(source).name for source in sources]
    return names if len(set(names)) == len(names) else list(sources)
