import os
import pickle
import shutil
import sqlite3
import time
import zlib
from contextlib import closing

import av
import numpy as np
import pytest
import torch

from tests.videos import moving_frames, write_manifest, write_video, write_videos
from vjepa.commands.app import main
from vjepa.commands.data_index import index_command
from vjepa.data import ClipSampler, Reading, VideoDataModule, decoder_class
from vjepa.data.decoders import packet_store
from vjepa.data.decoders.indexed import backend, cached_index
from vjepa.data.decoders.limited import opener
from vjepa.data.decoders.packet_store import PacketStore, index_file
from vjepa.data.decoders.packets import index_packets
from vjepa.data.decoders.stream import open_video_file
from vjepa.errors import UsageError


@pytest.fixture
def files(tmp_path):
    """Videos with B-frames and several keyframes, and in three containers."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, options in (("a.mp4", {"g": "8", "bf": "3"}), ("b.mkv", {"g": "5"}), ("c.avi", {})):
        write(folder / name, options)
    return folder


def write(path, options, num_frames=24):
    with av.open(str(path), "w") as container:
        codec = "mjpeg" if path.suffix == ".avi" else "libx264"  # whose packets are read each time
        stream = container.add_stream(codec, rate=12, options=options)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for image in moving_frames(num_frames, height=48, width=64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def index(folder, out, **options):
    return index_command(source=str(folder), out=out, num_processes=0, **options).figures


def test_an_indexed_video_gives_the_same_frames(files, tmp_path):
    figures = index(files, tmp_path / "i")
    assert figures["num_videos"] == 3 and figures["num_added"] == 2 and figures["num_read_each_time"] == 1
    indexed = backend("auto", str(tmp_path / "i"))
    for path in sorted(files.iterdir()):
        with decoder_class("pyav").open(path) as plain, indexed.open(path) as looked_up:
            assert np.array_equal(plain.timestamps, looked_up.timestamps)
            for wanted in ([0], [23], [3, 9, 4], [17, 2, 2, 22], list(range(24))):
                assert torch.equal(plain.frames_at(wanted), looked_up.frames_at(wanted)), (path, wanted)


def test_no_packet_is_read_of_an_indexed_video(files, tmp_path, monkeypatch):
    index(files, tmp_path / "i")

    def unexpected(path, video):
        raise AssertionError(f"packets of {path} were read")

    monkeypatch.setattr("vjepa.data.decoders.backends.pyav.index_packets", unexpected)
    indexed = backend("pyav", str(tmp_path / "i"))
    with indexed.open(files / "a.mp4") as video:
        assert video.num_frames == 24
    with pytest.raises(AssertionError, match=r"c\.avi were read"):  # whose times are not sure
        indexed.open(files / "c.avi")
    write(files / "a.mp4", {"g": "8"}, num_frames=20)
    with pytest.raises(AssertionError, match=r"a\.mp4 were read"):  # it is another file now
        indexed.open(files / "a.mp4")


def test_a_file_of_another_state_is_read_anew(files, tmp_path):
    index(files, tmp_path / "i")
    store = PacketStore(tmp_path / "i")
    path = files / "a.mp4"
    assert len(store.find(path).pts) == 24
    state = os.stat(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert store.find(path) is None
    assert index(files, tmp_path / "i")["num_added"] == 1
    assert len(store.find(path).pts) == 24
    path.unlink()
    assert store.find(path) is None


def test_it_goes_on_where_it_was(files, tmp_path, monkeypatch):
    monkeypatch.setattr("vjepa.commands.data_index.FILES_PER_WRITE", 1)
    read = []

    def stops(path):
        read.append(path)
        if len(read) == 2:
            raise KeyboardInterrupt
        return index_file(path)

    monkeypatch.setattr("vjepa.commands.data_index.index_file", stops)
    with pytest.raises(KeyboardInterrupt):
        index(files, tmp_path / "i")
    figures = index(files, tmp_path / "i")
    assert figures["num_unchanged"] == 1 and figures["num_added"] == 1
    assert read.count(read[0]) == 1


def test_an_index_moves_with_its_files(files, tmp_path):
    index(files, tmp_path / "i")
    shutil.copytree(tmp_path, tmp_path.parent / "elsewhere", copy_function=shutil.copy2)
    moved = tmp_path.parent / "elsewhere"
    assert PacketStore(moved / "i").find(moved / "videos" / "a.mp4") is not None
    shutil.rmtree(moved)


def test_names_and_images(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = os.fsdecode(b"caf\xe9 clip.mp4")  # Latin-1, no UTF-8
    write_video(folder / "a.mp4", num_frames=4, height=16, width=16)
    try:
        (folder / "a.mp4").rename(folder / odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    report = index_command(source=str(folder), out=tmp_path / "i", num_processes=0)
    assert report.figures["num_added"] == 1
    assert PacketStore(tmp_path / "i").find(folder / odd) is not None


def test_what_is_no_video_file_here_is_counted(tmp_path):
    write_video(tmp_path / "a.mp4", num_frames=4, height=16, width=16)
    (tmp_path / "picture.png").write_bytes(b"")
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\na.mp4\na.mp4\npicture.png\nhttps://host/a.mp4\n")
    report = index_command(source=str(manifest), out=tmp_path / "i", num_processes=0)
    assert report.figures["num_added"] == 1 and report.figures["num_not_files"] == 2


def test_a_file_in_which_jumps_go_elsewhere_is_read_each_time(tmp_path, monkeypatch):
    write(tmp_path / "a.mp4", {"g": "6"})
    assert len(index_file(str(tmp_path / "a.mp4")).packets.keyframes) == 4

    def late(path, video):
        read = index_packets(path, video)
        return read._replace(keyframes=read.keyframes + 1)

    monkeypatch.setattr("vjepa.data.decoders.packet_store.index_packets", late)
    assert index_file(str(tmp_path / "a.mp4")) is None


def test_broken_files_are_listed_and_not_kept(files, tmp_path):
    (files / "cut.mp4").write_bytes((files / "a.mp4").read_bytes()[:900])
    report = index_command(source=str(files), out=tmp_path / "i", num_processes=0)
    assert [os.path.basename(str(row["path"])) for row in report.rows] == ["cut.mp4"]
    assert PacketStore(tmp_path / "i").find(files / "cut.mp4") is None


@pytest.mark.slow
def test_other_processes_find_the_same(files, tmp_path):
    index(files, tmp_path / "here")
    index_command(source=str(files), out=tmp_path / "there", num_processes=2)
    rows = [
        sqlite3.connect(tmp_path / name).execute("SELECT * FROM vjepa_packets ORDER BY path").fetchall()
        for name in ("here", "there")
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("timeout_seconds", [0.0, 20.0])
def test_a_limited_opener_uses_it_in_its_own_process(files, tmp_path, timeout_seconds):
    index(files, tmp_path / "i")
    opens = pickle.loads(pickle.dumps(opener("auto", timeout_seconds, index=str(tmp_path / "i"))))
    with opens.open(files / "a.mp4") as video, decoder_class("pyav").open(files / "a.mp4") as plain:
        assert torch.equal(video.frames_at([5, 20]), plain.frames_at([5, 20]))


def test_clips_of_a_fit_are_the_same_with_it(tmp_path):
    train = write_manifest(tmp_path / "t", 6, num_frames=12, height=32, width=32)
    index(train, tmp_path / "i")

    def batches(**reading):
        data = VideoDataModule(
            train=str(train),
            batch_size=3,
            sampler=ClipSampler(num_frames=4, fps=None),
            reading=Reading(**reading),
        )
        data.setup("fit")
        return [batch.video for batch in data.train_dataloader()]

    for one, other in zip(batches(), batches(index=str(tmp_path / "i")), strict=True):
        assert torch.equal(one, other)


def test_what_is_no_index_is_refused_by_name(tmp_path, files):
    with pytest.raises(UsageError, match="no such packet index. Write it with `vjepa data index`"):
        backend("auto", str(tmp_path / "none"))
    (tmp_path / "text").write_text("path,label\n" * 100)
    with pytest.raises(UsageError, match="text: not a packet index .*not a database"):
        backend("auto", str(tmp_path / "text"))
    with pytest.raises(UsageError, match="not a packet index"):
        index(files, tmp_path / "text")
    assert (tmp_path / "text").read_text().startswith("path,label")
    index(files, tmp_path / "i")
    with pytest.raises(ValueError, match=r"decoder 'decord' with index .*only auto and pyav read one"):
        backend("decord", str(tmp_path / "i"))
    with sqlite3.connect(tmp_path / "i") as connection:
        connection.execute("UPDATE vjepa_packets SET pts = x'00'")
    with pytest.raises(UsageError, match="damaged"):
        PacketStore(tmp_path / "i").find(files / "a.mp4")
    with sqlite3.connect(tmp_path / "i") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="version 99, this vjepa reads 2"):
        PacketStore(tmp_path / "i")


def test_a_store_that_cannot_be_written_is_named(files, tmp_path, monkeypatch):
    monkeypatch.setattr("vjepa.data.decoders.packet_store.LOCK_SECONDS", 0.1)
    index(files, tmp_path / "i")
    (files / "new.mp4").write_bytes((files / "a.mp4").read_bytes())
    with sqlite3.connect(tmp_path / "i") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UsageError, match="locked"):
            index(files, tmp_path / "i")
        other.rollback()
    assert PacketStore(tmp_path / "i").find(files / "a.mp4") is not None


def test_packets_of_the_store_are_those_of_the_file(files, tmp_path):
    index(files, tmp_path / "i")
    for name in ("a.mp4", "b.mkv"):
        path = str(files / name)
        video = open_video_file(path)
        with video.container:
            read = index_packets(path, video)
        kept = PacketStore(tmp_path / "i").find(path)
        assert np.array_equal(kept.pts, read.pts) and np.array_equal(kept.keyframes, read.keyframes)
        assert kept[2:] == read[2:]


def test_the_index_in_the_cache_grows_while_videos_are_read(files, tmp_path, monkeypatch):
    monkeypatch.setattr("vjepa.data.decoders.indexed.NUM_AT_ONCE", 1)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    grows = backend("auto", "auto")
    for path in sorted(files.iterdir()):
        with decoder_class("pyav").open(path) as plain, grows.open(path) as video:
            assert torch.equal(plain.frames_at([3, 20]), video.frames_at([3, 20]))
    store = PacketStore(cached_index())
    assert store.find(files / "a.mp4") is not None and store.find(files / "c.avi") is None
    monkeypatch.setattr("vjepa.data.decoders.indexed.index_file", None)  # no packet is read again
    with backend("auto", "auto").open(files / "a.mp4") as video:
        assert video.num_frames == 24


def test_a_cache_that_cannot_be_used_changes_nothing(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cached_index().parent.mkdir(parents=True)
    cached_index().write_text("no index")
    with backend("auto", "auto").open(files / "a.mp4") as video:
        assert video.num_frames == 24
    assert cached_index().read_text() == "no index"


ENDLESS = """
DROP TABLE vjepa_packets;
CREATE VIEW vjepa_packets AS
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT CAST(i AS BLOB) AS path, 1 AS size, 1 AS mtime_ns, 0 AS earliest, 0 AS reorder,
        {cell} AS pts, x'' AS keyframes FROM n;
