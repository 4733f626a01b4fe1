"""Identities of a manifest's rows, the same wherever its folder lies; the order of clips and shards depends on them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath

import numpy as np
from jaxtyping import Bool, UInt64
from numpy import ndarray

from vjepa.data.manifests.rows import Manifest, Rows, Texts
from vjepa.data.remote import fetch, fetch_video, is_url, member_of
from vjepa.files import digest


def row_identities(manifest: Manifest) -> UInt64[ndarray, "n"]:
    """Return 64 bits per row, from its path below the manifest's folder, its start, and which copy it is."""
    rows = manifest.rows if isinstance(manifest.rows, Rows) else Rows.of(manifest.rows)
    names = _names(rows, manifest.base)
    starts = [None if start != start else start for start in rows.start.tolist()]
    hashes = (hash_64(b"%b\n%a\n0" % named) for named in zip(names, starts, strict=True))
    identities = np.fromiter(hashes, np.uint64, len(rows))
    ordered = np.sort(identities)
    several = np.isin(identities, ordered[1:][ordered[1:] == ordered[:-1]])
    copies: Counter[bytes] = Counter()
    for i in np.flatnonzero(several).tolist():
        key = b"%b\n%a\n" % (names[i], starts[i])
        identities[i] = hash_64(key + b"%d" % copies[key])
        copies[key] += 1
    return identities


def hash_64(key: bytes) -> int:
    """Return a hash of 64 bits that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def _names(rows: Rows, base: str) -> list[bytes]:
    """Return each row's path below `base`, in POSIX form; most paths are already written so and need no work."""
    names = list(rows.path.encoded())
    plain = _plainly_written(rows.path) if rows.base == base else np.zeros(len(rows), bool)
    for i in np.flatnonzero(~plain).tolist():
        names[i] = name_in(rows.path_of(i), base).encode("utf-8", "surrogateescape")
    return names


def name_in(path: str, base: str) -> str:
    """Return a path relative to the manifest's folder; a member of a shard keeps the name of its original file."""
    if (member := member_of(path)) is not None:
        return member.name
    if is_url(path):
        return path.removeprefix(f"{base}/") if base else path
    below = base and PurePath(path).is_relative_to(base)
    return (PurePath(path).relative_to(base) if below else PurePath(path)).as_posix()


def _plainly_written(paths: Texts) -> Bool[ndarray, "n"]:
    """Return, per path, whether it is relative and no part of it begins with a dot or is empty."""
    block = np.frombuffer(paths.block, np.uint8)
    lengths = np.diff(paths.ends, prepend=0)
    begins = np.zeros(len(block), bool)
    begins[1:] = block[:-1] == ord("/")
    begins[(paths.ends - lengths)[lengths > 0]] = True
    ends = np.zeros(len(block), bool)
    ends[paths.ends[lengths > 0] - 1] = True
    odd = (begins & _one_of(b"/.~")[block]) | (ends & (block == ord("/"))) | _one_of(b"\\:")[block]
    plain = lengths > 0
    plain[np.searchsorted(paths.ends, np.flatnonzero(odd), side="right")] = False
    return plain


def _one_of(characters: bytes) -> Bool[ndarray, "256"]:
    """Return, per byte value, whether it is one of `characters`."""
    found = np.zeros(256, bool)
    found[list(characters)] = True
    return found


def state_of(path: str) -> tuple[int, int]:
    """Return the size and the time of change, in nanoseconds, of a row's video; (0, 0) of a URL or a missing file.

    Of a folder of frames it is the sum of the sizes and the time of the last change; of a member of a shard, those of
    the shard.
    """
    member = member_of(path)
    try:
        found = [os.stat(path if member is None else member.shard)]
        if stat.S_ISDIR(found[0].st_mode):
            with os.scandir(path) as entries:
                found += [entry.stat() for entry in entries]
    except OSError:
        return 0, 0
    return sum(file.st_size for file in found), max(file.st_mtime_ns for file in found)


def content_state(paths: Iterable[str], *, thorough: bool) -> dict[str, str]:
    """Return digests by which replaced videos are recognised, see `is_same_content`.

    "files" is of their sizes and times of change; with `thorough`, "content" is of all their bytes, which are read.

    Raises:
        DecodeError: If a file cannot be read.
    """
    unique = list(dict.fromkeys(paths))
    state = {"files": digest(*(repr(state_of(path)).encode() for path in unique))}
    if thorough:
        state["content"] = digest(*(digest(*_contents(path)).encode() for path in unique))
    return state


def is_same_content(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Return whether two values of `content_state` are of the same videos, by the surest digest that both have.

    What was made before results held the state of their videos has none, and counts as the same.
    """
    known = [name for name in ("content", "files") if name in before and name in now]
    return not known or before[known[0]] == now[known[0]]


def _contents(path: str) -> Iterator[bytes]:
    if member_of(path) is None and os.path.isdir(path):
        yield from (fetch(os.path.join(path, name)) for name in sorted(os.listdir(path)))
    else:
        yield fetch_video(path)


def mixed(x: UInt64[ndarray, "n"]) -> UInt64[ndarray, "n"]:
    """Apply the finaliser of SplitMix64 (Steele et al. 2014): a bijection that mixes every bit into every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
