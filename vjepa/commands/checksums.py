"""Comparison of files with the checksums that were written with them: networks, probes, features, shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vjepa.checkpoints.opening import damage, has_checksum
from vjepa.checkpoints.strict import CheckpointError
from vjepa.data.manifests.shard_index import SHARD_INDEX, read_shard_index
from vjepa.features.reader import ABOUT
from vjepa.features.reader import open as open_features
from vjepa.features.search import SEARCH
from vjepa.files import CHECKSUM, file_crc32

TENSORS = (".safetensors", ".ckpt", ".pt", ".pth", ".tar")


@dataclass(frozen=True)
class Checked:
    """A file, whether a checksum of it was written, and what is wrong with it (None: nothing)."""

    file: Path
    is_checked: bool
    damage: str | None = None

    @property
    def verdict(self) -> str:
        """The result in a word."""
        if self.damage is not None:
            return "damaged"
        return "right" if self.is_checked else "none written"


def verified(path: Path) -> list[Checked]:
    """Read each file of a checkpoint, or of a folder of networks, features or shards, and compare its checksum.

    Raises:
        CheckpointError: If there is no such file, or the folder holds none.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder. Correct the name.")
    folder = path.parent if path.name in (ABOUT, SHARD_INDEX) else path
    if folder.is_file():
        return [_checked(folder)]
    found = [*_of_features(folder), *_of_shards(folder)]
    if not found:
        files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix in TENSORS)
        found = [_checked(file) for file in files]
    if not found:
        raise CheckpointError(
            f"{path} holds no networks, features or shards. Give a folder or a file of them."
        )
    return found


def _checked(file: Path) -> Checked:
    try:
        is_checked = has_checksum(file)
    except CheckpointError as error:
        return Checked(file, True, str(error))
    return Checked(file, is_checked, damage(file) if is_checked else None)


def _of_features(folder: Path) -> Iterator[Checked]:
    if (folder / ABOUT).is_file():
        for name, recorded in open_features(folder).about.get(CHECKSUM, {}).items():
            yield _compared(folder / name, recorded)
        if (folder / SEARCH).is_file():
            yield _checked(folder / SEARCH)


def _of_shards(folder: Path) -> Iterator[Checked]:
    if (folder / SHARD_INDEX).is_file():
        for shard in read_shard_index(str(folder / SHARD_INDEX))[1]:
            yield _compared(folder / shard.name, shard.crc32)


def _compared(file: Path, recorded: str | None) -> Checked:
    if not file.is_file():
        return Checked(file, True, "it is missing")
    if recorded is None:
        return Checked(file, False)
    with file.open("rb") as opened:
        wrong = file_crc32(opened) != recorded
    return Checked(file, True, "its checksum is wrong" if wrong else None)
