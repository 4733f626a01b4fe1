"""`vjepa data shard`: the plan of a set, its shards written one by one or side by side, and its index."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from vjepa.commands.report import Report
from vjepa.data.decoders.base import decoder_class
from vjepa.data.jobs.engine import Engine, run_jobs
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.shard_index import INDEX, Shard, read_index
from vjepa.data.remote import filesystem, is_url
from vjepa.data.shards.writer import (
    ShardPlan,
    plan_hash,
    plan_shards,
    record_of,
    write_index,
    write_shard,
    written,
)
from vjepa.errors import UsageError

log = logging.getLogger(__name__)


def shard_command(
    *,
    source: str,
    out: str,
    name: str = "clips",
    max_bytes: int = 500_000_000,
    clips_per_shard: int | None = None,
    root: str | None = None,
    decoder: str = "auto",
    num_processes: int = 0,
    engine: Engine = "local",
    seed: int = 0,
) -> Report:
    """Write the videos of a manifest as WebDataset tar shards, byte for byte, mixed by a seed.

    Started again after a stop, it goes on where it was.

    Args:
        source: Manifest, folder, video, or shards to be dealt out anew.
        out: Folder or URL of the shards and their index, shards.json.
        name: Of the set; its shards are name-000000.tar and on.
        max_bytes: Size of a shard; a single larger video has a shard of its own.
        clips_per_shard: Clips in a shard, if they are to be limited too.
        root: Folder that relative paths in the manifest start from.
        decoder: "auto", a backend's name, or the class path of a decoder of your own; each video's first frame is
            decoded, and one that cannot be is left out and listed.
        num_processes: Shards written at a time; 0 writes one after the other, or with ray, as many as it has cores.
        engine: "local", processes of this machine, or "ray", a cluster whose nodes all reach source and out.
        seed: Of the mixing.
    """
    limit = 1 if clips_per_shard is None else clips_per_shard
    if min(max_bytes, limit) < 1 or not name or "/" in name:
        raise UsageError(
            f"--max_bytes {max_bytes}, --clips_per_shard {clips_per_shard}, --name {name!r}: the numbers must be at "
            "least 1, the name a file name."
        )
    if out.startswith(("http:", "https:")):
        raise UsageError(
            f"--out {out}: nothing can be written over http. Give a folder, s3://... or gs://..."
        )
    decoder_class(decoder)
    out = out.rstrip("/")
    if (
        not is_url(out)
        and Path(source).is_dir()
        and Path(out).resolve().is_relative_to(Path(source).resolve())
    ):
        raise UsageError(
            f"--out {out} is in {source}, which would be taken for shards. Give a folder elsewhere."
        )
    plans = plan_shards(
        read_manifest(source, root=root),
        out=out,
        name=name,
        max_bytes=max_bytes,
        clips_per_shard=clips_per_shard,
        decoder=decoder,
        seed=seed,
    )
    shards = _finished(out, plans) or _write(out, plans, engine=engine, num_processes=num_processes)
    return _report(out, shards)


def _finished(out: str, plans: list[ShardPlan]) -> list[Shard] | None:
    """The shards of a whole set that these plans made.

    Raises:
        UsageError: If the folder holds other shards.
    """
    names = _files_in(out)
    if INDEX in names:
        about, shards = read_index(f"{out}/{INDEX}")
        if about["plan"] == plan_hash(plans):
            return shards
    begun = {plan.name for plan in plans if f"{plan.name}.json" in names and written(plan) is not None}
    others = {file for file in names if file.endswith(".tar")} - begun
    if INDEX in names or others:
        raise UsageError(
            f"--out {out} holds other shards ({', '.join(sorted(others)[:3]) or INDEX}). Give a new folder, or delete "
            "them."
        )
    return None


def _write(out: str, plans: list[ShardPlan], *, engine: Engine, num_processes: int) -> list[Shard]:
    """Write what is not there yet, and the index.

    Raises:
        UsageError: If a shard cannot be written.
    """
    written_as: dict[int, Shard] = {}
    for result in run_jobs(write_shard, plans, engine=engine, num_processes=num_processes):
        if result.value is None:
            raise UsageError(
                f"{plans[result.index].name}: {result.error}. Mend that and give the command again: it goes on here."
            )
        written_as[result.index] = result.value
        log.info(
            "%s: %d clips, %d of %d shards", result.value.name, len(result.value), len(written_as), len(plans)
        )
    shards = [written_as[i] for i in range(len(plans))]
    names = plans[0].label_names
    write_index(out, shards=shards, label_names=names, plan=plan_hash(plans))
    for plan in plans:
        _delete(record_of(plan))
    return shards


def _files_in(out: str) -> set[str]:
    if not is_url(out):
        return {path.name for path in Path(out).glob("*")}
    fs, inside = filesystem(out)
    return {PurePosixPath(path).name for path in fs.glob(f"{inside}/*")}


def _delete(path: str) -> None:
    if not is_url(path):
        Path(path).unlink()
    else:
        fs, inside = filesystem(path)
        fs.rm_file(inside)


def _report(out: str, shards: list[Shard]) -> Report:
    left_out = [entry for shard in shards for entry in shard.left_out]
    figures = {
        "index": f"{out}/{INDEX}",
        "num_shards": len(shards),
        "num_clips": sum(map(len, shards)),
        "num_bytes": sum(shard.num_bytes for shard in shards),
        "left_out": left_out,
    }
    title = (
        f"{figures['num_clips']} clips in {len(shards)} shards, {len(left_out)} files left out as unreadable"
    )
    return Report(title=title, rows=[dict(entry) for entry in left_out], figures=figures)
