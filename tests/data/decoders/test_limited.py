"""A hung decode is ended, whatever it hangs in, and nothing is left of it."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.videos import write_manifest, write_video
from vjepa.data import (
    ClipSampler,
    DecodeError,
    EvalTransform,
    Reading,
    VideoClips,
    VideoDataModule,
    collate,
    decoder_class,
    read_manifest,
)
from vjepa.data.decoders import limited
from vjepa.data.decoders.limited import LimitedDecoder, LimitedOpener, opener

pytestmark = pytest.mark.skipif(not limited.POSSIBLE, reason="a limit needs Linux")

MINE = '''
import ctypes, os, time
import numpy as np, torch
from vjepa.data import DecodeError, Decoder

class Moody(Decoder):
    """What it does is in the file's name."""

    def __init__(self, mood):
        self.mood = mood

    @classmethod
    def open(cls, path):
        mood = os.path.basename(str(path))
        if mood == "fifo":
            open(path).read()
        if mood == "broken":
            raise DecodeError(path, "as its name says")
        return cls(mood)

    @property
    def timestamps(self):
        return np.arange(4) / 4

    def frames_at(self, indices):
        if self.mood == "sleeps":
            while True:
                time.sleep(60)
        if self.mood == "holds_the_gil":
            ctypes.PyDLL(None).sleep(1000)
        if self.mood == "crashes":
            os.kill(os.getpid(), 9)
        if self.mood == "bug":
            raise Odd("a", "b")
        frames = torch.zeros(len(indices), 3, 4, 6, dtype=torch.uint8)
        frames += torch.tensor(indices, dtype=torch.uint8)[:, None, None, None]
        return frames

    def close(self):
        pass

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("odd")
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "moody_decoder.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "moody_decoder", raising=False)
    process = LimitedOpener(decoder="moody_decoder.Moody", seconds=0.3)
    yield process
    process.close()


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_frames_are_those_without_a_limit(tmp_path):
    path = write_video(tmp_path / "v.mp4", num_frames=20, width=70)
    with opener("pyav", 0.0).open(path) as plain, opener("pyav", 10.0).open(path) as limited_video:
        assert isinstance(limited_video, LimitedDecoder) and not isinstance(plain, LimitedDecoder)
        assert limited_video.timestamps.tolist() == plain.timestamps.tolist()
        first = limited_video.frames_at([3, 1])
        assert torch.equal(limited_video.frames_at(list(range(20))), plain.frames_at(list(range(20))))
        assert torch.equal(first, plain.frames_at([3, 1])), "frames given before stay as they are"
        assert first.stride() == plain.frames_at([3, 1]).stride()
    with LimitedDecoder.open(path) as alone:
        assert alone.num_frames == 20


@pytest.mark.parametrize("mood", ["sleeps", "holds_the_gil", "fifo"])
def test_a_hung_decode_is_ended_and_the_next_file_is_read(mine, tmp_path, mood):
    os.mkfifo(tmp_path / "fifo")
    with mine.open(tmp_path / "good") as video:
        assert video.frames_at([2, 0])[:, 0, 0, 0].tolist() == [2, 0]
    hung = mine.pid
    began = time.monotonic()
    with pytest.raises(DecodeError, match=r"no frame after 0.3 s: decoding hung and was ended") as error:
        with mine.open(tmp_path / mood) as video:
            video.frames_at([0])
    assert error.value.path == str(tmp_path / mood)
    assert 0.25 < time.monotonic() - began < 2
    assert mine.pid is None and not Path(f"/proc/{hung}").exists(), "no zombie either"
    with mine.open(tmp_path / "good") as video:
        assert video.num_frames == 4 and mine.pid != hung


def test_two_videos_open_at_once(mine, tmp_path):
    with mine.open(tmp_path / "a") as one, mine.open(tmp_path / "b") as two:
        assert torch.equal(one.frames_at([1]), two.frames_at([1]))
        hanging = mine.open(tmp_path / "sleeps")
        with pytest.raises(DecodeError, match="hung"):
            hanging.frames_at([0])
        assert one.frames_at([3])[0, 0, 0, 0] == 3, "it is opened again in the next child"
        assert two.frames_at([2])[0, 0, 0, 0] == 2


def test_errors_cross_over(mine, tmp_path):
    with pytest.raises(DecodeError, match="as its name says"):
        mine.open(tmp_path / "broken")
    with mine.open(tmp_path / "bug") as video, pytest.raises(RuntimeError, match="Odd: odd"):
        video.frames_at([0])
    with (
        mine.open(tmp_path / "crashes") as video,
        pytest.raises(DecodeError, match=r"crashed \(signal SIGKILL\)"),
    ):
        video.frames_at([0])
    with mine.open(tmp_path / "good") as video:
        assert video.num_frames == 4


def test_a_child_that_was_killed_between_two_files_is_replaced(mine, tmp_path):
    mine.open(tmp_path / "a").close()
    os.kill(pid := mine.pid, signal.SIGKILL)
    while running(pid):
        time.sleep(0.001)
    with mine.open(tmp_path / "a") as video:
        assert video.frames_at([1]).shape == (1, 3, 4, 6)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_good_file_is_read_although_its_child_is_killed_or_stopped(mine, tmp_path, sent):
    with mine.open(tmp_path / "a") as video:
        os.kill(first := mine.pid, sent)
        assert video.frames_at([1])[0, 0, 0, 0] == 1
        assert mine.pid != first and not Path(f"/proc/{first}").exists()
        os.kill(mine.pid, signal.SIGKILL)
    with mine.open(tmp_path / "b") as video:
        os.kill(mine.pid, sent)
        assert video.frames_at([2])[0, 0, 0, 0] == 2


