import json
import logging
import tarfile

import pytest

from tests.videos import write_video, write_videos
from vjepa.data import ManifestError, read_manifest
from vjepa.errors import FileError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, 3, num_frames=2, height=16, width=16)
    write_video(folder / "with space, comma.mp4", num_frames=2, height=16, width=16)
    return folder


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("label", ["1610612736", "99999999999999999999999"])
def test_an_identifier_as_label_is_refused_before_it_fills_the_memory(folder, label):
    source = write(folder, "ids.csv", f"path,label\nclip_000.mp4,{label}\nclip_001.mp4,1\n")
    with pytest.raises(ManifestError, match=f"ids.csv: label {label}: .* write a letter before each"):
        read_manifest(source)
    source = write(folder, "ids.csv", f"path,label\nclip_000.mp4,c{label}\nclip_001.mp4,c1\n")
    assert [row.label for row in read_manifest(source).rows] == [1, 0]


def test_integers_that_pandas_wrote_as_fractions_are_integers(folder):
    text = "path,label\nclip_000.mp4,10.0\nclip_001.mp4,2.0\nclip_002.mp4,\n"
    source = write(folder, "pandas.csv", text)
    assert [row.label for row in read_manifest(source).rows] == [10, 2, -1]
    source = write(folder, "kinds.csv", "path,label\nclip_000.mp4,0.5\nclip_001.mp4,2.0\n")
    assert read_manifest(source).label_names == ("0.5", "2.0")


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("start", "nan", "start 'nan' is not a number. Give a number"),
        ("end", "inf", "end 'inf' is not a number. Give a number"),
        ("weight", "NaN", "weight 'NaN' is not a number. Give a number, or leave the cell empty"),
        ("start", "-1", "start -1 is negative. Give seconds from the start"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(folder, column, text, reason):
    source = write(folder, "numbers.csv", f"path,{column}\nclip_000.mp4,\nclip_001.mp4,{text}\n")
    with pytest.raises(ManifestError, match=f"numbers.csv:3: {reason}"):
        read_manifest(source)


def test_two_columns_of_one_name_are_refused(folder):
    source = write(folder, "twice.csv", "path,label,label\nclip_000.mp4,1,2\n")
    with pytest.raises(ManifestError, match="two columns are named 'label'. Rename one"):
        read_manifest(source)


def test_a_folder_behind_a_url_is_refused():
    with pytest.raises(ManifestError, match="a folder behind a URL cannot be listed. Give a manifest file"):
        read_manifest("http://127.0.0.1:1/videos/")


def test_csv_with_header(folder):
    text = (
        "path,label,start,end,group,weight,event\n"
        "clip_000.mp4,walk,0.5,2,a,2.5,bounce\n\n"
        '"with space, comma.mp4",run,,,b,,fall\n'
        "clip_001.mp4,,,,,,bounce\n"
    )
    source = write(folder, "headed.csv", text)
    manifest = read_manifest(source)
    assert manifest.describe() == f"3 clips, 2 classes, from csv {source}"
    assert manifest.label_names == ("run", "walk")
    first, second, third = manifest.rows
    assert (first.label, first.start, first.end, first.group, first.weight, first.line) == (
        1,
        0.5,
        2.0,
        "a",
        2.5,
        2,
    )
    assert second.path == str(folder / "with space, comma.mp4") and second.line == 4
    assert (third.label, third.start, third.weight) == (-1, None, 1.0)
    assert read_manifest(source, label_column="event").label_names == ("bounce", "fall")
    with pytest.raises(ManifestError, match="no column 'action'.*It has: path, label, start"):
        read_manifest(source, label_column="action")


def test_integers_stand_for_themselves(folder):
    manifest = read_manifest(write(folder, "ids.csv", "path,label\nclip_000.mp4,3\nclip_001.mp4,0\n"))
    assert [r.label for r in manifest.rows] == [3, 0] and manifest.label_names == ("0", "1", "2", "3")


def test_jsonl(folder):
    lines = [{"path": "clip_000.mp4", "label": 2, "start": 0.5}, {"path": "clip_001.mp4", "label": None}]
    manifest = read_manifest(write(folder, "m.jsonl", "\n".join(map(json.dumps, lines))))
    assert manifest.kind == "jsonl" and [r.label for r in manifest.rows] == [2, -1]
    assert manifest.rows[0].start == 0.5
    with pytest.raises(FileError, match=r"bad.jsonl:2: not JSON"):
        read_manifest(write(folder, "bad.jsonl", '{"path": "clip_000.mp4"}\n{"path": \n'))
    with pytest.raises(ManifestError, match=r'nopath.jsonl:1: missing "path"'):
        read_manifest(write(folder, "nopath.jsonl", '{"label": 1}\n'))


def test_meta_headerless_list(folder):
    source = write(folder, "k400.csv", "clip_000.mp4 7\nwith space, comma.mp4 0\nclip_001.mp4::3\n")
    manifest = read_manifest(source)
    assert manifest.kind == "path-label list"
    assert [r.label for r in manifest.rows] == [7, 0, 3]
    with pytest.raises(ManifestError, match=r"ragged.txt:2: 'clip_001.mp4' is not `path label`"):
        read_manifest(write(folder, "ragged.txt", "clip_000.mp4 1\nclip_001.mp4\n"))


def test_folders_and_one_video(folder, tmp_path):
    write_videos(tmp_path / "wave", 2, num_frames=2, height=16, width=16)
    write_videos(tmp_path / "clap", 1, num_frames=2, height=16, width=16)
    classes = read_manifest(tmp_path)
    assert classes.describe() == f"3 clips, 2 classes, from class folders {tmp_path}"
    assert [(r.label, r.path.rsplit("/", 2)[1]) for r in classes.rows] == [
        (0, "clap"),
        (1, "wave"),
        (1, "wave"),
    ]
    flat = read_manifest(tmp_path / "wave")
    assert flat.kind == "flat folder" and [r.label for r in flat.rows] == [-1, -1] and flat.label_names == ()
    one = read_manifest(folder / "clip_000.mp4")
    assert one.describe() == f"1 clip, no labels, from one video {folder / 'clip_000.mp4'}"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no videos or images here or up to two folders down"):
        read_manifest(tmp_path / "empty")


def test_root_home_and_split(folder, tmp_path, monkeypatch):
    text = "path,split\nclip_000.mp4,train\nclip_001.mp4,val\n"
    source = write(tmp_path, "m.csv", text)
    with pytest.raises(ManifestError, match=r"m.csv:2: clip_000.mp4: no such file below .*--data.root"):
        read_manifest(source)
    manifest = read_manifest(source, root=folder, split="val")
    assert [r.path for r in manifest.rows] == [str(folder / "clip_001.mp4")]
    with pytest.raises(ManifestError, match="no videos found of split 'test'"):
        read_manifest(source, root=folder, split="test")
    with pytest.raises(ManifestError, match="no column 'split'"):
        read_manifest(write(folder, "nosplit.csv", "path\nclip_000.mp4\n"), split="val")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    assert len(read_manifest(write(tmp_path, "home.csv", "path\n~/clip_000.mp4\n"))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nclip_000.mp4,1\n", r"x.csv:1: missing column 'path'; found file, label"),
        ("path,label\nclip_000.mp4,1\nclip_001.mp4\n", r"x.csv:3: 1 cells, the header has 2 \(path, label\)"),
        ("path,label\n", "x.csv: no videos found"),
        ("", "x.csv: the manifest is empty"),
        ("path,label\n,1\n", "x.csv:2: the path is empty"),
        ("path,start\nclip_000.mp4,soon\n", "x.csv:2: start 'soon' is not a number"),
        ("path,start,end\nclip_000.mp4,5,2\n", "x.csv:2: end 2 is not after start 5"),
        ("path,label\nclip_000.mp4,-3\n", "x.csv:2: label -3 is negative. Leave the cell empty"),
        ("path;label\nclip_000.mp4;1\n", "x.csv:1: missing column 'path'; .*with commas between"),
        ("path,label\nclip_000.mp4,1\ngone.mp4,1\n", "x.csv:3: gone.mp4: no such file below"),
    ],
)
def test_errors_carry_file_and_line(folder, text, message):
    with pytest.raises(ManifestError, match=message) as error:
        read_manifest(write(folder, "x.csv", text))
    assert "\n" not in str(error.value)


