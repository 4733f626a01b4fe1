"""Clips that are both trained on and tested on are told; unbalanced classes get a class-mean accuracy."""

import pytest
import torch

from vjepa.probes.linear import LinearProbe
from vjepa.probes.manifests import LabelledVideos
from vjepa.probes.results import ProbeResult, scores_of


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ("a.mp4,x,,\nb.mp4,y,,", "b.mp4,y,,", "1 of 1 validation clips (/"),
        ("a.mp4,x,,\nb.mp4,y,,", "./b.mp4,y,1,g", "1 of 1 validation clips (/"),
        ("a.mp4,x,,g\nb.mp4,y,,", "c.mp4,y,,g", "or of a group that is"),
        ("a.mp4,x,,g\nb.mp4,y,,", "c.mp4,y,,h", None),
    ],
)
def test_what_is_on_both_sides_is_told(tmp_path, caplog, train, val, said):
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    for name, rows in (("train", train), ("val", val)):
        (tmp_path / f"{name}.csv").write_text(f"path,label,start,group\n{rows}\n")
    videos = LabelledVideos(train=str(tmp_path / "train.csv"), val=str(tmp_path / "val.csv"))
    videos.manifests(seed=0)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == (said is not None)
    assert said is None or said in warned[0]


@pytest.mark.parametrize(
    ("labels", "class_mean", "unbalanced"), [([0] * 9 + [1], 0.5, True), ([0, 0, 1], 0.5, False)]
)
def test_the_mean_over_classes_counts_each_class_the_same(labels, class_mean, unbalanced):
    logits = torch.tensor([[1.0, 0.0, -1.0]]).repeat(
        len(labels), 1
    )  # always class 0; of class 2 there is no clip
    probe = LinearProbe(embed_dim=1, num_classes=3)
    result = ProbeResult("linear", scores_of(logits, torch.tensor(labels)), True, (), {}, 1, 1, probe)
    assert result.class_mean == class_mean and result.is_unbalanced == unbalanced
