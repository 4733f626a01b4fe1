"""The verb `vjepa data shard`: plans a set, writes its shards one by one or in parallel, and writes its index."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from vjepa.commands.report import Report
from vjepa.data.decoders.base import decoder_class
from vjepa.data.jobs.engine import Engine, run_jobs
from vjepa.data.manifests.identity import is_same_content
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.shard_index import SHARD_INDEX, Shard, read_shard_index
from vjepa.data.remote import filesystem, is_url
from vjepa.data.shards.writer import (
    ShardPlan,
    plan_hash,
    plan_shards,
    record_of,
    write_shard,
    write_shard_index,
    written_shard,
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
    thorough: bool = False,
) -> Report:
    """Write the videos of a manifest as WebDataset tar shards, with unchanged bytes, in an order shuffled by a seed.

    If it was stopped, the same command continues where it stopped.

    Args:
        source: Manifest, folder, video, or shards to distribute again.
        out: Folder or URL of the shards and their index, shards.json.
        name: Name of the set; its shards are name-000000.tar and so on.
        max_bytes: Largest size of a shard; a single larger video gets its own shard.
        clips_per_shard: Largest number of clips in a shard (default: no limit).
        root: Folder that relative paths in the manifest start from.
        decoder: "auto", a backend's name, or the class path of your own decoder. It decodes the first frame of each
            video; a video for which this fails is omitted and listed.
        num_processes: Number of shards written in parallel; 0 writes one after the other, or with ray, as many as it
            has cores.
        engine: "local", processes of this machine, or "ray", a cluster whose nodes all reach source and out.
        seed: Seed of the shuffle.
        thorough: Recognise replaced videos by their content, which is read, beside size and time of change.
    """
    out = out.rstrip("/")
    _check_flags(source, out, name, max_bytes, clips_per_shard)
    decoder_class(decoder)
    plans = plan_shards(
        read_manifest(source, root=root),
        out=out,
        name=name,
        max_bytes=max_bytes,
        clips_per_shard=clips_per_shard,
        decoder=decoder,
        seed=seed,
        thorough=thorough,
    )
    shards = _finished(out, plans) or _write(out, plans, engine=engine, num_processes=num_processes)
    return _report(out, shards)


def _check_flags(source: str, out: str, name: str, max_bytes: int, clips_per_shard: int | None) -> None:
    limit = 1 if clips_per_shard is None else clips_per_shard
    if min(max_bytes, limit) < 1 or not name or "/" in name:
        raise UsageError(
            f"--max_bytes {max_bytes}, --clips_per_shard {clips_per_shard}, --name {name!r}: the numbers must be at "
            "least 1, the name a file name."
        )
    if out.startswith(("http:", "https:")):
        raise UsageError(
            f"--out {out}: shards cannot be written over http. Give a folder, s3://... or gs://..."
        )
    folder = Path(source)
    if not is_url(out) and folder.is_dir() and Path(out).resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"--out {out} is in {source}, which would be mistaken for shards. Give a folder elsewhere."
        )


def _finished(out: str, plans: list[ShardPlan]) -> list[Shard] | None:
    """Return the shards of a complete set that these plans made.

    Raises:
        UsageError: If the folder holds other shards.
    """
    names = _files_in(out)
    if SHARD_INDEX in names:
        about, shards = read_shard_index(f"{out}/{SHARD_INDEX}")
        states = about.get("content", [{}] * len(plans))  # older sets have none
        if about["plan"] == plan_hash(plans):
            changed = [
                plan.name
                for plan, state in zip(plans, states, strict=True)
                if not is_same_content(state, plan.content())
            ]
            if not changed:
                return shards
            raise UsageError(
                f"--out {out}: videos of {len(changed)} shards, such as {changed[0]}, were replaced or changed "
                "since. Give a new folder, or delete the shards."
            )
    begun = {plan.name for plan in plans if f"{plan.name}.json" in names and written_shard(plan) is not None}
    others = {file for file in names if file.endswith(".tar")} - begun
    if SHARD_INDEX in names or others:
        raise UsageError(
            f"--out {out} holds other shards ({', '.join(sorted(others)[:3]) or SHARD_INDEX}), or their videos changed "
            "since. Give a new folder, or delete them."
        )
    return None


def _write(out: str, plans: list[ShardPlan], *, engine: Engine, num_processes: int) -> list[Shard]:
    """Write the missing shards, and the index.

    Raises:
        UsageError: If a shard cannot be written.
    """
    written: dict[int, Shard] = {}
    for result in run_jobs(write_shard, plans, engine=engine, num_processes=num_processes):
        if result.value is None:
            raise UsageError(
                f"{plans[result.index].name}: {result.error}. Correct that and give the same command: it continues "
                "here."
            )
        written[result.index] = result.value
        log.info(
            "%s: %d clips, %d of %d shards", result.value.name, len(result.value), len(written), len(plans)
        )
    shards = [written[i] for i in range(len(plans))]
    write_shard_index(out, shards=shards, plans=plans)
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
        "index": f"{out}/{SHARD_INDEX}",
        "num_shards": len(shards),
        "num_clips": sum(map(len, shards)),
        "num_bytes": sum(shard.num_bytes for shard in shards),
        "left_out": left_out,
    }
    title = f"{figures['num_clips']} clips in {len(shards)} shards, {len(left_out)} unreadable files omitted"
    return Report(title=title, rows=[dict(entry) for entry in left_out], figures=figures)
