import builtins
import socket
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from tests.given.servers import serving
from tests.videos import write_video
from vjepa.data import DecodeError, Manifest, ManifestRow, VideoClips, read_clip, remote
from vjepa.data.decoders.opening import open_video
from vjepa.data.manifests.identity import row_identities
from vjepa.data.remote import Member, fetch, is_url, member_of
from vjepa.data.sampling import ClipSampler
from vjepa.data.transforms.video import TrainTransform


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    write_video(folder / "wave.mp4", num_frames=6, height=16, width=16)
    (folder / "text.mp4").write_text("this is no video\n")
    return folder


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.0)


def frames_of(path: str) -> torch.Tensor:
    return read_clip(path, num_frames=4, fps=None).frames


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/a.mp4", True),
        ("memory://a.mp4", True),
        ("file:///a.mp4", True),
        ("simplecache::s3://bucket/a.mp4", True),
        ("C:/a.mp4", False),
        ("C://a.mp4", False),
        ("/clips/a.mp4", False),
        ("a b://c.mp4", False),
    ],
)
def test_what_a_url_is(path, url):
    assert is_url(path) is url


def test_a_member_says_where_it_lies():
    member = Member("https://host/set-000001.tar", 512, 70, "a/b #1:2:c.mp4")
    assert member_of(member.path) == member
    assert member_of("/clips/set.tar") is None and member_of("/clips/a.mp4") is None


def test_the_same_frames_from_a_file_from_memory_and_over_http(folder):
    import fsspec

    wanted = frames_of(folder / "wave.mp4")
    fsspec.filesystem("memory").pipe_file("/set/wave.mp4", (folder / "wave.mp4").read_bytes())
    assert torch.equal(frames_of("memory://set/wave.mp4"), wanted)
    assert torch.equal(frames_of(f"file://{folder}/wave.mp4"), wanted)
    with serving(folder) as served, serving(folder, ranged=False) as plain:
        assert torch.equal(frames_of(f"{served.url}/wave.mp4"), wanted)
        assert torch.equal(frames_of(f"{plain.url}/wave.mp4"), wanted)
    assert len(served.gets) == len(plain.gets) == 1  # fetched whole, once


def test_a_video_inside_another_file(folder, tmp_path):
    content = (folder / "wave.mp4").read_bytes()
    (tmp_path / "set.tar").write_bytes(b"x" * 512 + content + b"y" * 512)
    member = Member(str(tmp_path / "set.tar"), 512, len(content), "wave.mp4")
    wanted = frames_of(folder / "wave.mp4")
    assert torch.equal(frames_of(member.path), wanted)
    with serving(tmp_path) as served, serving(tmp_path, ranged=False) as plain:
        assert torch.equal(frames_of(member._replace(shard=f"{served.url}/set.tar").path), wanted)
        assert served.gets == [("/set.tar", 512, len(content))]
        with pytest.raises(DecodeError, match="does not answer ranged requests. Serve the shards from one"):
            frames_of(member._replace(shard=f"{plain.url}/set.tar").path)
    with pytest.raises(DecodeError, match=r"truncated: of bytes 512 to 100512 only \d+ of 100000 exist"):
        frames_of(member._replace(size=100000).path)


def test_failures_name_the_url_and_the_cause(folder, monkeypatch):
    with serving(folder) as served:
        with pytest.raises(DecodeError, match=r"gone.mp4: cannot be fetched: there is no such file") as error:
            frames_of(f"{served.url}/gone.mp4")
        assert error.value.path == f"{served.url}/gone.mp4"
        with pytest.raises(DecodeError) as error:
            frames_of(f"{served.url}/text.mp4")
        assert error.value.path == f"{served.url}/text.mp4" and "no video file" in error.value.reason
        monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
        served.slow["/wave.mp4"] = 0.4
        with pytest.raises(DecodeError, match=r"cannot be fetched in 3 tries: no answer within 0.05 seconds"):
            frames_of(f"{served.url}/wave.mp4")
    with pytest.raises(DecodeError, match="in 3 tries: .*refused"):
        frames_of(f"{served.url}/wave.mp4")  # nobody listens there any more
    with pytest.raises(DecodeError, match="there is no such file"):
        fetch("memory://nowhere/a.mp4")
    with pytest.raises(DecodeError, match="cannot be opened"):
        fetch(str(folder / "gone.tar"), 0, 10)


