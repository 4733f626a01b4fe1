"""Verdicts: of histories written by hand, and of real tiny runs."""

import logging

import pytest
import torch

from tests.masks.given import Given
from tests.training.runs import FIRST_HALF, RUN_WARNINGS, clip_loader, quiet_trainer, tiny_module
from vjepa.masks import Causal, RandomTubes
from vjepa.optim import Constant
from vjepa.training import HealthVerdict, Verdict, verdict
from vjepa.training.health import input_health, mask_geometry
from vjepa.types import MaskPair, TokenGrid

pytestmark = pytest.mark.filterwarnings(*RUN_WARNINGS)

GOOD = {
    "loss": 0.7, "target_std": 0.9, "target_rank": 90.0, "target_cosine": 0.3, "loss_over_mean": 0.9,
    "ema_distance": 0.05, "lr": 1e-3, "target_seen": 0.0, "video_std": 0.8,
}  # fmt: skip


def history(*changes: dict[str, float]) -> list[dict[str, float]]:
    return [{"step": 10.0 * i} | GOOD | change for i, change in enumerate(changes)]


def test_healthy_says_nothing_more():
    assert verdict([]) == verdict(history({}, {}, {})) == Verdict()
    assert str(Verdict()) == "healthy"
    assert verdict(history({"ema_distance": 0.0}, {}, {})).judgement == "healthy"  # equal at first
    assert verdict([{"step": 1.0, "loss": 0.5}]).judgement == "healthy"  # what is missing is not judged


@pytest.mark.parametrize(
    ("change", "judgement", "why", "advice"),
    [
        ({"loss": float("inf")}, "diverging", "loss is not finite at step 20", "lower model.lr"),
        ({"target_rank": float("nan")}, "diverging", "target_rank", "lower model.lr"),
        ({"ema_distance": 0.6}, "diverging", "0.60", "lower model.lr"),
        ({"target_cosine": 0.99}, "partial collapse suspected", "alike", "model.momentum"),
        ({"target_std": 0.1}, "partial collapse suspected", "std 0.10", "model.momentum"),
        ({"target_rank": 1.5}, "partial collapse suspected", "rank 2", "model.momentum"),
        ({"ema_distance": 0.0}, "partial collapse suspected", "is the context encoder", "raise model.momentum"),
        ({"target_seen": 0.5}, "partial collapse suspected", "50 % of the targets", "disjoint"),
        ({"video_std": 0.0}, "partial collapse suspected", "all one image", "vjepa data check"),
    ],
)  # fmt: skip
def test_each_damage_has_its_verdict(change, judgement, why, advice):
    found = verdict(history({}, change, change))
    assert found.judgement == judgement and why in found.why and advice in found.change
    assert str(found) == f"{found.judgement}: {found.why}, {found.change}"


@pytest.mark.parametrize(
    ("logged", "advice"),
    [
        ({"penalty_sigreg": 0.1}, "weights of the objective's penalties"),
        ({}, "vjepa data check"),
        ({"ema_distance": 0.05}, "model.momentum"),
    ],
)
def test_the_advice_is_for_the_objective_at_hand(logged, advice):
    alike = {k: v for k, v in GOOD.items() if k != "ema_distance"} | {"target_std": 0.1} | logged
    found = verdict([{"step": 10.0 * i} | alike for i in range(3)])
    assert found.judgement == "partial collapse suspected" and advice in found.change


@pytest.mark.parametrize("change", [{"target_cosine": 0.99}, {"ema_distance": 0.6}, {"target_std": 0.1}])
def test_one_odd_batch_is_no_collapse(change):
    assert verdict(history({}, {}, change)).judgement == "healthy"


def test_mask_geometry_counts_quarters_and_seen_targets():
    grid = TokenGrid(t=4, h=1, w=2)
    pair = MaskPair(context=torch.tensor([[0, 1, 2, 7]]), target=torch.tensor([[3, 4]]))
    figures = {name: float(value) for name, value in mask_geometry([pair], grid).items()}
    assert [figures[f"context_q{i}"] for i in (1, 2, 3, 4)] == [0.5, 0.25, 0.0, 0.25]
    assert (figures["context_tokens"], figures["target_tokens"], figures["target_seen"]) == (4, 2, 0)
    seen = MaskPair(context=torch.tensor([[0, 1]]), target=torch.tensor([[1, 2]]))
    assert float(mask_geometry([pair, seen], grid)["target_seen"]) == 0.25


def test_masks_of_the_package_hide_what_they_ask_for():
    grid, generator = TokenGrid(t=4, h=4, w=4), torch.Generator().manual_seed(0)
    for strategy in (RandomTubes(ratio=0.5), Causal(past=(0.5, 0.5))):
        figures = mask_geometry([strategy.sample(grid, 4, generator)], grid)
        assert float(figures["target_seen"]) == 0
    assert float(figures["context_q4"]) == 0  # of the causal one: the past alone is seen


def test_a_clip_of_one_picture_shows():
    (batch,) = clip_loader(2, 2)
    assert float(input_health(batch)["video_std"]) > 0.5
    batch.video.copy_(batch.video[:1, :, :1])
    assert float(input_health(batch)["video_std"]) < 1e-6


def test_a_broken_run_is_judged_and_ended(tmp_path, caplog):
    judge = HealthVerdict(stop_after=2)
    trainer = quiet_trainer(tmp_path, callbacks=[judge], max_epochs=4)
    with caplog.at_level(logging.INFO, "vjepa"):
        trainer.fit(tiny_module(momentum=Constant(at=0.0)), clip_loader(8, 2))
    assert trainer.global_step < 16 and judge.unhealthy == 2
    assert "health at step 1: healthy" in caplog.text
    assert caplog.text.count("partial collapse suspected") == 1  # said once, and not at each step
    assert float(trainer.callback_metrics["train/unhealthy"]) == 2


def test_masks_that_hide_nothing_are_judged_at_the_first_step(tmp_path):
    nothing = Given(MaskPair(context=FIRST_HALF.target, target=FIRST_HALF.target))
    judge = HealthVerdict()
    quiet_trainer(tmp_path, callbacks=[judge], max_steps=1).fit(tiny_module([nothing]), clip_loader(4, 2))
    assert "100 % of the targets" in judge.verdict.why


def test_history_is_short_and_survives_a_resume(tmp_path):
    judge = HealthVerdict(keep=3)
    quiet_trainer(tmp_path, callbacks=[judge], max_epochs=2).fit(tiny_module(), clip_loader(8, 2))
    assert [figures["step"] for figures in judge.history] == [1, 6, 7, 8]
    other = HealthVerdict(keep=3)
    other.load_state_dict(judge.state_dict())
    assert (other.history, other.verdict, other.unhealthy) == (judge.history, judge.verdict, judge.unhealthy)
    with pytest.raises(ValueError, match="Raise keep to 3"):
        HealthVerdict(keep=2)
    with pytest.raises(ValueError, match="give 1 verdict or more"):
        HealthVerdict(stop_after=0)
    HealthVerdict(keep=3)
