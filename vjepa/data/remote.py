"""Videos behind a URL or in a tar shard, fetched with a limited number of tries."""

from __future__ import annotations

import logging
import re
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote_to_bytes
from urllib.request import Request, urlopen

from vjepa.errors import DecodeError, MissingPackageError, SettingError
from vjepa.names import USER, redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

TRIES = 3
WAIT_SECONDS = 0.2  # before the second try; doubled before each further one
TIMEOUT_SECONDS = 60.0  # to wait for the next bytes of an answer
# a body has this time, and more while it arrives at a usable rate
BODY_SECONDS, BYTES_PER_SECOND = 60.0, 20_000
MAX_BYTES = 4_000_000_000  # of one file, which is kept in memory
CHUNK_BYTES = 1 << 20
# at least two letters: one letter is a drive of Windows. `simplecache::s3://...` is a chain of fsspec
URL = re.compile(r"[A-Za-z][\w+.-]+(::[A-Za-z][\w+.-]*)*://.+", re.DOTALL)
MEMBER = re.compile(r"(?P<shard>.+?\.tar)#(?P<offset>\d+):(?P<size>\d+):(?P<name>.+)", re.DOTALL)
# errors that fsspec's file systems raise beside OSError; by name, as their packages may not be installed
NETWORK_ERRORS = (
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
)

Fetch = Callable[[str], bytes]


class Member(NamedTuple):
    """One file inside a tar shard: `size` bytes from byte `offset`; `name` is the path of its original video."""

    shard: str
    offset: int
    size: int
    name: str

    @property
    def path(self) -> str:
        """The member as the path of a manifest row.

        >>> Member("clips-000003.tar", 1536, 20480, "train/wave.mp4").path
        'clips-000003.tar#1536:20480:train/wave.mp4'
        """
        return f"{self.shard}#{self.offset}:{self.size}:{self.name}"


def is_url(path: str | Path) -> bool:
    """Return whether `path` is a URL, which fsspec opens.

    >>> is_url("s3://bucket/clip.mp4"), is_url("clips/clip.mp4"), is_url("C://clip.mp4")
    (True, False, False)
    """
    return URL.fullmatch(str(path)) is not None


def member_of(path: str | Path) -> Member | None:
    """Parse a path that `Member.path` wrote; return `None` for any other path."""
    found = MEMBER.fullmatch(str(path))
    if found is None:
        return None
    return Member(found["shard"], int(found["offset"]), int(found["size"]), found["name"])


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        ImportError: If a package is missing; the message says how to install it.
        ValueError: If the protocol is not known.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as e:
        raise MissingPackageError(
            f'{url} is read with fsspec, which is not installed. Run `pip install "vjepa-toolkit[shards]"`.'
        ) from e
    try:
        fs, path = url_to_fs(url)
    except ImportError as e:
        raise MissingPackageError(
            f'{url}: {e}. `pip install "vjepa-toolkit[shards]"` adds http; s3fs reads s3, gcsfs reads gs.'
        ) from e
    except ValueError as e:
        raise SettingError(
            f"{url}: {e}. Use one that fsspec knows: s3, gs, http, https, memory, file."
        ) from e
    return fs, path


