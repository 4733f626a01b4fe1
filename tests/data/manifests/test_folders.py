import pytest

from vjepa.data import ManifestError, read_manifest
from vjepa.data.manifests.folders import numbered_without_gap


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def told(folder):
    manifest = read_manifest(folder)
    below = [row.path.removeprefix(str(folder) + "/").replace("\\", "/") for row in manifest.rows]
    return manifest.kind, below, [row.label for row in manifest.rows], manifest.label_names


def test_folder_of_images(tmp_path):
    touch(tmp_path, "2.jpg", "1.JPEG", ".hidden.jpg", "notes.txt")
    assert told(tmp_path) == ("folder of images", ["1.JPEG", "2.jpg"], [-1, -1], ())
    one = read_manifest(tmp_path / "2.jpg")
    assert one.kind == "one image" and one.rows[0].path == str(tmp_path / "2.jpg")


def test_what_is_not_read_of_a_folder_is_told(tmp_path, caplog):
    touch(
        tmp_path, "wave/a.mp4", "wave/b.ogv", "clap/c.mp4", "clap/c.jpg", "clap/c.XYZ", "notes.xyz", "README"
    )
    with caplog.at_level("INFO"):
        assert told(tmp_path)[1] == ["clap/c.mp4", "wave/a.mp4", "wave/b.ogv"]
    assert f"{tmp_path}: only the videos are read; not read: 2 .xyz, 1 no ending, 1 .jpg" in caplog.text


@pytest.mark.parametrize(
    ("names", "read", "left"),
    [
        (("a.mp4", "b.jpg", "more/c.mp4"), "videos", "1 .jpg, 1 folder beside them"),
        (("a.jpg", "b.txt", "more/c.mp4", "x/d.jpg"), "images", "1 .txt, 2 folders beside them"),
        (("wave/a.mp4", "wave/frames/1.jpg", "clap/b.png"), "videos", "1 .png, 1 folder beside them"),
    ],
)
def test_images_and_folders_beside_what_is_read_are_told(tmp_path, caplog, names, read, left):
    touch(tmp_path, *names)
    with caplog.at_level("INFO"):
        assert told(tmp_path)[1] == [names[0]]
    assert f"{tmp_path}: only the {read} are read; not read: {left}" in caplog.text


def test_a_link_to_nothing_is_told_and_can_be_deleted(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "b.mp4").symlink_to("elsewhere.mp4")
    with pytest.raises(ManifestError, match="b.mp4 is a link to a missing file. .* or delete the link"):
        read_manifest(tmp_path)
    (tmp_path / "b.mp4").unlink()
    assert told(tmp_path)[1] == ["a.mp4"]


def test_folder_of_frame_folders(tmp_path):
    touch(tmp_path, "v2/img_00001.jpg", "v2/img_00002.jpg", "v1/000.png", "v1/001.png", "v3/7.png")
    assert told(tmp_path) == ("folder of frame folders", ["v1", "v2", "v3"], [-1, -1, -1], ())


def test_class_folders_of_images(tmp_path):
    touch(tmp_path, "n01/n01_17.JPEG", "n01/n01_10026.JPEG", "n02/n02_3.JPEG", "n02/n02_9.JPEG")
    kind, below, labels, names = told(tmp_path)
    assert kind == "class folders of images" and names == ("n01", "n02") and labels == [0, 0, 1, 1]
    assert below[0] == "n01/n01_10026.JPEG"


def test_class_folders_of_frame_folders(tmp_path):
    touch(tmp_path, "wave/v1/1.jpg", "wave/v1/2.jpg", "clap/v2/1.jpg")
    assert told(tmp_path) == (
        "class folders of frame folders",
        ["clap/v2", "wave/v1"],
        [0, 1],
        ("clap", "wave"),
    )


def test_mixed_folders_are_no_guess(tmp_path):
    touch(tmp_path, "video/1.jpg", "video/2.jpg", "things/1.jpg", "things/9.jpg")
    with pytest.raises(ManifestError, match=r"images in video/ are numbered .* those in things/ are not"):
        read_manifest(tmp_path)
    (tmp_path / "m.csv").write_text("path\nvideo\nthings/1.jpg\n")
    assert len(read_manifest(tmp_path / "m.csv")) == 2


def test_numbers_follow_each_other():
    assert numbered_without_gap(["frame_10.jpg", "frame_9.jpg"])
    assert not numbered_without_gap(["frame_9.jpg", "frame_11.jpg"])
    assert not numbered_without_gap(["frame_9.jpg", "cover.jpg"])
