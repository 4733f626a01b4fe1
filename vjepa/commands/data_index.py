"""The verb `vjepa data index`: reads the packets of every video of a manifest once and saves their times."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vjepa.commands.report import Report
from vjepa.data.decoders.backends.frames import is_frames
from vjepa.data.decoders.packet_store import IndexedFile, PacketStore, index_file
from vjepa.data.jobs.engine import Engine, Running
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.remote import is_url, member_of

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
FILES_PER_WRITE = 1000  # as many may be read again after a kill


def index_command(
    *,
    source: str,
    out: Path,
    root: str | None = None,
    engine: Engine = "local",
    num_processes: int | None = None,
    timeout_seconds: float | None = None,
) -> Report:
    """Save the times of all packets and keyframes of a manifest's videos in one file, for --data.reading.index.

    With it, opening a video reads its header and no packet, so that a clip reads only the part of the file that it
    needs. Run again, the command reads only new and changed files, and continues after a stop. Broken files are
    listed; a fit reports them as usual.

    Args:
        source: Manifest, folder or video.
        out: The file to create or update.
        root: Folder that relative paths in the manifest start from.
        engine: Processes of this machine, or tasks of a Ray cluster.
        num_processes: Number of files read in parallel. 0 reads in this process. Default: one per core.
        timeout_seconds: Time limit per file; beyond it the file's process is ended. Default: 60.
    """
    running = Running.filled(engine, num_processes, timeout_seconds, default_seconds=TIMEOUT_SECONDS)
    manifest = read_manifest(source, root=root)
    paths = list(dict.fromkeys(str(row.path) for row in manifest.rows))
    videos = [p for p in paths if not is_url(p) and member_of(p) is None and not is_frames(p)]
    store = PacketStore.create(out)
    new = [path for path in videos if store.find(path) is None]
    added = _add_to(store, new, running)
    figures = {
        "index": str(out),
        "num_videos": len(videos),
        "num_added": added.num_added,
        "num_unchanged": len(videos) - len(new),
        "num_read_each_time": added.num_unsure,
        "num_not_files": len(paths) - len(videos),
        "num_broken": len(added.broken),
        "num_bytes": store.path.stat().st_size,
    }
    title = (
        f"{added.num_added} videos indexed, {figures['num_unchanged']} unchanged, {added.num_unsure} must be read "
        f"each time, {len(added.broken)} are broken"
    )
    return Report(title=title, rows=sorted(added.broken, key=lambda row: str(row["path"])), figures=figures)


class _Added(NamedTuple):
    """The outcome of reading files: how many are indexed, how many cannot be, and the broken ones with reasons."""

    num_added: int
    num_unsure: int
    broken: list[dict[str, object]]


def _add_to(store: PacketStore, new: Sequence[str], running: Running) -> _Added:
    kept: list[IndexedFile] = []
    broken: list[dict[str, object]] = []
    num_unsure = num_added = 0
    for number, result in enumerate(running.run(index_file, new), 1):
        if result.error:
            broken.append({"path": new[result.index], "reason": result.error})
        elif result.value is None:
            num_unsure += 1
        else:
            kept.append(result.value)
            num_added += 1
        if len(kept) >= FILES_PER_WRITE or number == len(new):
            store.add(kept)
            kept.clear()
            log.info("%d of %d files read", number, len(new))
    return _Added(num_added, num_unsure, broken)
