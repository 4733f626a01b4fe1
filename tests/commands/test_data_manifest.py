import csv
import json

import pytest

from tests.given import trees
from tests.videos import write_video
from vjepa.commands.app import main
from vjepa.commands.data_manifest import BUILDERS, manifest_command
from vjepa.data import ManifestError, VideoClips, read_manifest
from vjepa.data.sampling import ClipSampler
from vjepa.data.transforms.video import EvalTransform
from vjepa.errors import FileError


def rows(file):
    with file.open(newline="", encoding="utf-8") as opened:
        return [tuple(row) for row in csv.reader(opened)]


# data set: found and annotated, labels.csv, missing.csv, and the manifests line by line
EXPECTED = {
    "k400": (
        (3, 4),
        ["abseiling", "air drumming", "texting, fast"],
        [("train", "-gone_000070_000080", "abseiling")],
        {
            "train": [
                ("path", "label", "group"),
                ("train/abc_000003_000013.mp4", "air drumming", "abc"),
            ],
            "val": [
                ("path", "label", "group"),
                ("val/d_f_000000_000010.mp4", "air drumming", "d_f"),
                ("val/texting/abc2_000005_000015.mkv", "texting, fast", "abc2"),
            ],
        },
    ),
    "k710": (
        (4, 5),
        ["a", "b", "c"],
        [("train", "gone_000000_000010", "c")],
        {
            "train": [
                ("path", "label", "group"),
                ("k/one_000000_000010.mp4", "a", "one"),
                ("k/three_000000_000010.mp4", "c", "three"),
            ],
            "val": [
                ("path", "label", "group"),
                ("k/two_000000_000010.mp4", "a", "two"),
                ("k/held_000020_000030.mp4", "b", "held"),
            ],
        },
    ),
    "ssv2": (
        (3, 4),
        ["Pushing something left", "Holding something"],
        [("train", "8", "Holding something")],
        {
            "train": [
                ("path", "label", "group"),
                ("20bn-something-something-v2/7.webm", "Pushing something left", "7"),
            ],
            "val": [
                ("path", "label", "group"),
                ("20bn-something-something-v2/9.webm", "Pushing something left", "9"),
            ],
            "test": [("path", "group"), ("v/11.webm", "11")],
        },
    ),
    "jester": (
        (3, 4),
        ["Swiping Left", "Doing other things"],
        [("train", "56557", "Doing other things")],
        {
            "train": [("path", "label", "group"), ("20bn-jester-v1/34870", "Swiping Left", "34870")],
            "val": [("path", "label", "group"), ("20bn-jester-v1/9", "Swiping Left", "9")],
            "test": [("path", "group"), ("20bn-jester-v1/10", "10")],
        },
    ),
    "diving48": (
        (2, 3),
        ["Back 15som 05Twis FREE", "Forward 25som NoTwis PIKE"],
        [("train", "gone_00000", "Back 15som 05Twis FREE")],
        {
            "train": [("path", "label", "group"), ("rgb/a_b_00001.mp4", "Forward 25som NoTwis PIKE", "a_b")],
            "test": [("path", "label", "group"), ("rgb/c_00002.mp4", "Back 15som 05Twis FREE", "c")],
        },
    ),
    "coin": (
        (2, 3),
        ["ArcWeld", "BoilEggs"],
        [("train", "v3", "BoilEggs")],
        {
            "train": [("path", "label", "group"), ("videos/0/v1.mp4", "ArcWeld", "v1")],
            "test": [("path", "label", "group"), ("videos/0/v2.mp4", "ArcWeld", "v2")],
        },
    ),
    "coin-steps": (
        (3, 4),
        ["fix it"],
        [("train", "v3", "fix it")],
        {
            "train": [
                ("path", "label", "start", "end", "group", "task"),
                ("videos/0/v1.mp4", "fix it", "12.5", "20", "v1", "ArcWeld"),
                ("videos/0/v1.mp4", "fix it", "30", "31", "v1", "ArcWeld"),
            ],
            "test": [
                ("path", "label", "start", "end", "group", "task"),
                ("videos/0/v2.mp4", "fix it", "12.5", "20", "v2", "ArcWeld"),
            ],
        },
    ),
    "ek100": (
        (3, 4),
        ["open 1", "take 1", "take 9"],
        [("train", "P02_01", "take 9")],
        {
            "train": [
                ("path", "label", "start", "end", "group", "verb", "noun", "participant", "id"),
                ("P01/videos/P01_01.MP4", "open 1", "0.14", "3.37", "P01_01", "open", "1", "P01", "P01_01_0"),
            ],
            "val": [
                ("path", "label", "start", "end", "group", "verb", "noun", "participant", "id"),
                ("P01/videos/P01_11.MP4", "take 1", "0", "3", "P01_11", "take", "1", "P01", "P01_11_0"),
            ],
            "test": [
                ("path", "start", "end", "group", "participant", "id"),
                ("P01/videos/P01_12.MP4", "1", "2", "P01_12", "P01", "P01_12_0"),
            ],
        },
    ),
    "in1k": (
        (3, 4),
        ["n01440764", "n01443537"],
        [("val", "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG", "n01440764")],
        {
            "train": [
                ("path", "label", "name"),
                (
                    "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG",
                    "n01440764",
                    "tench, Tinca tinca",
                ),
                ("ILSVRC/Data/CLS-LOC/train/n09999999/n09999999_1.JPEG", "n09999999", ""),
            ],
            "val": [
                ("path", "label", "name"),
                ("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", "n01443537", "goldfish"),
            ],
        },
    ),
    "ucf101": (
        (2, 3),
        ["ApplyEyeMakeup", "HandstandPushups"],
        [("train", "v_HandStandPushups_g09_c02", "HandstandPushups")],
        {
            "train": [
                ("path", "label", "group"),
                (
                    "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
                    "ApplyEyeMakeup",
                    "ApplyEyeMakeup_g08",
                ),
            ],
            "test": [
                ("path", "label", "group"),
                (
                    "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
                    "ApplyEyeMakeup",
                    "ApplyEyeMakeup_g01",
                ),
            ],
        },
    ),
    "hmdb51": (
        (2, 4),
        ["brush_hair", "wave"],
        [
            ("train", "Gone_brush_hair_u_nm_np1_ba_goo_0", "brush_hair"),
            ("train", "x_wave_f_cm_np1_ba_med_1", "wave"),
        ],
        {
            "train": [
                ("path", "label", "group"),
                ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair", "April_09"),
            ],
            "test": [
                ("path", "label", "group"),
                ("brush_hair/Aussie_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair", "Aussie"),
            ],
        },
    ),
    "intphys": (
        (4, 5),
        ["impossible", "possible"],
        [("val", "dev/O1/01/4/scene", "possible")],
        {
            "val": [
                ("path", "label", "group", "pair", "property"),
                ("dev/O1/01/1/scene", "impossible", "dev/O1/01", "dev/O1/01", "O1"),
                ("dev/O1/01/2/scene", "possible", "dev/O1/01", "dev/O1/01", "O1"),
                ("dev/O1/01/3/scene", "impossible", "dev/O1/01", "dev/O1/01", "O1"),
            ],
            "test": [
                ("path", "group", "pair", "property"),
                ("test/O3/0001/1/scene", "test/O3/0001", "test/O3/0001", "O3"),
            ],
        },
    ),
    "grasp": (
        (4, 5),
        ["impossible", "possible"],
        [("val", "videos/IP_Gravity/1.mp4", "impossible")],
        {
            "val": [
                ("path", "label", "group", "pair", "property"),
                ("videos/P_Gravity/0.mp4", "possible", "Gravity/0", "Gravity/0", "Gravity"),
                ("videos/IP_Gravity/0.mp4", "impossible", "Gravity/0", "Gravity/0", "Gravity"),
                ("videos/P_Gravity/1.mp4", "possible", "Gravity/1", "Gravity/1", "Gravity"),
                (
                    "videos/P_ObjectPermanence2/5.mp4",
                    "possible",
                    "ObjectPermanence2",
                    "",
                    "ObjectPermanence2",
                ),
            ],
        },
    ),
    "inflevel": (
        (3, 4),
        ["impossible", "possible"],
        [("val", "c/gone.mp4", "possible")],
        {
            "val": [
                ("path", "label", "group", "pair", "property", "end_priming_frame"),
                ("c/a.mp4", "possible", "continuity/1", "continuity/1", "continuity", "10"),
                ("c/b.mp4", "impossible", "continuity/1", "continuity/1", "continuity", "12"),
                ("c/a.mp4", "impossible", "continuity/2", "continuity/2", "continuity", "10"),
            ],
        },
    ),
}
ANNOTATIONS = {"k710": "annotations"}


