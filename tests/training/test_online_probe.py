"""Probes during a fit, in real tiny runs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.recipes import tiny_recipe
from tests.videos import write_manifest
from vjepa.commands.app import main
from vjepa.data import read_manifest
from vjepa.training.online_probe import OnlineProbe, _few


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("clips"), 12, num_frames=6, height=24, width=24)


def callback(**settings: Any) -> dict[str, Any]:
    return {"class_path": "vjepa.training.online_probe.OnlineProbe", "init_args": settings}


def fit(folder: Path, clips: Path, *callbacks: dict[str, Any], more: tuple[str, ...] = ()) -> int:
    folder.mkdir(parents=True)
    recipe = tiny_recipe(folder, clips, root=folder / "runs", callbacks=list(callbacks))
    return main(["fit", "--config", str(recipe), *more])


def logged(folder: Path, name: str) -> dict[int, float]:
    """Values of a figure by step."""
    with (folder / "runs" / "version_0" / "metrics.csv").open() as file:
        return {int(row["step"]) + 1: float(row[name]) for row in csv.DictReader(file) if row.get(name)}


@pytest.mark.slow
def test_scores_are_logged_choose_checkpoints_and_leave_the_run_as_it_is(clips, tmp_path):
    best = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    best["init_args"] = {
        "monitor": "probe/linear",
        "mode": "max",
        "every_n_train_steps": 4,
        "filename": "best",
    }
    val = ("--data.val", str(clips))
    assert fit(tmp_path / "probed", clips, callback(every_n_steps=4), best, more=val) == 0
    assert fit(tmp_path / "plain", clips, more=val) == 0
    scores, gains = (logged(tmp_path / "probed", f"probe/{name}") for name in ("linear", "linear_gain"))
    assert {4, 8} <= set(scores) and min(scores) == 4  # a score stands until the epoch ends or the next comes
    assert list(gains) == list(scores)
    assert all(0 <= value <= 1 and value - gains[step] >= 0 for step, value in scores.items())
    run = tmp_path / "probed" / "runs" / "version_0"
    chosen = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert scores[chosen["global_step"]] == max(scores.values())
    plain = tmp_path / "plain" / "runs" / "version_0"
    for part in ("encoder", "context_encoder", "predictor"):
        first, second = ((r / "export" / f"{part}.safetensors").read_bytes() for r in (run, plain))
        assert first == second, part


@pytest.mark.slow
def test_clips_labels_and_kinds_of_ones_own(clips, tmp_path):
    """The run itself has no labels and no validation clips."""
    rows = [line.split(",")[0] for line in clips.read_text().splitlines()[1:]]
    labelled = tmp_path / "labelled.csv"
    lines = [f"{path},{'abc'[i % 3]}" for i, path in enumerate(rows)]
    labelled.write_text("\n".join(["path,kind", *lines]) + "\n")
    unlabelled = clips.with_name("train")
    mine = {"train": str(labelled), "val": str(labelled), "root": str(clips.parent), "label": "kind"}
    given = callback(every_n_steps=4, kinds=["linear", "knn", "attentive"], **mine)
    assert fit(tmp_path / "own", unlabelled, given, more=("--trainer.max_steps", "4")) == 0
    assert all(
        list(logged(tmp_path / "own", f"probe/{kind}")) == [4] for kind in ("linear", "knn", "attentive")
    )


@pytest.mark.parametrize(
    ("settings", "said", "mended"),
    [
        ({"every_n_steps": 3}, "Give a multiple of trainer.log_every_n_steps, such as 4", {"every_n_steps": 4}),
        ({"label": "path_of"}, "label", {"label": "label"}),
        ({"val": None}, "has no val clips. Give its val, or data.val", {}),
    ],
)  # fmt: skip
def test_what_cannot_be_probed_is_refused_and_the_advice_holds(
    clips, tmp_path, capsys, settings, said, mended
):
    whole = {"every_n_steps": 4, "val": str(clips)}
    more = ("--trainer.log_every_n_steps", "2", "--trainer.max_steps", "2")
    assert fit(tmp_path / "wrong", clips, callback(**(whole | settings)), more=more) == 2
    assert said in capsys.readouterr().err
    assert fit(tmp_path / "right", clips, callback(**(whole | mended)), more=more) == 0


def test_arguments_that_make_no_probe():
    for settings in ({"kinds": ()}, {"every_n_steps": 0}, {"num_clips": 1}):
        with pytest.raises(ValueError, match="give a kind of probe, at least 1 step and 2 clips"):
            OnlineProbe(**settings)
    with pytest.raises(ValueError, match="Omit finetune, .*vjepa probe --probe finetune"):
        OnlineProbe(kinds=("linear", "finetune"))
    OnlineProbe(kinds=("linear",), every_n_steps=1, num_clips=2)


def test_few_clips_are_labelled_drawn_by_seed_and_in_order(clips):
    manifest = read_manifest(clips)
    few = [_few(manifest, 5, seed) for seed in (0, 0, 1)]
    paths = [[row.path for row in one.rows] for one in few]
    assert paths[0] == paths[1] != paths[2] and all(len(p) == 5 and p == sorted(p) for p in paths)
    assert len(_few(manifest, 100, 0)) == 12
