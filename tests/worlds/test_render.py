import av
import numpy as np
import pytest

from vjepa.worlds.render import render
from vjepa.worlds.scenes import CONTRAST, compose, scene_spec
from vjepa.worlds.video import write_video

LUMA = np.array([0.299, 0.587, 0.114])


def frames(index: int = 0, *, size: int = 64, noise: float = 0.0, seed: int = 0, num_distractors: int = 1):
    scene = compose(scene_spec("train", index, seed=3), num_frames=16, num_distractors=num_distractors)
    return render(scene, size=size, noise=noise, rng=np.random.default_rng(seed))


def decoded(path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("size", [32, 64])
def test_a_larger_picture_shows_the_same_scene(size):
    large = frames(size=2 * size).astype(float).reshape(16, size, 2, size, 2, 3).mean(axis=(2, 4))
    difference = np.abs(large - frames(size=size)).mean()
    another = np.abs(large - frames(6, size=size)).mean()  # the same event in another scene
    assert difference < 2.5 and another > 4 * difference


def test_nothing_stands_still():
    clip = frames().astype(float)
    corners = clip[:, :4, :4].reshape(16, -1), clip[:, -4:, -4:].reshape(16, -1)
    assert all((np.abs(np.diff(corner, axis=0)).max(axis=1) > 0).all() for corner in corners)


def test_distractors_add_to_the_picture():
    assert (frames(num_distractors=1) != frames(num_distractors=4)).any()


def test_noise_is_new_in_every_frame_and_of_the_deviation_asked_for():
    # flicker and colour come on top: sqrt(1 + .3^2 + colour), and clipping at black and white takes a little
    clean = frames().astype(float)
    for noise in (0.1, 0.2):
        grain = (frames(noise=noise) - clean) @ LUMA
        assert grain.std() == pytest.approx(noise * CONTRAST * 1.08, rel=0.15)
        pairs = np.corrcoef(grain.reshape(16, -1))
        assert np.abs(pairs - np.eye(16)).max() < 0.1
    assert (frames(noise=0.1, seed=0) != frames(noise=0.1, seed=1)).any()


@pytest.mark.parametrize("size", [32, 64])
def test_noise_survives_compression(tmp_path, size):
    clean, noisy = frames(size=size).astype(float) @ LUMA, frames(size=size, noise=0.5)
    write_video(tmp_path / "clip.mp4", noisy, fps=8.0)
    drawn, kept = noisy @ LUMA - clean, decoded(tmp_path / "clip.mp4") @ LUMA - clean
    assert kept.std() > 0.9 * drawn.std()
    assert np.corrcoef(drawn.ravel(), kept.ravel())[0, 1] > 0.95


def packets(path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def test_a_video_is_h264_at_its_rate_with_no_frames_out_of_order(tmp_path):
    write_video(tmp_path / "clip.mp4", frames(noise=0.5), fps=12.5)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, float(stream.average_rate)) == (16, 12.5)
    assert all(packet.pts == packet.dts for packet in packets(tmp_path / "clip.mp4"))


def test_a_video_has_one_keyframe(tmp_path):
    write_video(tmp_path / "clip.mp4", frames(noise=0.5), fps=8.0)
    assert [packet.is_keyframe for packet in packets(tmp_path / "clip.mp4")] == [True] + [False] * 15


def test_a_video_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(av.error.FFmpegError):
        write_video(tmp_path / "clip.mp4", frames()[:, :63, :63], fps=8.0)  # yuv420p needs even sides
    assert list(tmp_path.iterdir()) == []