@contextmanager
def raw_server(answer):
    """Serve every connection with the bytes that `answer` yields, until the client is gone."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.recv(65536)
                for part in answer():
                    connection.sendall(part)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.mp4"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(timeout=5)


def endless(pause):
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield b"x" * (1 if pause else 65536)
        time.sleep(pause)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: [b"nonsense\r\n\r\n"], "in 3 tries: not an answer of HTTP .BadStatusLine"),
        (lambda: [b"HTTP/1.1 200 OK\r\n" + b"a" * 70000 + b"\r\n"], "in 3 tries: not an answer of HTTP"),
        (lambda: [], "in 3 tries: "),
        (lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"], "the connection ended after 3 bytes"),
        (lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n"], r"has 0\.0 GB, 0\.001 are read"),
        (lambda: endless(0.0), r"has more than 0\.001 GB, or no end"),
        (lambda: endless(0.02), r"only \d+ bytes came in 0 s: the server is too slow"),
    ],
)
def test_an_odd_server_costs_one_file(monkeypatch, answer, reason):
    monkeypatch.setattr(remote, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(remote, "MAX_BYTES", 1_000_000)
    with raw_server(answer) as url, pytest.raises(DecodeError, match=reason) as error:
        fetch(url)
    assert error.value.path == url


def test_a_part_of_an_endless_file_is_not_read_to_the_end():
    with (
        raw_server(lambda: endless(0.0)) as url,
        pytest.raises(DecodeError, match="does not answer ranged requests"),
    ):
        fetch(url, 10, 20)


def test_tries_are_counted(folder):
    with serving(folder) as served:
        served.failing["/wave.mp4"] = 2
        assert torch.equal(frames_of(f"{served.url}/wave.mp4"), frames_of(folder / "wave.mp4"))
        assert [size > 0 for _, _, size in served.gets] == [False, False, True]
        served.failing["/wave.mp4"] = 3
        with pytest.raises(DecodeError, match="in 3 tries: 503"):
            frames_of(f"{served.url}/wave.mp4")


def test_an_unknown_protocol_and_a_missing_package_say_what_to_do(monkeypatch):
    with pytest.raises(ValueError, match="Use one that fsspec knows: s3, gs, http"):
        fetch("nosuch://a.mp4")
    real = builtins.__import__

    def without_fsspec(name, *args, **kwargs):
        if name.startswith("fsspec"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_fsspec)
    with pytest.raises(ImportError, match=r'pip install "vjepa-toolkit\[shards\]"'):
        fetch("memory://a.mp4")


def test_no_temporary_file_stays(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    from vjepa.data.decoders.backends.pyav import PyAVDecoder

    with open_video(PyAVDecoder, f"file://{folder}/wave.mp4"):
        assert [path.suffix for path in tmp_path.iterdir()] == [".mp4"]
    with pytest.raises(DecodeError), open_video(PyAVDecoder, f"file://{folder}/text.mp4"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_broken_url_is_a_failure_of_its_clip(folder):
    urls = [f"file://{folder}/{name}.mp4" for name in ("wave", "gone")]
    manifest = Manifest(tuple(map(ManifestRow, urls)), (), "csv", "a.csv", f"file://{folder}")
    clips = VideoClips(
        manifest, sampler=ClipSampler(num_frames=2, fps=None), transform=TrainTransform(size=8)
    )
    assert clips[0].failure is None
    assert clips[1].failure.path == urls[1] and "no such file" in clips[1].failure.reason
    local = Manifest((ManifestRow(str(folder / "wave.mp4")),), (), "csv", "a.csv", str(folder))
    assert row_identities(local)[0] == row_identities(manifest)[0]  # so the order is the one of the files
