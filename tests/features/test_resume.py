"""Kills, restarts, ranks and workers change no byte; other settings are not mixed in."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import av
import pytest
import torch

import vjepa.features
from tests.features.given import extract
from tests.videos import write_manifest, write_video
from vjepa.data import read_manifest
from vjepa.features import FeaturesError, store, units
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.extract import ClipSource
from vjepa.features.windows import Windows

KEPT = ("features.safetensors", "index.csv", "features.json")


def contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name in KEPT}


def index_in_front(video, path):
    """Write the same packets to a file whose index comes first, as on the web: cut off, it still opens."""
    path.parent.mkdir()
    with av.open(str(video)) as source, av.open(str(path), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path


def names(out):
    return sorted(path.name for path in out.iterdir())


@pytest.fixture
def few_units(monkeypatch):
    """Make units of many batches."""
    monkeypatch.setattr(units, "MAX_UNITS", 4)


def stopped_after(monkeypatch, count):
    """Raise in place of keeping batch number `count`."""
    add, calls = store.RecordStore.add, []

    def stop(self, *args, **given):
        calls.append(args)
        if len(calls) > count:
            raise KeyboardInterrupt
        add(self, *args, **given)

    monkeypatch.setattr(store.RecordStore, "add", stop)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_stop_between_batches_leaves_no_gap(small, clips, tmp_path, monkeypatch, few_units, count):
    given = {"encoder": small, "data": clips, "window": 0.25, "batch_size": 4}
    extract(out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, count)
        extract(out=tmp_path / "cut", **given)
    done = extract(out=tmp_path / "cut", **given)
    assert done.figures["num_made"] == 60 - done.figures["num_clips"] + done.figures["num_made"]
    assert (done.figures["num_made"] < 60) == (count > 0)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert names(tmp_path / "cut") == names(tmp_path / "whole")
    assert extract(out=tmp_path / "cut", **given).figures["num_made"] == 0


def test_a_broken_tail_is_one_line_also_after_a_restart(small, tmp_path, monkeypatch, few_units):
    video = write_video(tmp_path / "v" / "a.mp4", num_frames=160, height=32, width=32, gop=8)
    content = bytearray(video.read_bytes())
    first, last = content.find(b"mdat"), content.find(b"moov")
    content[(first + last) // 2 : (first + last) // 2 + 400] = bytes(400)
    video.write_bytes(bytes(content))
    write_video(tmp_path / "v" / "b.mp4", num_frames=16, height=32, width=32)
    given = {"encoder": small, "data": str(tmp_path / "v"), "window": 0.5, "batch_size": 3}
    report = extract(out=tmp_path / "whole", **given)
    for count in (2, 4):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stopped_after(patch, count)
            extract(out=tmp_path / f"cut{count}", **given)
        extract(out=tmp_path / f"cut{count}", **given)
        assert contents(tmp_path / f"cut{count}") == contents(tmp_path / "whole")
    assert report.figures["num_failures"] == 1 and "nothing is read from" in report.figures["failures"][0]
    assert 4 < report.figures["num_clips"] < 44


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_missing_tail_costs_only_what_lies_in_it(small, tmp_path, monkeypatch, few_units, suffix):
    settings = {"num_frames": 160, "height": 32, "width": 32, "gop": 8}
    whole = write_video(tmp_path / "whole" / f"a{suffix}", **settings)
    if suffix == ".mp4":
        whole = index_in_front(whole, tmp_path / "front" / "a.mp4")
    cut = tmp_path / "cut" / whole.name
    cut.parent.mkdir()
    cut.write_bytes(whole.read_bytes()[: int(0.6 * whole.stat().st_size)])
    write_video(tmp_path / "cut" / "b.mp4", num_frames=16, height=32, width=32)
    given = {"encoder": small, "window": 0.5, "batch_size": 3}
    extract(data=str(whole), out=tmp_path / "all", **given)
    report = extract(data=str(cut.parent), out=tmp_path / "some", **given)
    assert report.exit_code == 2 and report.figures["num_failures"] == 1
    (line,) = report.figures["failures"]
    assert "truncated: " in line and "; nothing is read from " in line
    every, some = (vjepa.features.open(tmp_path / name) for name in ("all", "some"))
    kept = sum(row.path == str(cut) for row in some.rows)
    assert 10 < kept < 32 and len(some.rows) == kept + 4
    full = kept - kept % 3  # the last batch is shorter, and its arithmetic may round otherwise
    assert torch.equal(some.features[:full], every.features[:full])
    torch.testing.assert_close(some.features[full:kept], every.features[full:kept])
    assert float(line.split("nothing is read from ")[1].split(" s")[0]) - some.rows[kept - 1].start < 1.1
    for count in (2, kept // 3):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stopped_after(patch, count)
            extract(data=str(cut.parent), out=tmp_path / f"cut{count}", **given)
        extract(data=str(cut.parent), out=tmp_path / f"cut{count}", **given)
        assert contents(tmp_path / f"cut{count}") == contents(tmp_path / "some")
    extract(data=str(cut.parent), out=tmp_path / "workers", num_workers=2, **given)
    assert contents(tmp_path / "workers") == contents(tmp_path / "some")
    with pytest.raises(FeaturesError, match="promised seconds|promised frames"):
        extract(encoder=small, data=str(cut), out=tmp_path / "middle")  # of which nobody knows the middle
    with pytest.raises(FeaturesError, match="are there; .* Lower --window"):
        extract(encoder=small, data=str(cut), out=tmp_path / "long", window=19.0)


@pytest.mark.parametrize("window", [None, 0.5])
def test_ranks_write_what_one_process_writes(small, clips, tmp_path, monkeypatch, few_units, window):
    given = {"encoder": small, "data": clips, "window": window, "batch_size": 3}
    extract(out=tmp_path / "one", **given)
    first = extract(out=tmp_path / "two", rank=1, world_size=2, **given)
    assert not first.figures["is_complete"] and not (tmp_path / "two" / "features.json").exists()
    monkeypatch.setenv("RANK", "0")  # as torchrun says it
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    second = extract(out=tmp_path / "two", **given)
    assert second.figures["is_complete"] and 0 < second.figures["num_made"] < second.figures["num_clips"]
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    for wrong in ({"rank": 2, "world_size": 2}, {"rank": 0}):
        with pytest.raises(FeaturesError, match="got rank"):
            extract(out=tmp_path / "x", **given, **wrong)


@pytest.mark.slow
def test_workers_share_one_long_video_and_change_nothing(small, long_video, tmp_path):
    given = {"encoder": small, "data": str(long_video), "window": 0.5, "batch_size": 3}
    extract(out=tmp_path / "a", **given)
    extract(out=tmp_path / "b", num_workers=2, **given)
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_other_settings_are_refused_or_overwritten(small, clips, tmp_path):
    extract(encoder=small, data=clips, out=tmp_path)
    with pytest.raises(FeaturesError, match="made with another pool. .*--overwrite true"):
        extract(encoder=small, data=clips, out=tmp_path, pool="frame")
    extract(encoder=small, data=clips, out=tmp_path, pool="frame", overwrite=True)
    assert vjepa.features.open(tmp_path).features.ndim == 3


def test_units_depend_on_no_rank():
    assert units.unit_rows(1000, batch_size=16, one_clip=True) == 16
    assert units.unit_rows(1000, batch_size=16, one_clip=False) == 16
    assert units.unit_rows(3, batch_size=16, one_clip=False) == 1


@pytest.mark.slow
def test_kill_9_at_any_moment(small, clips, tmp_path):
    """Real processes, killed; the last one runs to the end."""
    arguments = f"encoder={small!r}, data={clips!r}, window=0.25, batch_size=2"
    program = (
        "import sys, time; from pathlib import Path; from vjepa.features.store import RecordStore\n"
        "from tests.features.given import extract\n"
        "add = RecordStore.add\n"
        "RecordStore.add = lambda *a, **k: (time.sleep(0.05), add(*a, **k))\n"  # room to be killed in
        f"extract({arguments}, out=Path(sys.argv[1]))\n"
    )

    def start(out):
        return subprocess.Popen([sys.executable, "-c", program, str(out)])

    assert start(tmp_path / "whole").wait() == 0
    for count in (1, 9):
        running = start(tmp_path / "cut")
        seen = tmp_path / "cut" / "parts"
        while len(list(seen.glob("*.jsonl"))) <= count and running.poll() is None:
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    assert start(tmp_path / "cut").wait() == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert names(tmp_path / "cut") == names(tmp_path / "whole")


def test_damaged_bytes_are_made_again(small, clips, tmp_path, monkeypatch, few_units):
    given = {"encoder": small, "data": clips, "window": 0.25, "batch_size": 4}
    extract(out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, 10)
        extract(out=tmp_path / "cut", **given)
    done = sorted((tmp_path / "cut" / "parts").glob("*.bin"))
    content = bytearray(done[0].read_bytes())
    content[5 * 24 * 4] ^= 1  # of record 5, in the second batch
    done[0].write_bytes(bytes(content))
    done[1].write_bytes(done[1].read_bytes()[:-1])
    report = extract(out=tmp_path / "cut", **given)
    assert 60 - 40 < report.figures["num_made"] < 60
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_damaged_unit_is_not_done_for_another_rank(small, clips, tmp_path, monkeypatch, few_units):
    given = {"encoder": small, "data": clips, "batch_size": 2}
    extract(out=tmp_path / "whole", **given)
    extract(out=tmp_path / "two", rank=0, world_size=2, **given)
    first = sorted((tmp_path / "two" / "parts").glob("*.bin"))[0]
    first.write_bytes(bytes(first.stat().st_size))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, 0)  # the damage is found, and nothing made again
        extract(out=tmp_path / "two", rank=0, world_size=2, **given)
    assert not extract(out=tmp_path / "two", rank=1, world_size=2, **given).figures["is_complete"]
    assert extract(out=tmp_path / "two", rank=0, world_size=2, **given).figures["is_complete"]
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("windows", [None, Windows(0.5)])
def test_a_killed_worker_changes_no_window(tmp_path, windows):
    manifest = read_manifest(write_manifest(tmp_path, 12, num_frames=16, height=16, width=16))
    spec = ClipSpec(num_frames=2, size=(16, 16), windows=windows)
    todo = [(row, 0) for row in range(12)]

    def windows_of(source, kill):
        found = {}
        for number, block in enumerate(source.blocks(todo)):
            for window, clip in enumerate(block.video, block.first):
                assert (block.row, window) not in found
                found[block.row, window] = clip
            if number == 3 and kill:
                multiprocessing.active_children()[0].kill()
        return found

    whole = windows_of(ClipSource(manifest, spec), kill=False)
    found = windows_of(ClipSource(manifest, spec, num_workers=2), kill=True)
    assert list(found) == list(whole)
    assert all(torch.equal(found[place], whole[place]) for place in whole)


def replaced(manifest, *, keep_time):
    """Give the first video of a manifest the content of another of the same size."""
    first = Path(read_manifest(manifest).rows[0].path)
    before = first.stat()
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    moment = before.st_mtime_ns + (0 if keep_time else 5_000_000_000)
    os.utime(first, ns=(moment, moment))


@pytest.mark.parametrize("is_done", [True, False])
def test_videos_that_were_replaced_are_not_called_done(small, tmp_path, monkeypatch, few_units, is_done):
    manifest = write_manifest(tmp_path, 6, num_frames=8, height=16, width=16)
    given = {"encoder": small, "data": str(manifest), "out": tmp_path / "out", "batch_size": 2}
    with monkeypatch.context() as patch:
        if not is_done:
            stopped_after(patch, 1)
        with nullcontext() if is_done else pytest.raises(KeyboardInterrupt):
            extract(**given, thorough=True)
    replaced(manifest, keep_time=True)
    if is_done:
        assert extract(**given).figures["num_made"] == 0
    with pytest.raises(
        FeaturesError, match="another content of the videos.*Give another --out, or --overwrite"
    ):
        extract(**given, thorough=True)
    replaced(manifest, keep_time=False)
    with pytest.raises(FeaturesError, match="another content of the videos"):
        extract(**given)
    assert extract(**given, overwrite=True).figures["num_made"] == 6
    assert extract(**given).figures["num_made"] == 0


@pytest.mark.parametrize("windows", [{}, {"window": 2.0, "short": "repeat"}])
def test_padded_clips_are_counted_also_after_a_restart(
    small, tmp_path, monkeypatch, few_units, windows, caplog
):
    for name, num_frames in (("a", 2), ("b", 16), ("c", 3), ("d", 20)):
        write_video(tmp_path / "v" / f"{name}.mp4", num_frames=num_frames, height=16, width=16, fps=8.0)
    given = {
        "encoder": small,
        "data": str(tmp_path / "v"),
        "out": tmp_path / "out",
        "batch_size": 2,
    } | windows
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped_after(patch, 1)
        extract(**given)
    assert extract(**given).figures["num_padded"] == 2
    assert "2 of 4 windows are longer than their video and repeat its last frame" in caplog.text
