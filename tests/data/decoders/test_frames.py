import numpy as np
import pytest
import torch
from PIL import Image

from tests.videos import moving_frames
from vjepa.data import DecodeError, decoder_class, read_clip
from vjepa.data.decoders.backends.frames import FramesDecoder


def write_folder(folder, num_frames=12, suffix=".png"):
    """`moving_frames` as images frame_1, frame_2, ..., frame_12."""
    folder.mkdir()
    for number, pixels in enumerate(moving_frames(num_frames), start=1):
        Image.fromarray(pixels).save(folder / f"frame_{number}{suffix}")
    return folder


def test_a_folder_is_a_video_in_natural_order(tmp_path):
    folder = write_folder(tmp_path / "walk")
    (folder / "notes.txt").write_text("no frame")
    (folder / ".thumbnail.png").write_bytes(b"no image")
    with FramesDecoder.open(folder) as video:
        assert video.num_frames == 12 and video.fps == pytest.approx(30.0)
        frames = video.frames_at([11, 0, 1, 1])
    assert torch.equal(frames.permute(0, 2, 3, 1), torch.from_numpy(moving_frames(12)[[11, 0, 1, 1]]))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".PNG", ".webp", ".bmp"])
def test_kinds_of_images(tmp_path, suffix):
    with FramesDecoder.open(write_folder(tmp_path / "f", 3, suffix)) as video:
        difference = (
            video.frames_at([2])[0].permute(1, 2, 0).int() - torch.from_numpy(moving_frames(3)[2]).int()
        )
    assert difference.abs().float().mean() < 6  # jpeg and webp lose a little


def test_the_folder_name_may_tell_the_rate(tmp_path):
    folder = write_folder(tmp_path / "walk@12.5fps")
    with FramesDecoder.open(folder) as video:
        assert video.fps == pytest.approx(12.5)
    np.testing.assert_allclose(read_clip(folder, num_frames=3, fps=6.25).timestamps, [0.0, 0.16, 0.32])
    with pytest.raises(DecodeError, match="0 frames per second; end it with the true rate, as in @12.5fps"):
        FramesDecoder.open(folder.rename(tmp_path / "walk@0fps"))


def test_an_image_is_a_video_of_one_frame(tmp_path):
    image = write_folder(tmp_path / "f") / "frame_3.png"
    clip = read_clip(image, num_frames=2, fps=None)
    assert clip.frames.shape == (2, 3, 64, 64) and torch.equal(clip.frames[0], clip.frames[1])
    with FramesDecoder.open(image) as video:
        assert video.num_frames == 1 and video.fps == 0.0


def one(path):
    with FramesDecoder.open(path) as video:
        return video.frames_at([0])[0].permute(1, 2, 0).numpy()


def test_every_kind_of_pixel_becomes_rgb(tmp_path):
    rgb = moving_frames(1)[0]
    grey = rgb[:, :, 0]
    path = tmp_path / "i.png"
    Image.fromarray(grey).save(path)
    assert (one(path) == grey[:, :, None]).all()
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)  # 16 bits
    assert (one(path) == grey[:, :, None]).all()
    Image.fromarray(np.dstack([rgb, grey])).save(path)  # alpha
    assert (one(path) == rgb).all()
    Image.fromarray(np.dstack([grey, grey])).save(path)
    assert (one(path) == grey[:, :, None]).all()
    Image.fromarray(rgb).quantize(16).save(path, transparency=bytes(range(16)))
    assert one(path).shape == (64, 64, 3)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "i.jpg", quality=95)
    assert np.abs(one(tmp_path / "i.jpg").astype(int) - rgb).mean() < 12


def test_the_camera_may_have_been_turned(tmp_path):
    rgb = moving_frames(1, height=40, width=60)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation tag: to be shown a quarter turn clockwise
    Image.fromarray(rgb).save(tmp_path / "i.png", exif=exif)
    assert (one(tmp_path / "i.png") == np.rot90(rgb, -1)).all()


def test_images_that_cannot_be_read_say_why(tmp_path):
    folder = write_folder(tmp_path / "f")
    cut, text, empty = folder / "frame_2.png", folder / "frame_3.png", folder / "frame_4.png"
    cut.write_bytes(cut.read_bytes()[:200])
    text.write_text("no image")
    empty.write_bytes(b"")
    Image.fromarray(moving_frames(1, width=80)[0]).save(folder / "frame_5.png")
    with FramesDecoder.open(folder) as video:
        for index, reason in (
            (1, r"frame_2.png is truncated or broken"),
            (2, r"frame_3.png is not an image that Pillow can read"),
            (4, r"changes size: frame_5.png is 80 x 64, frame_1.png is 64 x 64"),
        ):
            with pytest.raises(DecodeError, match=reason):
                video.frames_at([0, index])
    (tmp_path / "none").mkdir()
    (tmp_path / "v.mp4").write_bytes(b"no image")
    for path, reason in (
        (tmp_path / "none", "a folder without images; images end in .apng"),
        (tmp_path / "missing", "cannot be opened"),
        (tmp_path / "v.mp4", "neither a folder nor an image"),
        (empty, "the file is empty"),
    ):
        with pytest.raises(DecodeError, match=reason):
            FramesDecoder.open(path)


def test_auto_reads_folders_and_images_as_frames(tmp_path):
    folder = write_folder(tmp_path / "f")
    for path in (folder, folder / "frame_1.png"):
        with decoder_class("auto").open(path) as video:
            assert isinstance(video, FramesDecoder)