def fetch(path: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return bytes `start` to `end` of a file or URL, by default all.

    Raises:
        DecodeError: With what was tried and why it failed.
    """
    if not is_url(path):
        try:
            with open(path, "rb") as file:
                file.seek(start or 0)
                content = file.read(-1 if end is None else end - (start or 0))
        except OSError as e:
            raise DecodeError(path, f"cannot be opened ({e.strerror})") from e
    else:
        content = _fetch_url(path, start, end)
    if end is not None and len(content) != end - (start or 0):
        raise DecodeError(path, _wrong_length(len(content), start or 0, end))
    return content


def fetch_video(path: str) -> bytes:
    """Return all bytes of a row's video: a file, a URL, or a member of a shard."""
    member = member_of(path)
    if member is None:
        return fetch(path)
    return fetch(member.shard, member.offset, member.offset + member.size)


def _fetch_url(url: str, start: int | None, end: int | None) -> bytes:
    get = _get_http if url.startswith(("http://", "https://")) else _get
    for attempt in range(1, TRIES + 1):
        try:
            return get(url, start, end)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as e:
            raise DecodeError(url, f"cannot be fetched: {_cause(e)}") from e
        except (OSError, *_network_errors()) as e:  # type: ignore[misc]  # mypy does not see into the tuple
            if attempt == TRIES:
                raise DecodeError(url, f"cannot be fetched in {TRIES} tries: {_cause(e)}") from e
            log.info("%s: %s; try %d of %d follows", redacted(url), _cause(e), attempt + 1, TRIES)
            time.sleep(WAIT_SECONDS * 2 ** (attempt - 1))
    raise AssertionError("the last try returns or raises")


def _get(url: str, start: int | None, end: int | None) -> bytes:
    fs, path = filesystem(url)
    limit: dict[str, Any] = {"timeout": TIMEOUT_SECONDS} if fs.async_impl else {}
    return bytes(fs.cat_file(path, start=start, end=end, **limit))


def _get_http(url: str, start: int | None, end: int | None) -> bytes:
    """Read by http without fsspec: its event loop is not copied to forked workers, which would wait forever."""
    user = USER.search(url)  # `name:password@`, which urlopen would take for a part of the host
    request = Request(url if user is None else url[: user.start()] + url[user.end() :])
    if user is not None:
        login = b64encode(unquote_to_bytes(user[0][:-1])).decode()
        request.add_unredirected_header("Authorization", f"Basic {login}")  # for this host alone
    if not (start is None and end is None):
        request.add_header("Range", f"bytes={start or 0}-{'' if end is None else end - 1}")
    most = MAX_BYTES if end is None else end - (start or 0)
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return _body(url, answer, most, is_part=end is not None)
    except HTTPError as e:
        e.close()
        kind = {404: FileNotFoundError, 410: FileNotFoundError, 401: PermissionError, 403: PermissionError}
        raise kind.get(e.code, OSError)(f"{e.code} {e.reason}") from e
    except IncompleteRead as e:
        raise OSError(f"the connection ended after {len(e.partial)} bytes") from e
    except URLError as e:
        raise e.reason if isinstance(e.reason, OSError) else OSError(str(e.reason)) from e
    except HTTPException as e:
        raise OSError(f"not an answer of HTTP ({type(e).__name__})") from e


def _body(url: str, answer: HTTPResponse, most: int, *, is_part: bool) -> bytes:
    """Return the body of an answer, or the begin of one that is larger than the requested part.

    Raises:
        DecodeError: If the body is larger than a file may be, or arrives too slowly.
        OSError: If the connection ends before it.
    """
    given = answer.headers.get("Content-Length", "")
    promised = int(given) if given.isdecimal() and not answer.chunked else None
    if not is_part and promised is not None and promised > most:
        raise DecodeError(
            url, f"has {promised / 1e9:.1f} GB, {most / 1e9:g} are read. Copy it to this machine"
        )
    content, started = bytearray(), time.monotonic()
    while len(content) <= most and (promised is None or len(content) < promised):
        chunk = answer.read1(CHUNK_BYTES)
        if not chunk:
            break
        content += chunk
        if time.monotonic() - started > BODY_SECONDS + len(content) / BYTES_PER_SECOND:
            raise DecodeError(
                url,
                f"only {len(content)} bytes came in {time.monotonic() - started:.0f} s: the server is too slow",
            )
    if not is_part and len(content) > most:
        raise DecodeError(url, f"has more than {most / 1e9:g} GB, or no end. Copy it to this machine")
    if promised is not None and len(content) < min(promised, most):
        raise OSError(f"the connection ended after {len(content)} bytes")
    return bytes(content)


def _network_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the packages that are imported; the others cannot be raised."""
    loaded = [(sys.modules.get(module), name) for module, name in NETWORK_ERRORS]
    return tuple(getattr(module, name) for module, name in loaded if module is not None)


def _cause(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} seconds"
    return (str(error).strip().splitlines() or [""])[0] or type(error).__name__


def _wrong_length(got: int, start: int, end: int) -> str:
    if got > end - start:
        return (
            f"{end - start} bytes were requested and {got} received: the server does not answer ranged requests. "
            "Serve the shards from one that does, or copy them to this machine"
        )
    return f"truncated: of bytes {start} to {end} only {got} of {end - start} exist"


def suffix_of(path: str) -> str:
    """Return the file ending of a row's video in lower case; decoders depend on it.

    >>> suffix_of("https://host/a.MP4?version=2"), suffix_of("a.tar#0:9:b/c.webm")
    ('.mp4', '.webm')
    """
    member = member_of(path)
    name = member.name if member is not None else path.split("?")[0]
    return PurePosixPath(name).suffix.lower()
