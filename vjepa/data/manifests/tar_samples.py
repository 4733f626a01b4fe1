"""The samples of one tar: the place of each video, and its labels."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from vjepa.data.manifests.rows import ManifestError
from vjepa.data.manifests.shard_index import CLIP_COLUMNS, DEFAULTS, Shard, columns_of
from vjepa.data.remote import filesystem, is_url
from vjepa.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa.readers import content_of, parse_json

log = logging.getLogger(__name__)

MAX_LABEL_BYTES = 16_000_000  # of a `.json` or `.cls` in a tar


def scan(tar: str) -> Shard:
    """Read the headers of a tar, and its labels: `.cls`, or "label" in `.json`.

    The files of a sample share their name up to its first dot, as in WebDataset. If that would combine several videos,
    names are shared up to the last dot, with a warning.

    Raises:
        ManifestError: If the file is not a tar or holds no video, or a label file belongs to several videos.
    """
    members: list[_File] = []
    try:
        with _opened(tar) as file, tarfile.open(fileobj=file, mode="r:") as opened:
            members = [_read(tar, opened, member) for member in opened if member.isfile()]
            num_bytes = opened.offset
    except (tarfile.TarError, EOFError, ValueError) as e:
        raise ManifestError(tar, 0, f"not a tar, or truncated ({e}). Copy it again") from e
    samples = _samples(tar, members)
    rows: list[dict[str, Any]] = []
    for key, sample in samples.items():
        with content_of(f"{tar}:{key}.json", "the labels of a clip"):
            rows += _rows(sample, f"{tar}:{key}.json")
    if not rows:
        reason = f"no video in {len(samples)} samples ({' '.join(sorted(VIDEO_SUFFIXES))}). Give other shards"
        raise ManifestError(tar, 0, reason)
    return Shard(PurePosixPath(tar).name, num_bytes, columns_of(rows))


class _File(NamedTuple):
    """A file of a tar: its name, the place of its bytes, and they themselves if they may be a label."""

    name: str
    offset: int
    size: int
    content: bytes


def _read(tar: str, opened: tarfile.TarFile, member: tarfile.TarInfo) -> _File:
    if member.issparse():
        raise ManifestError(tar, 0, f"{member.name} is sparse. Write the tar without --sparse")
    content = b""
    if member.name.lower().endswith((".json", ".cls")):
        if member.size > MAX_LABEL_BYTES:
            raise ManifestError(
                tar,
                0,
                f"{member.name} has {member.size} bytes, a label has at most {MAX_LABEL_BYTES}. Omit it",
            )
        extracted = opened.extractfile(member)
        assert extracted is not None  # a file has one
        content = extracted.read()
    return _File(member.name, member.offset_data, member.size, content)


def _samples(tar: str, files: Sequence[_File]) -> dict[str, dict[str, Any]]:
    """Return the samples by key: the name up to its first dot or, if videos would share a key, up to its last dot."""
    samples, shared = _by_key(files, at_last_dot=False)
    if not shared:
        return samples
    log.warning(
        "%s: %s share a key, the name up to the first dot; its keys end at the last dot instead",
        tar,
        " and ".join(shared),
    )
    samples, _ = _by_key(files, at_last_dot=True)
    begins = {key[:i] for key, s in samples.items() if "offset" in s for i, c in enumerate(key) if c == "."}
    for key, sample in samples.items():
        if key in begins and sample and "offset" not in sample:
            ending = next(iter(sample))
            raise ManifestError(
                tar,
                0,
                f"{' and '.join(shared)} share the label file {key.strip('/')}.{ending}, so their labels are unknown. "
                f"Write one video per key, or a label file per video, such as {shared[0].rpartition('.')[0]}.{ending}",
            )
    return samples


def _by_key(
    files: Sequence[_File], *, at_last_dot: bool
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Return the samples by key, and the names of the first two videos, or images of one format, that share one."""
    samples: dict[str, dict[str, Any]] = {}
    shared: tuple[str, ...] = ()
    for file in files:
        folder, _, name = file.name.rpartition("/")
        key, ending = name.rpartition(".")[::2] if at_last_dot else name.partition(".")[::2]
        sample = samples.setdefault(f"{folder}/{key}", {})
        suffix, before = (
            PurePosixPath(name).suffix.lower(),
            PurePosixPath(sample.get("path", "")).suffix.lower(),
        )
        if (suffix in VIDEO_SUFFIXES and before in VIDEO_SUFFIXES) or (
            suffix in IMAGE_SUFFIXES and before == suffix
        ):
            shared = shared or (sample["path"], file.name)
        elif suffix in VIDEO_SUFFIXES or (suffix in IMAGE_SUFFIXES and not before):
            sample |= {"path": file.name, "offset": file.offset, "size": file.size}
        elif ending.lower() in ("json", "cls"):
            sample[ending.lower()] = file.content
    return samples, shared


def _opened(tar: str) -> AbstractContextManager[Any]:
    if not is_url(tar):
        return open(tar, "rb")
    fs, inside = filesystem(tar)
    return fs.open(inside, "rb", block_size=1 << 20)  # the size of a read: videos are skipped, not read


def _rows(sample: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one sample: one, or as many as `vjepa data shard` wrote into its `.json`."""
    if "offset" not in sample:
        return
    about = parse_json(sample.get("json", b"{}"), name)
    about = about if isinstance(about, dict) else {}
    place = {"path": sample["path"], "offset": sample["offset"], "size": sample["size"]}
    if isinstance(about.get("path"), str):
        place["path"] = about["path"]
    for fields in (about, *about.get("more", ())):
        label = fields.get("label_name", fields.get("label", sample.get("cls", b"").decode().strip()))
        row = {column: fields.get(column, getattr(DEFAULTS, column)) for column in CLIP_COLUMNS[1:]}
        yield place | row | {"label": str(label) if isinstance(label, (str, int)) else ""}
