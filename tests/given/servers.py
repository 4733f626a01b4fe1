"""A real HTTP server on the loopback, with or without ranged requests, that counts what it is asked for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """Where a folder is served, and each GET of it so far: path, first byte (-1: all), bytes sent."""

    url: str = ""
    gets: list[tuple[str, int, int]] = field(default_factory=list)
    failing: dict[str, int] = field(default_factory=dict)  # how many times more a path is answered with 503
    slow: dict[str, float] = field(default_factory=dict)  # seconds before a path is answered
    latency: float = 0.0  # seconds before any path is

    def num_bytes(self, suffix: str = "") -> int:
        return sum(size for path, _, size in self.gets if path.endswith(suffix))


class RangedHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, served: Served, ranged: bool, **kwargs):
        self.served, self.ranged = served, ranged
        super().__init__(*args, **kwargs)

    def log_message(self, *args):
        pass

    def do_GET(self):  # noqa: N802  the name http.server calls
        time.sleep(self.served.slow.get(self.path, self.served.latency))
        file = Path(self.translate_path(self.path))
        if self.served.failing.get(self.path, 0) > 0:
            self.served.failing[self.path] -= 1
            self.served.gets.append((self.path, -1, 0))
            return self.send_error(503)
        if not file.is_file():
            return self.send_error(404)
        content, first = file.read_bytes(), -1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.ranged:
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            total, content = len(content), content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{total}")
        else:
            self.send_response(200)
        if self.ranged:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.served.gets.append((self.path, first, len(content)))
        try:
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up, as it should where the answer is slow


@contextmanager
def serving(folder: Path, *, ranged: bool = True) -> Iterator[Served]:
    """Serve `folder` while the block runs."""
    served = Served()
    handler = partial(RangedHandler, served=served, ranged=ranged, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients that end without a word
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