def test_threads_that_share_a_process_read_their_own_videos(mine, tmp_path):
    shared = mine.open(tmp_path / "shared")
    pids = set()

    def read(number):
        with mine.open(tmp_path / f"{number}") as video:
            pids.add(mine.pid)
            for _ in range(20):
                assert video.frames_at([number % 4]).unique().tolist() == [number % 4]
                assert shared.frames_at([3 - number % 4]).unique().tolist() == [3 - number % 4]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(12)))
    gc.collect()
    assert mine.pid not in pids and len(pids) > 1
    assert not any(running(pid) for pid in pids), "a child ends with its thread"


@pytest.mark.slow
def test_clips_read_from_several_threads_are_those_of_one(tmp_path):
    manifest = write_manifest(tmp_path, 6, num_frames=4, height=16, width=16)
    clips = VideoClips(
        read_manifest(manifest), sampler=ClipSampler(num_frames=2, fps=None), transform=EvalTransform(size=16)
    )
    right = [clips[i].video for i in range(len(clips))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: clips[i % 6].video, range(60)))
    assert all(torch.equal(video, right[i % 6]) for i, video in enumerate(found))


def test_a_fresh_child_takes_over_after_many_files(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(limited, "MAX_OPENS", 3)
    pids = []
    for _ in range(7):
        with mine.open(tmp_path / "a"):
            pids.append(mine.pid)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert not any(running(pid) for pid in pids[:6])


def test_it_is_pickled_without_its_child_and_ends_with_its_owner(mine, tmp_path):
    mine.open(tmp_path / "a").close()
    again = pickle.loads(pickle.dumps(mine))
    assert again.pid is None and again.seconds == mine.seconds
    again.open(tmp_path / "a").close()
    pid = again.pid
    assert running(pid)
    del again
    gc.collect()
    assert not running(pid)


def test_limits_that_cannot_be_are_refused(monkeypatch):
    for make in (lambda: opener("pyav", -1.0), lambda: Reading(timeout_seconds=-1.0)):
        with pytest.raises(ValueError, match="-1"):
            make()
    monkeypatch.setattr(limited, "POSSIBLE", False)
    with pytest.raises(ValueError, match="needs Linux. Set it to 0 for no limit"):
        opener("pyav", 5.0)
    assert opener("pyav", 0.0) is decoder_class("pyav")


def moody_clips(folder):
    names = ["good", "sleeps", "good2", "holds_the_gil", "good3"]
    for name in names:
        (folder / name).touch()
    (folder / "clips.csv").write_text("path\n" + "\n".join(names) + "\n")
    return VideoClips(
        read_manifest(folder / "clips.csv"),
        sampler=ClipSampler(num_frames=2, fps=None),
        transform=EvalTransform(size=32),
        decoder="moody_decoder.Moody",
        timeout_seconds=0.3,
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_hung_clips_are_failures_of_a_loader(mine, tmp_path, num_workers):
    clips = moody_clips(tmp_path)
    clips[0]  # a child of this process, which workers must not use
    loader = DataLoader(clips, batch_size=2, num_workers=num_workers, collate_fn=collate)
    before = set(children(os.getpid()))
    batches = list(loader)
    assert [len(batch) for batch in batches] == [1, 1, 1]
    reasons = [failure.reason for batch in batches for failure in batch.failures]
    assert len(reasons) == 2 and all("no frame after 0.3 s" in reason for reason in reasons)
    assert set(children(os.getpid())) <= before | {str(clips._opener.pid)}


def test_the_data_module_hands_its_limit_on(mine, tmp_path):
    (tmp_path / "sleeps").touch()
    (tmp_path / "clips.csv").write_text("path\nsleeps\n")
    options = {"train": str(tmp_path / "clips.csv"), "decoder": "moody_decoder.Moody"}
    data = VideoDataModule(**options, reading=Reading(timeout_seconds=0.2))
    data.setup("fit")
    assert "no frame after 0.2 s" in data.clips("train")[0].failure.reason
    without = VideoDataModule(**options, reading=Reading(timeout_seconds=0.0))
    without.setup("fit")
    assert without.clips("train")._opener is decoder_class("moody_decoder.Moody")


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


SCRIPT = """
import sys, time, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without it
sys.path.insert(0, sys.argv[1])
from vjepa.data.decoders.limited import LimitedOpener
process = LimitedOpener(decoder="moody_decoder.Moody", seconds=60)
video = process.open(sys.argv[1] + "/sleeps")
print(process.pid, flush=True)
try:
    video.frames_at([0])
except KeyboardInterrupt:
    assert process.pid is None
    with process.open("good") as good:
        print("read", good.frames_at([1]).shape[0], process.pid, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_behind_however_the_owner_ends(mine, tmp_path, how):
    owner = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pid = int(owner.stdout.readline())
    time.sleep(0.1)
    os.killpg(owner.pid, how) if how == signal.SIGINT else owner.send_signal(how)
    rest = owner.communicate(timeout=20)[0].split()
    pids = [pid, *map(int, rest[2:])]
    if how == signal.SIGINT:
        assert rest[:2] == ["read", "1"]
    give_up = time.monotonic() + 5
    while any(running(p) for p in pids) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not any(running(p) for p in pids)


def test_memory_given_to_the_parent_is_its_own(mine, tmp_path):
    with mine.open(tmp_path / "a") as video:
        frames = video.frames_at([1, 2])
        frames += 100
        assert video.frames_at([1, 2])[:, 0, 0, 0].tolist() == [1, 2]
        assert np.all(video.frames_at([0, 1, 2, 3, 3])[4].numpy() == 3)
