from pathlib import Path

from tests.given.trees import touch
from vjepa.data.datasets.base import AnnotatedClip, Tree


def test_a_name_that_comes_twice_is_taken_from_its_split(tmp_path):
    touch(tmp_path, "a/x.mp4", "train/x.webm", "validation/x.mp4", "b/y.mp4", "c/y.mp4")
    tree = Tree(tmp_path)
    assert tree.find(AnnotatedClip("train", "x")) == "train/x.webm"
    assert tree.find(AnnotatedClip("val", "x")) == "validation/x.mp4"
    assert tree.find(AnnotatedClip("test", "x")) == "a/x.mp4"
    assert tree.find(AnnotatedClip("train", "y")) == "b/y.mp4"
    assert tree.find(AnnotatedClip("train", "z")) is None
    assert tree.find(AnnotatedClip("train", "c/y.mp4")) == "c/y.mp4"
    assert tree.find(AnnotatedClip("train", "c/z.mp4")) is None


def test_frame_folders_and_images(tmp_path):
    touch(tmp_path, "v/12/00001.jpg", "v/12/00002.jpg", "notes/readme.txt")
    assert Tree(tmp_path).find(AnnotatedClip("train", "12")) == "v/12"
    assert Tree(tmp_path).find(AnnotatedClip("train", "00001")) is None
    assert Tree(tmp_path, images=True).find(AnnotatedClip("train", "00001")) == "v/12/00001.jpg"
    assert Tree(tmp_path).find(AnnotatedClip("train", "notes")) is None


def test_links_are_followed_and_loops_are_not(tmp_path):
    touch(tmp_path, "elsewhere/x.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "videos").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    assert Tree(tmp_path / "root").find(AnnotatedClip("train", "x")) == str(Path("videos/x.mp4"))