"""


@pytest.mark.parametrize("cell", ["x''", "zeroblob(900000000)"])
def test_an_index_that_never_ends_is_refused(tmp_path, cell):
    PacketStore.create(tmp_path / "i")
    with closing(sqlite3.connect(tmp_path / "i")) as connection:
        connection.executescript(ENDLESS.format(cell=cell))
    began = time.monotonic()
    with pytest.raises(UsageError, match="not a packet index .*Delete it and write it again"):
        PacketStore(tmp_path / "i").find(tmp_path / "a.mp4")
    assert time.monotonic() - began < 5


def test_a_cell_that_fills_the_memory_is_refused(files, tmp_path, monkeypatch):
    index(files, tmp_path / "i")
    with closing(sqlite3.connect(tmp_path / "i")) as connection, connection:
        connection.execute("UPDATE vjepa_packets SET pts = ?", (zlib.compress(bytes(100_000_000), 9),))
    monkeypatch.setattr(packet_store, "MAX_TIMES_BYTES", 8000)
    with pytest.raises(UsageError, match="damaged .*more than 1000 frames.*write it again"):
        PacketStore(tmp_path / "i").find(files / "a.mp4")


@pytest.mark.slow
def test_the_command_of_the_howto_writes_and_updates_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_videos(tmp_path / "clips", 2, num_frames=4, height=16, width=16)
    command = ["data", "index", "clips", "--num_processes", "0", "--out"]
    for out in ("clips.index", "new/folder/clips.index"):
        for said in ("2 videos indexed, 0 unchanged", "0 videos indexed, 2 unchanged"):
            assert main([*command, out]) == 0
            assert said in capsys.readouterr().out
        assert PacketStore(out).find("clips/clip_000.mp4") is not None
    assert main([*command, "clips"]) == 2
    assert "clips is a folder. Give a file" in capsys.readouterr().err
    assert main([*command, "clips.index/other"]) == 2
    assert "clips.index is a file. Give a folder" in capsys.readouterr().err
