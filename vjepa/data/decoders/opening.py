"""Videos opened wherever they lie: files, URLs, members of tar shards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vjepa.data.decoders.base import Decoder, Opener
from vjepa.data.remote import Fetch, fetch_video, is_url, member_of, suffix_of
from vjepa.errors import DecodeError


@contextmanager
def open_video(decoder: Opener, path: str | Path, *, fetch: Fetch = fetch_video) -> Iterator[Decoder]:
    """Open a row's video; what is no file of this machine lies in a temporary file while it is open.

    A file, because every decoder reads one, also those of users and those that run in a process of their own.

    Args:
        decoder: The backend, or the process it works in.
        path: A file, a URL, or a member of a shard.
        fetch: Where the bytes of the last two come from.

    Raises:
        DecodeError: Naming `path`.
    """
    if not is_url(path) and member_of(path) is None:
        with decoder.open(path) as video:
            yield video
        return
    path = str(path)
    with _temporary_file(fetch(path), suffix_of(path)) as file:
        try:
            with decoder.open(file) as video:
                yield video
        except DecodeError as e:
            raise DecodeError(path, e.reason) from e


@contextmanager
def _temporary_file(content: bytes, suffix: str) -> Iterator[Path]:
    # in the folder for temporary files: on Linux it never reaches the disk, as it is deleted before it is due
    with tempfile.NamedTemporaryFile(prefix="vjepa-", suffix=suffix, delete=False) as file:
        file.write(content)
    try:
        yield Path(file.name)
    finally:
        os.unlink(file.name)
