"""Opening of videos in any place: files, URLs, members of tar shards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vjepa.data.decoders.base import Decoder, Opener
from vjepa.data.decoders.contract import CheckedDecoder
from vjepa.data.remote import Fetch, fetch_video, is_url, member_of, suffix_of
from vjepa.errors import DecodeError

TEMPORARY_PREFIX = "vjepa-"


@contextmanager
def open_video(decoder: Opener, path: str | Path, *, fetch: Fetch = fetch_video) -> Iterator[Decoder]:
    """Open a row's video: a file, or a URL or member of a shard, whose bytes `fetch` returns.

    A URL or member is copied to a temporary file while open, because every decoder reads files, also one in
    another process.

    Raises:
        DecodeError: With `path` and the reason.
    """
    if not is_url(path) and member_of(path) is None:
        with decoder.open(path) as video:
            yield CheckedDecoder(path, video)
        return
    path = str(path)
    with _temporary_file(fetch(path), suffix_of(path)) as file:
        try:
            with decoder.open(file) as video:
                yield CheckedDecoder(path, video)
        except DecodeError as e:
            raise DecodeError(path, e.reason) from e


@contextmanager
def _temporary_file(content: bytes, suffix: str) -> Iterator[Path]:
    # on Linux such a file does not reach the disk, because it is deleted before the kernel writes it
    with tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX, suffix=suffix, delete=False) as file:
        file.write(content)
    try:
        yield Path(file.name)
    finally:
        os.unlink(file.name)