def build(dataset, root, out, **options):
    if dataset in ANNOTATIONS:
        options["annotations"] = root / ANNOTATIONS[dataset]
    return manifest_command(dataset=dataset, root=root, out=out, **options)


@pytest.mark.parametrize("dataset", EXPECTED)
def test_manifests_of_every_layout(dataset, tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    getattr(trees, dataset.partition("-")[0])(root)
    report = build(dataset, root, out)
    (found, annotated), labels, missing, splits = EXPECTED[dataset]
    assert (report.figures["num_found"], report.figures["num_annotated"]) == (found, annotated)
    assert report.figures["num_missing"] == len(missing)
    assert rows(out / "labels.csv")[1:] == [(str(i), label) for i, label in enumerate(labels)]
    assert rows(out / "missing.csv")[1:] == missing
    for split in ("train", "val", "test"):
        assert (out / f"{split}.csv").exists() == (split in splits)
        if split in splits:
            assert rows(out / f"{split}.csv") == splits[split]
            manifest = read_manifest(out / f"{split}.csv", root=root)
            assert [row.pair for row in manifest.rows] == [
                dict(zip(splits[split][0], row, strict=True)).get("pair", "") for row in splits[split][1:]
            ]
    assert sum(row["found"] for row in report.rows) == found


def test_every_dataset_has_a_tree():
    assert set(BUILDERS) == set(EXPECTED) | {"k600", "k700"}
    assert BUILDERS["k600"] is BUILDERS["k700"] is BUILDERS["k400"]


def test_unknown_labels_are_told(tmp_path):
    trees.in1k(tmp_path / "in1k")
    assert build("in1k", tmp_path / "in1k", tmp_path).figures["unknown_labels"] == ["n09999999"]
    trees.k400(tmp_path / "k400")
    assert build("k400", tmp_path / "k400", tmp_path).figures["unknown_labels"] == ["texting, fast"]


def test_k710_leaves_out_what_any_part_holds_out(tmp_path):
    trees.k710(tmp_path / "root")
    figures = build("k710", tmp_path / "root", tmp_path).figures
    assert (figures["num_train_left_out_as_held_out"], figures["num_repeated"]) == (1, 1)


def test_fold_chooses_the_official_split(tmp_path):
    trees.ucf101(tmp_path / "ucf")
    build("ucf101", tmp_path / "ucf", tmp_path, fold=2)
    assert "g01_c01" in rows(tmp_path / "train.csv")[1][0] and "g08_c01" in rows(tmp_path / "test.csv")[1][0]
    trees.hmdb51(tmp_path / "hmdb")
    assert build("hmdb51", tmp_path / "hmdb", tmp_path, fold=2).figures["num_annotated"] == 1


def test_annotations_may_lie_elsewhere_and_be_one_file(tmp_path):
    trees.coin(tmp_path / "root")
    (tmp_path / "root/COIN.json").rename(tmp_path / "other.json")
    with pytest.raises(ManifestError, match=r"none of COIN.json, coin.json here .*--annotations DIR"):
        build("coin", tmp_path / "root", tmp_path)
    assert build("coin", tmp_path / "root", tmp_path, annotations=tmp_path / "other.json").rows
    trees.ssv2(tmp_path / "ssv2")
    with pytest.raises(ManifestError, match="several annotation files. Give their folder"):
        build("ssv2", tmp_path / "ssv2", tmp_path, annotations=tmp_path / "ssv2/labels/train.json")
    assert build("ssv2", tmp_path / "ssv2", tmp_path, annotations=tmp_path / "ssv2/labels").rows


WRONG = [
    (
        "k400",
        "annotations/val.csv",
        "label,id\na,b\n",
        r"val.csv:1: missing column 'youtube_id'; found label, id",
    ),
    (
        "k400",
        "annotations/val.csv",
        trees.KINETICS + "a,b,x,2,val\n",
        "val.csv:2: time_start 'x' is not a number",
    ),
    (
        "k400",
        "annotations/val.csv",
        trees.KINETICS + "a,b,1,2,dev\n",
        "val.csv:2: split 'dev' is not one of train,",
    ),
    ("k400", "annotations/val.csv", trees.KINETICS + "a,b\n", "val.csv:2: fewer cells than the header's 5"),
    ("ssv2", "labels/train.json", "[{", r"train.json:1:3: not JSON"),
    ("ssv2", "labels/train.json", [{"template": "x"}], "train.json: entry 0: no 'id'"),
    ("jester", "labels/jester-v1-train.csv", "5;a\n34870 a\n", "train.csv:2: '34870 a' is not `id;label`"),
    ("diving48", "Diving48_V2_test.json", [{"vid_name": "c", "label": 7}], "label 7 is not among the 2 of"),
    ("coin", "COIN.json", {"videos": {}}, "COIN.json: the file: no 'database'"),
    ("coin", "COIN.json", {"database": {"v": {"class": "a", "subset": "x"}}}, "split 'x' is not one of"),
    (
        "ucf101",
        "ucfTrainTestlist/testlist01.txt",
        "clip.avi\n",
        "testlist01.txt:1: 'clip.avi' is not `Class/v_",
    ),
    (
        "hmdb51",
        "splits/wave_test_split1.txt",
        "a.avi 4\n",
        "split1.txt:1: 'a.avi 4' is not `file.avi` and 0, 1",
    ),
    ("intphys", "dev/O1/01/1/status.json", {"header": {}}, "status.json: the header: no 'is_possible'"),
    (
        "inflevel",
        "lists/gravity.csv",
        "vid1_path,vid2_path,vid1_label,vid2_label\na,b,possible,possible\n",
        "gravity.csv:2: labels possible and possible, not one",
    ),
]


@pytest.mark.parametrize(("dataset", "file", "content", "message"), WRONG)
def test_a_wrong_annotation_is_named(dataset, file, content, message, tmp_path):
    getattr(trees, dataset)(tmp_path / "root")
    trees.write(tmp_path / "root" / file, content)
    with pytest.raises((ManifestError, FileError), match=message):
        build(dataset, tmp_path / "root", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_timestamp_of_epic_is_checked(tmp_path):
    trees.ek100(tmp_path)
    file = tmp_path / "EPIC_100_train.csv"
    file.write_text(file.read_text().replace("00:00:03.37", "3.37"))
    with pytest.raises(
        ManifestError, match=r"EPIC_100_train.csv:2: stop_timestamp '3.37' is not HH:MM:SS.ss"
    ):
        build("ek100", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("dataset", "looked_for"),
    [
        ("k400", "none of train.csv, train.txt, val.csv"),
        ("k710", "no folder k400 or kinetics400"),
        ("ssv2", "none of something-something-v2-train.json, train.json"),
        ("jester", "none of jester-v1-train.csv"),
        ("ek100", "none of EPIC_100_train.csv"),
        ("in1k", "no train/ here nor in ILSVRC/Data/CLS-LOC/"),
        ("intphys", "no scenes such as dev/O1/01/1/scene"),
        ("grasp", "no folders P_<Property> and IP_<Property>"),
        ("inflevel", "none of continuity.csv"),
    ],
)
def test_an_empty_folder_is_told_what_was_looked_for(dataset, looked_for, tmp_path):
    (tmp_path / "annotations").mkdir()
    with pytest.raises(ManifestError, match=looked_for):
        build(dataset, tmp_path, tmp_path / "out")


def test_validation_images_need_their_classes(tmp_path):
    trees.in1k(tmp_path)
    solution = tmp_path / "LOC_val_solution.csv"
    solution.rename(tmp_path / "ILSVRC" / "LOC_val_solution.csv")
    assert build("in1k", tmp_path, tmp_path / "out").figures["num_annotated"] == 4  # one floor down
    (tmp_path / "ILSVRC" / "LOC_val_solution.csv").unlink()
    with pytest.raises(ManifestError, match="neither class folders nor LOC_val_solution.csv"):
        build("in1k", tmp_path, tmp_path / "out")
    trees.touch(tmp_path, "ILSVRC/Data/CLS-LOC/val/n01440764/ILSVRC2012_val_00000002.JPEG")
    assert build("in1k", tmp_path, tmp_path / "out").figures["splits"]["val"]["found"] == 1


def test_nothing_found_or_no_folder_is_an_error(tmp_path):
    trees.k400(tmp_path / "k400")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ManifestError, match=r"none of the 4 annotated clips .*abc_000003_000013\). Correct --root"
    ):
        build("k400", tmp_path / "empty", tmp_path, annotations=tmp_path / "k400")
    with pytest.raises(ManifestError, match="no such folder. Give the one"):
        build("k400", tmp_path / "nowhere", tmp_path)


def test_command_to_clips(tmp_path, monkeypatch, capsys):
    trees.k400(tmp_path / "k400")
    write_video(tmp_path / "k400/train/abc_000003_000013.mp4", num_frames=8, height=16, width=16)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "manifest", "--dataset", "k400", "--root", "k400", "--out", "made"]) == 0
    assert "3 of 4 annotated clips found" in capsys.readouterr().out
    assert json.loads((tmp_path / "made/result.json").read_text())["num_missing"] == 1
    manifest = read_manifest("made/train.csv", root="k400")
    clips = VideoClips(
        manifest, sampler=ClipSampler(num_frames=4, fps=None), transform=EvalTransform(size=16)
    )
    assert clips[0].video is not None and clips[0].video.shape == (3, 4, 16, 16)
