"""Tokens of clips on disk: computed once for all sweeps, by any number of processes, and not lost to a kill."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16
from torch import Tensor, nn

from vjepa import __version__
from vjepa.data.manifests.rows import Manifest
from vjepa.files import write_text
from vjepa.probes.base import ProbeError
from vjepa.probes.files import digest
from vjepa.types import ClipFailure

log = logging.getLogger(__name__)

TOKENS, ABOUT, JOURNAL = "tokens.fp16", "about.json", "journal-*.jsonl"
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 600.0  # without a new batch from any other process


@dataclass(frozen=True)
class Shard:
    """Which of `world_size` processes this is: it computes each `world_size`-th clip, from `rank` on."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ProbeError(
                f"rank {self.rank} of {self.world_size}: ranks go from 0 to {self.world_size - 1}."
            )


def cache_folder(
    cache: Path, encoder: nn.Module, manifest: Manifest, preprocessing: Mapping[str, Any]
) -> Path:
    """The folder in `cache` for these tokens, named by a hash of all they depend on; about.json in it says what.

    Labels are not among it: the tokens serve any column. A local file counts with its size and time of change.

    Args:
        cache: Folder of all cached tokens.
        encoder: The frozen encoder; its weights count.
        manifest: The clips' videos, in order.
        preprocessing: How clips are cut from them, and the arithmetic.
    """
    rows = hashlib.blake2b(digest_size=16)
    for row in manifest.rows:
        rows.update(json.dumps([row.path, row.start, row.end, *_state(row.path)]).encode())
    about = {
        "encoder": digest(encoder),
        "config": getattr(encoder, "config", {}),
        "preprocessing": dict(preprocessing),
        "num_rows": len(manifest.rows),
        "rows": rows.hexdigest(),
        "vjepa": __version__,
    }
    text = json.dumps(about, indent=2, sort_keys=True, default=str)
    folder = cache / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(text, folder / ABOUT)
    return folder


def _state(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:  # a URL, or missing
        return 0, 0
    return found.st_size, found.st_mtime_ns


@dataclass
class _Journal:
    """What the journals say: clips that are done, shape of one's tokens, checksums and failures by position."""

    done: set[int] = field(default_factory=set)
    shape: tuple[int, ...] | None = None
    sums: dict[int, set[int]] = field(default_factory=dict)
    failures: dict[int, ClipFailure] = field(default_factory=dict)


@dataclass
class TokenFile:
    """The tokens of `num_clips` clips in a folder of `cache_folder`, each at its own place in one file.

    A journal line follows the tokens it speaks of, so that a process killed at any moment loses one batch. Each
    process writes a journal of its own.

    Args:
        folder: Where the file is.
        num_clips: How many clips there are.
        shard: Which of them this process computes.
    """

    folder: Path
    num_clips: int
    shard: Shard = field(default=Shard())

    def __post_init__(self) -> None:
        self._journal = self.folder / JOURNAL.replace("*", uuid.uuid4().hex)

    def missing(self) -> list[int]:
        """Positions of this process's clips that are not there yet, or not as they were written, ascending."""
        found = self._read()
        mine = range(self.shard.rank, self.num_clips, self.shard.world_size)
        damaged = self._damaged({i: found.sums[i] for i in mine if i in found.sums}, found.shape)
        if damaged:
            log.warning("%s: %d clips are damaged and computed again", self.folder / TOKENS, len(damaged))
        return [i for i in mine if i not in found.done or i in damaged]

    def add(
        self,
        positions: Sequence[int],
        tokens: Float16[Tensor, "good n d"],
        failures: Mapping[int, ClipFailure],
    ) -> None:
        """Keep a batch.

        Args:
            positions: Of its clips.
            tokens: Of those that are not among the failures, in order.
            failures: The others, by position.
        """
        good = [position for position in positions if position not in failures]
        size = tokens.shape[1:].numel() * tokens.itemsize
        sums: dict[int, int] = {}
        if good:
            path = self.folder / TOKENS
            path.touch()
            with path.open("r+b") as file:
                if os.fstat(file.fileno()).st_size < size * self.num_clips:
                    file.truncate(size * self.num_clips)  # sparse; the same from every process
                for position, clip in zip(good, tokens.contiguous().numpy(), strict=True):
                    file.seek(position * size)
                    file.write(clip.tobytes())
                    sums[position] = zlib.crc32(clip.tobytes())
        failed = {str(p): [failure.path, failure.reason] for p, failure in failures.items()}
        shape = list(tokens.shape[1:]) if good else None
        line = json.dumps({"done": list(positions), "shape": shape, "failed": failed, "crc32": sums})
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(line + "\n")

    def wait(self) -> None:
        """Until the other processes have computed their clips.

        Raises:
            ProbeError: If none of them adds any for ten minutes.
        """
        count, since = -1, time.monotonic()
        while (found := len(self._read().done)) < self.num_clips:
            if found != count:
                count, since = found, time.monotonic()
                log.info("waiting for other processes: %d of %d clips are there", found, self.num_clips)
            if time.monotonic() - since > PATIENCE_SECONDS:
                raise ProbeError(
                    f"{self.num_clips - found} of {self.num_clips} clips are missing in {self.folder}, and no process "
                    "adds any. Start those that stopped again, or one alone, with --world_size 1."
                )
            time.sleep(POLL_SECONDS)

    def tokens(self) -> Float16[Tensor, "clips n d"] | None:
        """All tokens, mapped to memory; those of failures are zero. None where no clip could be read."""
        shape = self._read().shape
        return None if shape is None else torch.from_numpy(self._mapped(shape))

    def failures(self) -> dict[int, ClipFailure]:
        """Clips that could not be read, by position, ascending."""
        return dict(sorted(self._read().failures.items()))

    def _mapped(self, shape: tuple[int, ...]) -> Float16[np.ndarray, "clips n d"]:
        whole = (self.num_clips, *shape)
        return np.memmap(self.folder / TOKENS, dtype=np.float16, mode="c", shape=whole)  # never written back

    def _damaged(self, sums: Mapping[int, set[int]], shape: tuple[int, ...] | None) -> set[int]:
        if not sums or shape is None:
            return set()
        path, size = self.folder / TOKENS, 2 * self.num_clips * math.prod(shape)
        if not path.exists() or path.stat().st_size != size:
            return set(sums)
        tokens = self._mapped(shape)
        return {i for i, right in sums.items() if zlib.crc32(tokens[i]) not in right}

    def _read(self) -> _Journal:
        found = _Journal()
        for path in sorted(self.folder.glob(JOURNAL)):
            whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")  # the last line may be cut off
            for line in map(json.loads, whole.splitlines()):
                found.done.update(line["done"])
                found.shape = tuple(line["shape"]) if line["shape"] else found.shape
                found.failures |= {int(p): ClipFailure(*failure) for p, failure in line["failed"].items()}
                for position, value in line.get("crc32", {}).items():
                    found.sums.setdefault(int(position), set()).add(value)
        return found
