"""Runs an audit: the files of one manifest or two through the jobs, and their records to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vjepa.data.audit.examine import FileJob, FileRecord, Part, PartRecord, examine
from vjepa.data.audit.findings import (
    AuditReport,
    ClipNeeds,
    Finding,
    duplicates,
    leaks,
    of_files,
    of_rows,
)
from vjepa.data.decoders.base import decoder_class
from vjepa.data.jobs.engine import Engine, run_jobs
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import Manifest, ManifestRow


@dataclass(frozen=True, kw_only=True)
class Running:
    """How an audit is run, as for `run_jobs`.

    Args:
        engine: Processes of this machine, or tasks of a Ray cluster.
        num_processes: How many at a time; 0 of "local" decodes in this process.
        timeout_seconds: How long a file may take.
        journal: File that an audit is taken up from.
    """

    engine: Engine = "local"
    num_processes: int = 0
    timeout_seconds: float | None = None
    journal: Path | None = None


def check(
    source: str | Path,
    *,
    root: str | Path | None = None,
    decoder: str = "auto",
    against: str | Path | None = None,
    needs: ClipNeeds | None = None,
    running: Running | None = None,
    progress: Callable[[Iterator[None], int], Iterable[None]] | None = None,
) -> AuditReport:
    """Decode every frame of every file of a manifest, each file once.

    Args:
        source: A manifest, folder or video, as for `read_manifest`.
        root: Folder that relative paths start from.
        decoder: "auto", "pyav", "torchcodec", "decord", "frames", or the class path of a `Decoder`.
        against: Another manifest, that of the validation clips say, which should share nothing with `source`.
        needs: What a clip of the recipe takes.
        running: In which processes; in this one by default, without a time limit.
        progress: Wraps what yields once a file; also gets how many files there are.

    Raises:
        ManifestError: If a manifest itself is wrong.
    """
    manifest = read_manifest(source, root=root)
    other = read_manifest(against, root=root) if against is not None else None
    decoder_class(decoder)  # an unknown name is refused here, not by each file
    needs, running = needs or ClipNeeds(), running or Running()
    jobs = file_jobs([*manifest.rows, *(other.rows if other else ())], decoder)
    files: dict[str, FileRecord] = {job.path: FileRecord() for job in jobs}  # in the manifest's order
    ended: set[str] = set()

    def examined() -> Iterator[None]:
        results = run_jobs(
            examine,
            jobs,
            engine=running.engine,
            num_processes=running.num_processes,
            timeout_seconds=running.timeout_seconds,
            journal=running.journal,
            key=FileJob.key,
        )
        for result in results:
            path = jobs[result.index].path
            if result.ended:
                ended.add(path)
            files[path] = FileRecord.read(result.value or {"reason": result.error})
            yield

    for _ in progress(examined(), len(jobs)) if progress else examined():
        pass
    parts = {
        job.path: dict(zip(job.parts, files[job.path].parts, strict=True))
        for job in jobs
        if not files[job.path].reason
    }
    own = {row.path: files[row.path] for row in manifest.rows}
    found: list[Finding] = [
        *of_files(own, ended, needs),
        *of_rows(manifest, _by_row(manifest, parts), needs),
        *duplicates(own),
        *leaks(_by_split(manifest, other), files),
    ]
    return AuditReport(manifest, own, tuple(found))


def file_jobs(rows: Iterable[ManifestRow], decoder: str) -> list[FileJob]:
    """One job a file, in the order in which the rows name them first, with the parts they name."""
    parts: dict[str, dict[Part, None]] = {}
    for row in rows:
        parts.setdefault(row.path, {})[row.start, row.end] = None
    return [FileJob(path, tuple(named), decoder) for path, named in parts.items()]


def _by_row(
    manifest: Manifest, parts: Mapping[str, Mapping[Part, PartRecord]]
) -> dict[ManifestRow, PartRecord]:
    return {row: parts[row.path][row.start, row.end] for row in manifest.rows if row.path in parts}


def _by_split(manifest: Manifest, other: Manifest | None) -> Iterator[tuple[str, ManifestRow]]:
    """Each row of one or two manifests with the name of its split."""
    if other is None:
        yield from ((row.split or "no split", row) for row in manifest.rows)
        return
    names = _short_names([manifest.source, other.source])
    for name, rows in zip(names, (manifest.rows, other.rows), strict=True):
        yield from ((f"{name} {row.split}".strip(), row) for row in rows)


def _short_names(sources: Sequence[str]) -> list[str]:
    names = [Path(source).name for source in sources]
    return names if len(set(names)) == len(names) else list(sources)
