"""A file with the packet indices of many videos, so that opening a video reads none of its packets."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from vjepa.data.decoders.packets import PacketIndex, index_packets
from vjepa.data.decoders.stream import open_video_file
from vjepa.errors import DecodeError, UsageError
from vjepa.files import from_home

VERSION = 2  # 1 counted packets that give no frame, and knew no files that are read from their start
LOCK_SECONDS = 30.0  # longest wait for another process that writes
# limits of what a foreign file can make SQLite and zlib do
MAX_QUERY_STEPS, MAX_CELL_BYTES, MAX_TIMES_BYTES = 100_000, 64_000_000, 8 * 2**24
SCHEMA = f"""
CREATE TABLE vjepa_packets (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, earliest INTEGER NOT NULL,
    reorder INTEGER NOT NULL, pts BLOB NOT NULL, keyframes BLOB NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""


class IndexedFile(NamedTuple):
    """The packets of one file, with its size and time of change: for another state the index is not valid."""

    path: str
    size: int
    mtime_ns: int
    packets: PacketIndex


def index_file(path: str) -> IndexedFile | None:
    """Read the packets of one file; return `None` if its packets must be read each time it is opened.

    That is so if a packet's time may differ from its frame's, or if a newly opened file does not find its keyframes.
    A file that is read from its start has an index, so that it is not decoded to count its frames. A truncated
    recording, for example, has no index of its keyframes.

    Raises:
        DecodeError: If the file is broken.
    """
    try:
        state = os.stat(path)
    except OSError as e:
        raise DecodeError(path, f"cannot be opened ({e.strerror})") from e
    video = open_video_file(path)
    with video.container:
        index = index_packets(path, video)
    if not index.in_order and not (index.exact and _finds_keyframes(path, index)):
        return None
    return IndexedFile(path, state.st_size, state.st_mtime_ns, index)


def _finds_keyframes(path: str, index: PacketIndex) -> bool:
    """Return whether seeks in a newly opened container end at the requested keyframe."""
    for pts in {int(index.keyframes[len(index.keyframes) // 2]), int(index.keyframes[-1])}:
        video = open_video_file(path)
        with video.container:
            video.container.seek(pts, stream=video.stream)
            if next(video.container.demux(video.stream)).pts != pts:
                return False
    return True


class PacketStore:
    """An SQLite file of packet indices by path.

    Paths are kept relative to the folder of the store, so that videos and store can be moved together.

    Raises:
        UsageError: If there is no such file, or it is not a packet index.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = from_home(path).resolve()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        if not self.path.is_file():
            raise UsageError(f"{path}: no such packet index. Write it with `vjepa data index`.")
        self._query("SELECT path FROM vjepa_packets LIMIT 1", ())

    @classmethod
    def create(cls, path: str | Path) -> PacketStore:
        """Return the store at `path`; create an empty one if the file does not exist.

        Raises:
            UsageError: If `path` is a folder, or a file of another kind.
        """
        if Path(path).is_dir():
            raise UsageError(
                f"{path} is a folder. Give a file, new or old, such as {Path(path) / 'clips.index'}."
            )
        if not Path(path).exists():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path)) as connection:
                connection.executescript(SCHEMA)
        return cls(path)

    def find(self, path: str | Path) -> PacketIndex | None:
        """Return the index of the file, if there is one of its present state; raise if the store is damaged."""
        rows = self._query(
            "SELECT size, mtime_ns, earliest, reorder, pts, keyframes FROM vjepa_packets WHERE path = ?",
            (self._key(path),),
        )
        if not rows:
            return None
        size, mtime_ns, earliest, reorder, pts, keyframes = rows[0]
        try:
            state = os.stat(path)
        except OSError:
            return None  # the decoder will report it
        if (state.st_size, state.st_mtime_ns) != (size, mtime_ns):
            return None
        times = self._unpacked(keyframes)
        return PacketIndex(self._unpacked(pts), times, earliest, reorder, exact=len(times) > 0)

    def add(self, files: Iterable[IndexedFile]) -> None:
        """Save these indices, all or none; raise `UsageError` if the store cannot be written."""
        rows = [
            (self._key(path), size, mtime_ns, packets.earliest, packets.reorder)
            + (_packed(packets.pts), _packed(packets.keyframes))
            for path, size, mtime_ns, packets in files
        ]
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_SECONDS)) as connection, connection:
                connection.executemany(
                    "INSERT OR REPLACE INTO vjepa_packets VALUES (?, ?, ?, ?, ?, ?, ?)", rows
                )
        except sqlite3.Error as e:
            raise UsageError(
                f"{self.path}: {e}; earlier entries are kept. Correct that and run the command again."
            ) from e

    def _query(self, query: str, arguments: tuple[bytes, ...]) -> list[Any]:
        if self._owner != os.getpid():  # a connection must not be used in another process
            self._connection, self._owner = None, os.getpid()
        try:
            if self._connection is None:
                address = f"{self.path.as_uri()}?mode=ro"
                self._connection = sqlite3.connect(address, uri=True, check_same_thread=False)
                self._connection.set_progress_handler(lambda: 1, MAX_QUERY_STEPS)
                self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
                ((version,),) = self._connection.execute("PRAGMA user_version").fetchall()
                if version != VERSION:
                    raise sqlite3.DatabaseError(f"version {version}, this vjepa reads {VERSION}")
            return self._connection.execute(query, arguments).fetchmany(1)
        except sqlite3.Error as e:
            raise UsageError(
                f"{self.path}: not a packet index ({e}). Delete it and write it again with `vjepa data index`."
            ) from e

    def _key(self, path: str | Path) -> bytes:
        return os.fsencode(os.path.relpath(os.path.realpath(path), self.path.parent))

    def _unpacked(self, packed: bytes) -> Int64[ndarray, "n"]:
        try:
            unpacker = zlib.decompressobj()
            times = unpacker.decompress(packed, MAX_TIMES_BYTES)
            if not unpacker.eof:
                raise ValueError(f"truncated, or more than {MAX_TIMES_BYTES // 8} frames")
            return np.cumsum(np.frombuffer(times, "<i8"), dtype=np.int64)
        except (zlib.error, ValueError, TypeError) as e:
            raise UsageError(
                f"{self.path}: damaged ({e}). Delete it and write it again with `vjepa data index`."
            ) from e

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_connection": None, "_owner": 0}


def _packed(times: Int64[ndarray, "n"]) -> bytes:
    """Compress the differences of successive times, which are mostly equal."""
    return zlib.compress(np.diff(times, prepend=0).astype("<i8").tobytes(), 1)
