"""Imitations of the public data sets' trees, each with a clip whose file is missing."""

import json
from pathlib import Path


def touch(root: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(file: Path, content: object) -> None:
    """Text as it is, anything else as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


KINETICS = "label,youtube_id,time_start,time_end,split\n"


def k400(root):
    write(
        root / "annotations/train.csv",
        KINETICS + "air drumming,abc,3,13,train\nabseiling,-gone,70,80,train\n",
    )
    write(
        root / "annotations/val.csv", KINETICS + 'air drumming,d_f,0,10,val\n"texting, fast",abc2,5,15,val\n'
    )
    touch(
        root, "train/abc_000003_000013.mp4", "val/d_f_000000_000010.mp4", "val/texting/abc2_000005_000015.mkv"
    )


def k710(root):
    write(root / "annotations/k400/train.csv", KINETICS + "a,one,0,10,train\nb,held,0,10,train\n")
    write(root / "annotations/k400/val.csv", KINETICS + "a,two,0,10,val\n")
    write(root / "annotations/kinetics600/train.csv", KINETICS + "a,one,0,10,train\nc,three,0,10,train\n")
    write(root / "annotations/kinetics600/validate.csv", KINETICS + "b,held,20,30,validate\n")
    write(root / "annotations/k700/train.csv", KINETICS + "c,gone,0,10,train\n")
    names = ("one_000000_000010", "held_000000_000010", "two_000000_000010", "three_000000_000010")
    touch(root, *(f"k/{name}.mp4" for name in (*names, "held_000020_000030")))


def ssv2(root):
    push, hold = "Pushing [something] left", "Holding [something]"
    write(root / "labels/labels.json", {"Holding something": "1", "Pushing something left": "0"})
    write(root / "labels/train.json", [{"id": "7", "template": push}, {"id": "8", "template": hold}])
    write(root / "labels/validation.json", [{"id": "9", "template": push}])
    write(root / "labels/test.json", [{"id": "11"}])
    touch(root, "20bn-something-something-v2/7.webm", "20bn-something-something-v2/9.webm", "v/11.webm")


def jester(root):
    write(root / "labels/jester-v1-labels.csv", "Swiping Left\nDoing other things\n")
    write(root / "labels/jester-v1-train.csv", "34870;Swiping Left\n56557;Doing other things\n")
    write(root / "labels/jester-v1-validation.csv", "9;Swiping Left\n")
    write(root / "labels/jester-v1-test.csv", "10\n")
    touch(root, *(f"20bn-jester-v1/{name}/0000{i}.jpg" for name in (34870, 9, 10) for i in (1, 2)))


def diving48(root):
    write(
        root / "Diving48_vocab.json",
        [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]],
    )
    entry = {"start_frame": 0, "end_frame": 99}
    train = [{"vid_name": "a_b_00001", "label": 1, **entry}, {"vid_name": "gone_00000", "label": 0, **entry}]
    write(root / "Diving48_V2_train.json", train)
    write(root / "Diving48_V2_test.json", [{"vid_name": "c_00002", "label": 0, **entry}])
    touch(root, "rgb/a_b_00001.mp4", "rgb/c_00002.mp4")


def coin(root):
    step = {"id": "1", "segment": [12.5, 20.0], "label": "fix it"}
    entries = {
        "v1": {"class": "ArcWeld", "subset": "training", "annotation": [step, {**step, "segment": [30, 31]}]},
        "v2": {"class": "ArcWeld", "subset": "testing", "annotation": [step]},
        "v3": {"class": "BoilEggs", "subset": "training", "annotation": [step]},
    }
    write(root / "COIN.json", {"database": entries})
    touch(root, "videos/0/v1.mp4", "videos/0/v2.mp4")


def ek100(root):
    header = (
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
        "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
    )
    row = "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,1,['door'],[3]\n"
    late = 'P02_01_1,P02,P02_01,01:00:00.0,01:00:00.25,01:00:01.5,8,9,"take, cup",take,0,cup,9,[],[]\n'
    val = "P01_11_0,P01,P01_11,00:00:01.0,00:00:00.00,00:00:03.00,0,5,take door,take,0,door,1,[],[]\n"
    write(root / "EPIC_100_train.csv", header + row + late)
    write(root / "EPIC_100_validation.csv", header + val)
    write(
        root / "EPIC_100_test_timestamps.csv",
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
        "start_frame,stop_frame\nP01_12_0,P01,P01_12,00:00:01.0,00:00:01.00,00:00:02.00,0,5\n",
    )
    write(
        root / "EPIC_100_verb_classes.csv",
        "id,key,instances,category\n0,take,['take'],retrieve\n3,open,[],x\n",
    )
    touch(root, *(f"P01/videos/{name}.MP4" for name in ("P01_01", "P01_11", "P01_12")))


def in1k(root):
    write(root / "LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    base = "ILSVRC/Data/CLS-LOC"
    touch(root, f"{base}/train/n01440764/n01440764_10026.JPEG", f"{base}/train/n09999999/n09999999_1.JPEG")
    touch(root, f"{base}/val/ILSVRC2012_val_00000001.JPEG")
    write(
        root / "LOC_val_solution.csv",
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n01443537 1 2 3 4\n"
        "ILSVRC2012_val_00000002,n01440764 1 2 3 4 n01440764 5 6 7 8\n",
    )


def ucf101(root):
    lists = root / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 ApplyEyeMakeup\n2 HandstandPushups\n")
    write(
        lists / "trainlist01.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nHandstandPushups/v_HandStandPushups_g09_c02.avi 2\n",
    )
    write(lists / "testlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n")
    write(lists / "trainlist02.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\n")
    write(lists / "testlist02.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\n")
    folder = "UCF-101/ApplyEyeMakeup"
    touch(root, f"{folder}/v_ApplyEyeMakeup_g08_c01.avi", f"{folder}/v_ApplyEyeMakeup_g01_c01.avi")


def hmdb51(root):
    stem = "{}_brush_hair_u_nm_np1_ba_goo_0.avi"
    lines = [
        f"{stem.format(film)} {use} "
        for film, use in (("April_09", 1), ("Aussie", 2), ("Gone", 1), ("No", 0))
    ]
    write(root / "splits/brush_hair_test_split1.txt", "\n".join(lines))
    write(root / "splits/brush_hair_test_split2.txt", "\n".join(lines[::3]))
    write(root / "splits/wave_test_split1.txt", "x_wave_f_cm_np1_ba_med_1.avi 1\n")
    touch(root, *(f"brush_hair/{stem.format(film)}" for film in ("April_09", "Aussie", "No")))


def intphys(root):
    for video in range(1, 5):
        write(root / f"dev/O1/01/{video}/status.json", {"header": {"is_possible": video % 2 == 0}})
        if video < 4:
            touch(root, f"dev/O1/01/{video}/scene/scene_001.png", f"dev/O1/01/{video}/depth/depth_001.png")
    touch(root, "test/O3/0001/1/scene/scene_001.png")


def grasp(root):
    touch(root, "videos/P_Gravity/0.mp4", "videos/IP_Gravity/0.mp4", "videos/P_Gravity/1.mp4")
    touch(root, "videos/P_ObjectPermanence2/5.mp4")
    (root / "videos/IP_Gravity").mkdir(exist_ok=True)


def inflevel(root):
    header = "vid1_path,vid2_path,vid1_label,vid2_label,vid1_end_priming_2,vid2_end_priming_2\n"
    write(
        root / "lists/continuity.csv",
        header + "c/a.mp4,c/b.mp4,possible,impossible,10,12\nc/a.mp4,c/gone.mp4,impossible,possible,10,9\n",
    )
    for topic in ("solidity", "gravity"):
        write(root / f"lists/{topic}.csv", header)
    touch(root, "c/a.mp4", "c/b.mp4")
