import pickle

import numpy as np
import pytest
import torch

from tests.shared import shared_dir
from tests.videos import moving_frames, write_broken, write_video
from vjepa.data import DecodeError, Decoder, decoder_class, read_clip
from vjepa.data.decoders.auto import trial
from vjepa.data.decoders.backends.pyav import PyAVDecoder

BROKEN = ("truncated", "text_file", "zero_bytes", "corrupted", ".mp3", ".wav", "README")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "v.mp4", num_frames=40, fps=10.0, gop=10)


@pytest.fixture(params=["pyav", "decord", "torchcodec"])
def backend(request):
    if request.param != "pyav":
        needs(request.param)
    return decoder_class(request.param)


def needs(name):
    """Skip where the backend does not work, for torchcodec also where ffmpeg's libraries are missing."""
    tried = trial(name)
    if not tried.works:
        pytest.skip(tried.detail)


def shared_clips():
    folder = shared_dir()
    return sorted((folder / "data" / "decoder_clips").glob("*/*")) if folder else []


def test_frames_and_times(backend, video):
    with backend.open(video) as opened:
        assert opened.num_frames == 40 and opened.fps == pytest.approx(10.0)
        np.testing.assert_allclose(opened.timestamps, np.arange(40) / 10, atol=1e-6)
        frames = opened.frames_at(list(range(40)))
    assert frames.shape == (40, 3, 64, 64) and frames.dtype == torch.uint8
    written = torch.from_numpy(moving_frames(40)).permute(0, 3, 1, 2)
    assert (frames.float() - written.float()).abs().mean() < 12  # h264 at its default quality
    assert frames[:, 0].float().mean() > frames[:, 2].float().mean() - 30  # RGB, not BGR


def test_any_order_and_duplicates(backend, video):
    with backend.open(video) as opened:
        every = opened.frames_at(list(range(40)))
        for wanted in ([39], [25, 3, 3, 38], [11, 10, 9], [0]):
            assert torch.equal(opened.frames_at(wanted), every[wanted])
        with pytest.raises(IndexError, match="it has 0 to 39"):
            opened.frames_at([40])
        with pytest.raises(IndexError, match="Request at least one"):
            opened.frames_at([])


def test_variable_frame_rate(backend, tmp_path):
    seconds = [0.0, 0.1, 0.2, 0.7, 1.2, 1.25]
    video = write_video(tmp_path / "vfr.mp4", num_frames=6, seconds=seconds)
    with backend.open(video) as opened:
        np.testing.assert_allclose(opened.timestamps, seconds, atol=1e-3)


def test_one_frame(backend, tmp_path):
    with backend.open(write_video(tmp_path / "one.mp4", num_frames=1)) as opened:
        assert opened.num_frames == 1 and opened.fps == 0.0 and opened.frames_at([0, 0]).shape[0] == 2


def test_broken_files_say_why(backend, tmp_path):
    for path in [*write_broken(tmp_path), tmp_path / "missing.mp4"]:
        with pytest.raises(DecodeError) as error, backend.open(path) as opened:
            opened.frames_at([0])
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        again = pickle.loads(pickle.dumps(error.value))
        assert (again.path, again.reason) == (error.value.path, error.value.reason)


def test_cut_off_containers_are_not_short_videos(backend, tmp_path):
    for name in ("cut.mkv", "cut.avi"):
        whole = write_video(tmp_path / name, num_frames=60, fps=30.0, codec="mpeg4")
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
        with pytest.raises(DecodeError, match="truncated|cut off|0 frames"):
            backend.open(whole)


def test_audio_alone_is_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DecodeError, match="holds no video, only audio"):
        PyAVDecoder.open(tmp_path / "a.wav")


def test_unknown_decoders_are_refused_with_the_names():
    for name, why in (("pyva", "not known"), ("no.such.Thing", "no"), ("vjepa.types.Clip", "not a subclass")):
        with pytest.raises(
            ValueError, match=f"{why}.*Use one of auto, pyav, torchcodec, decord, frames, or the class path"
        ):
            decoder_class(name)
    assert issubclass(decoder_class("pyav"), Decoder)


def test_read_clip(video):
    clip = read_clip(video, num_frames=4, fps=5.0, start_seconds=1.0)
    assert clip.frames.shape == (4, 3, 64, 64) and clip.path == str(video)
    np.testing.assert_allclose(clip.timestamps, [1.0, 1.2, 1.4, 1.6], atol=1e-6)
    assert len(read_clip(video, num_frames=4, fps=None).timestamps) == 4


@pytest.mark.skipif(not shared_clips(), reason="needs the shared decoder clips")
@pytest.mark.parametrize("path", shared_clips(), ids=lambda p: p.name)
def test_shared_clips(path):
    if any(word in path.name for word in BROKEN):
        with pytest.raises(DecodeError), PyAVDecoder.open(path) as opened:
            opened.frames_at([opened.num_frames - 1])
        return
    with PyAVDecoder.open(path) as opened:
        last = opened.num_frames - 1
        wanted = sorted({0, last // 2, last})
        frames = opened.frames_at(wanted)
        # far ones by seeking, all by decoding through
        through = opened.frames_at([*range(last // 2 + 1), last])
        assert torch.equal(frames[-1], through[-1]) and torch.equal(frames[0], through[0])
