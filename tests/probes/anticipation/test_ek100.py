"""The protocol of EPIC-KITCHENS-100 from a tree of videos and annotations to a probe and its recall."""

import json

import pytest
import torch

import vjepa
from tests.videos import write_video
from vjepa.commands.app import main
from vjepa.data.decoders.opening import open_video
from vjepa.data.loading.order import SampleKey
from vjepa.features import ClipSpec
from vjepa.models import Predictor, VideoEncoder
from vjepa.models.files import save_folder
from vjepa.probes import ActionIds, ActionScores, ProbeError
from vjepa.probes.anticipation.clips import AnticipationClips, AnticipationTask
from vjepa.probes.anticipation.ek100_annotations import EpicNames, read_split, video_files

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)


def annotation(*rows):
    cells = "{i},P01,{video},00:00:00.0,00:00:00.0,00:00:01.0,{start},{stop},n,v,{verb},n,{noun},[],[]\n"
    return HEADER + "".join(
        cells.format(i=i, **dict(zip(("video", "start", "stop", "verb", "noun"), row, strict=True)))
        for i, row in enumerate(rows)
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two videos, annotations with a missing video, a clip past the end and an unseen action, and networks."""
    folder = tmp_path_factory.mktemp("epic")
    for i, name in enumerate(("P01_01", "P01_02")):
        write_video(folder / f"P01/videos/{name}.MP4.mp4", num_frames=48, fps=16, seed=i).rename(
            folder / f"P01/videos/{name}.MP4"
        )
    train = [
        ("P01_01", 20, 40, 3, 1),
        ("P01_02", 24, 44, 0, 7),
        ("P01_01", 30, 44, 3, 7),
        ("P09_09", 5, 40, 0, 7),
    ]
    val = [
        ("P01_02", 20, 40, 3, 1),
        ("P01_02", 24, 44, 0, 7),
        ("P01_01", 20, 40, 0, 1),
        ("P01_01", 50, 90, 0, 7),
    ]
    (folder / "EPIC_100_train.csv").write_text(annotation(*train))
    (folder / "EPIC_100_validation.csv").write_text(annotation(*val))
    (folder / "EPIC_100_verb_classes.csv").write_text("id,key\n0,take\n3,open\n")
    (folder / "EPIC_100_noun_classes.csv").write_text("id,key\n1,door\n7,cup\n")
    torch.manual_seed(0)
    encoder = VideoEncoder(img_size=32, patch_size=16, num_frames=4, embed_dim=24, depth=1, num_heads=2)
    predictor = Predictor(24, embed_dim=24, depth=1, num_heads=2, mask_token_std=1.0)
    save_folder(folder / "model", encoder, predictor=predictor)
    return folder


def command(tree, out, *more):
    words = f"probe --protocol ek100 --encoder {tree}/model --train {tree}/EPIC_100_train.csv --out {out}"
    words += f" --val {tree}/EPIC_100_validation.csv --root {tree} --num_frames 4 --device cpu --batch_size 2"
    words += " --grid.num_heads 2 --grid.depth 2 --grid.batch_size 3 --lr 1e-2 1e-3 --weight_decay 1e-4"
    return main([*words.split(), *more])


def test_the_protocol_from_tree_to_recall(tree, tmp_path):
    assert command(tree, tmp_path, "--grid.num_steps", "3", "--precision", "bf16") == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["num_train"] == 4 and result["num_val"] == 3 and result["num_val_unseen_actions"] == 1
    assert result["num_classes"] == {"verb": 2, "noun": 2, "action": 3} and result["verb_recall5"] == 1.0
    assert result["random_init_action_recall5"] == 1.0 and len(result["heads"]) == 2
    reasons = {failure["path"]: failure["reason"] for failure in result["failures"]}
    assert set(reasons) == {"P09_09.MP4", str(tree / "P01/videos/P01_01.MP4")}
    assert "the video has 48" in reasons[str(tree / "P01/videos/P01_01.MP4")]
    recipe = result["recipe"]
    assert recipe["lr"] == [1e-2, 1e-3] and recipe["num_steps"] == 3 and recipe["relative_to"] == "stop"
    card = json.loads((tmp_path / "config.json").read_text())
    ids = ActionIds.of(read_split(tree / "EPIC_100_train.csv", video_files(tree)).actions)
    assert card["task_names"]["verb"] == [{0: "take", 3: "open"}[verb] for verb in ids.verbs]
    assert card["task_names"]["action"][ids.actions[0, 7]] == "take cup" and card["recipe"] == recipe
    scores = vjepa.load_probe(tmp_path)(torch.randn(1, 12, 24))
    assert isinstance(scores, ActionScores) and scores.action.shape == (1, 3)


def test_published_settings_are_the_default():
    plan = vjepa.probes.PROTOCOLS["ek100"]
    published = plan.settings(vjepa.probes.ProbeSettings(), 67217)
    assert (plan.num_frames, published.batch_size, published.depth, published.num_heads) == (32, 128, 4, 16)
    assert published.num_steps == 10503 and len(published.lr) * len(published.weight_decay) == 20
    assert published.weight_decay == (1e-4, 1e-3, 1e-2, 1e-1)


def test_training_learns_and_is_repeatable(tree, tmp_path):
    alone = ("--grid.num_steps", "2", "--random_init", "false")
    assert [command(tree, tmp_path / name, *alone) for name in "ab"] == [0, 0]
    assert command(tree, tmp_path / "c", *alone, "--anticipation.mask_token", "0") == 0
    assert command(tree, tmp_path / "d", *alone, "--anticipation.relative_to", "start") == 0
    assert command(tree, tmp_path / "e", *alone, "--seed", "1") == 0
    weights = {n: (tmp_path / n / "probe.safetensors").read_bytes() for n in "abcde"}
    assert weights["a"] == weights["b"] and len(set(weights.values())) == 4


def seconds(sample):
    return float(sample.extras[0]["seconds"])


def test_clips_end_before_the_action_and_training_draws(tree):
    split = read_split(tree / "EPIC_100_train.csv", video_files(tree))
    spec = ClipSpec(num_frames=4, fps=8.0, size=(32, 32))
    plain = AnticipationClips(split, AnticipationTask(spec), training=False)
    assert seconds(plain[0]) == 1.0 and plain[0].video.shape == (3, 4, 32, 32)
    with open_video(
        plain._opener, split.videos[0]
    ) as opened:  # action ends at 40, 16 frames a second, every 2nd
        expected = plain._plain(opened.frames_at([16, 18, 20, 22]))
    assert torch.equal(plain[0].video, expected)
    sooner = AnticipationClips(split, AnticipationTask(spec, seconds=0.5), training=False)[0]
    assert seconds(sooner) == 0.5 and not torch.equal(sooner.video, expected)
    drawn = AnticipationClips(split, AnticipationTask(spec), training=True, seed=3)
    first, again, later = (drawn[SampleKey(epoch, 0)] for epoch in (1, 1, 2))
    assert torch.equal(first.video, again.video) and seconds(first) == seconds(again) != seconds(later)
    assert 0.25 <= seconds(later) <= 1.75


def test_names_fall_back_to_numbers(tree, tmp_path):
    ids = ActionIds.of(read_split(tree / "EPIC_100_train.csv", video_files(tree)).actions)
    assert set(EpicNames.of(ids, tmp_path).noun) == {"1", "7"}


def test_wrong_use_says_what_to_do(tree, tmp_path, capsys):
    given = [
        ("layers", "0"),
        ("augment", "1"),
        ("report", "true"),
        ("probe", "knn"),
        ("cache", "x"),
        ("folder", "x"),
    ]
    given += [
        ("label", "x"),
        ("segments", "2"),
        ("views", "1"),
        ("num_per_class", "1"),
        ("world_size", "2"),
        ("rank", "1"),
        ("val_share", "0.5"),
    ]
    for name, value in given:
        assert command(tree, tmp_path, f"--{name}", value) == 2
        assert f"does not use --{name}. Omit" in capsys.readouterr().err
    words = f"probe --encoder {tree}/model --folder {tree} --out {tmp_path} --anticipation.seconds 2"
    assert main(words.split()) == 2 and "Give --protocol ek100" in capsys.readouterr().err
    words = f"probe --protocol ek100 --encoder {tree}/model --train x --out {tmp_path}"
    assert main(words.split()) == 2 and "needs --train EPIC_100_train.csv" in capsys.readouterr().err
    with pytest.raises(ProbeError, match="with --root"):
        video_files(tmp_path)
    with pytest.raises(ProbeError, match="Give EPIC_100_train.csv with --train"):
        read_split(tmp_path / "none.csv", {})
    (tmp_path / "other.csv").write_text(annotation(("P05_05", 1, 2, 9, 9)))
    with pytest.raises(ProbeError, match="Give the folder of the videos"):
        read_split(tmp_path / "other.csv", video_files(tree))
    train = read_split(tree / "EPIC_100_train.csv", video_files(tree))
    (tmp_path / "other.csv").write_text(annotation(("P01_01", 1, 2, 9, 9)))
    with pytest.raises(ProbeError, match="files of one release"):
        read_split(tmp_path / "other.csv", video_files(tree)).known_to(ActionIds.of(train.actions))
