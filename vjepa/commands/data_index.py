"""`vjepa data index`: reads the packets of every video of a manifest once and keeps where its frames are."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from vjepa.commands.report import Report
from vjepa.data.decoders.backends.frames import is_frames
from vjepa.data.decoders.packet_store import IndexedFile, PacketStore, index_file
from vjepa.data.jobs.engine import Engine, run_jobs
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.remote import is_url, member_of

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
FILES_AT_A_TIME = 1000  # written together; as many are read again after a kill


def index_command(
    *,
    source: str,
    out: Path,
    root: str | None = None,
    engine: Engine = "local",
    num_processes: int | None = None,
    timeout_seconds: float | None = None,
) -> Report:
    """Keep the times of all packets and keyframes of a manifest's videos in one file, for --data.reading.index.

    With it, opening a video reads its header and no packet: a clip costs the part of the file that it needs. Run
    again, it reads what is new or has changed; started again after a stop, it goes on where it was. Broken files
    are listed, and left to the fit to report.

    Args:
        source: Manifest, folder or video.
        out: The file; created, or brought up to date.
        root: Folder that relative paths in the manifest start from.
        engine: Processes of this machine, or tasks of a Ray cluster.
        num_processes: Files read at a time. 0 reads in this process. Default: one a core.
        timeout_seconds: How long a file may take before its process is ended; 60 by default.
    """
    if num_processes is None:
        num_processes = (os.cpu_count() or 1) if engine == "local" else 0
    if timeout_seconds is None and (num_processes or engine == "ray"):
        timeout_seconds = TIMEOUT_SECONDS
    manifest = read_manifest(source, root=root)
    paths = list(dict.fromkeys(str(row.path) for row in manifest.rows))
    videos = [p for p in paths if not is_url(p) and member_of(p) is None and not is_frames(p)]
    store = PacketStore.create(out)
    new = [path for path in videos if store.find(path) is None]
    kept: list[IndexedFile] = []
    broken: list[dict[str, object]] = []
    num_unsure = num_added = 0
    for number, result in enumerate(
        run_jobs(
            index_file, new, engine=engine, num_processes=num_processes, timeout_seconds=timeout_seconds
        ),
        1,
    ):
        if result.error:
            broken.append({"path": new[result.index], "reason": result.error})
        elif result.value is None:
            num_unsure += 1
        else:
            kept.append(result.value)
            num_added += 1
        if len(kept) >= FILES_AT_A_TIME or number == len(new):
            store.add(kept)
            kept.clear()
            log.info("%d of %d files read", number, len(new))
    figures = {
        "index": str(out),
        "num_videos": len(videos),
        "num_added": num_added,
        "num_unchanged": len(videos) - len(new),
        "num_read_each_time": num_unsure,
        "num_not_files": len(paths) - len(videos),
        "num_broken": len(broken),
        "num_bytes": store.path.stat().st_size,
    }
    title = (
        f"{num_added} videos indexed, {figures['num_unchanged']} were already, {num_unsure} are to be read each "
        f"time, {len(broken)} are broken"
    )
    return Report(title=title, rows=sorted(broken, key=lambda row: str(row["path"])), figures=figures)