def test_no_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(ManifestError, match="no such manifest, folder or video. Make it: .*README.md"):
        read_manifest(tmp_path / "k400.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ManifestError, match="neither UTF-8 text nor a known video"):
        read_manifest(binary)


def test_validation_labels_follow_training(folder):
    train = read_manifest(write(folder, "t.csv", "path,label\nclip_000.mp4,walk\nclip_001.mp4,run\n"))
    val_file = write(folder, "v.csv", "path,label\nclip_002.mp4,walk\n")
    assert read_manifest(val_file, label_names=train.label_names).rows[0].label == 1
    assert read_manifest(val_file).rows[0].label == 0
    with pytest.raises(ManifestError, match="o.csv:2: label 'swim' is not among the known labels run, walk"):
        read_manifest(
            write(folder, "o.csv", "path,label\nclip_002.mp4,swim\n"), label_names=train.label_names
        )


def test_a_tar_is_read_where_its_listing_cannot_be_cached(tmp_path, monkeypatch, caplog):
    video = write_video(tmp_path / "a.mp4", num_frames=2, height=16, width=16)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(video, "a.mp4")
    (tmp_path / ".cache").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert len(read_manifest(str(tmp_path / "a.tar"))) == 1
    assert "not listed for the next time" in caplog.text


def test_only_a_leading_tilde_and_slash_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/a.mp4", "clips/~/a.mp4", "clips/~a/~b.mp4", "~c.mp4"):
        write_video(tmp_path / name, num_frames=2, height=16, width=16)
    classes = read_manifest(tmp_path / "clips")
    assert [row.path for row in classes.rows] == [
        str(tmp_path / "clips" / n) for n in ("~/a.mp4", "~a/~b.mp4")
    ]
    (tmp_path / "m.csv").write_text("path\n~/a.mp4\n~c.mp4\n")
    listed = [row.path for row in read_manifest(tmp_path / "m.csv").rows]
    assert listed == [str(tmp_path / "home" / "a.mp4"), str(tmp_path / "~c.mp4")]
    monkeypatch.chdir(tmp_path)
    assert read_manifest("~c.mp4").rows[0].path.endswith("~c.mp4")
