"""What follows from the clips of a step in real tiny runs; accumulated batches are one batch."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from tests.training.runs import (
    RUN_WARNINGS,
    RandomClips,
    Recorder,
    clip_loader,
    joined,
    quiet_trainer,
    tiny_module,
)
from tests.videos import write_videos
from vjepa.data import ClipSampler, TrainTransform, VideoDataModule
from vjepa.data.loading.mixture import MixturePart
from vjepa.errors import SettingError
from vjepa.masks import RandomTubes
from vjepa.optim import Constant, HalfLife, LrRule, WarmupStableDecay

pytestmark = pytest.mark.filterwarnings(*RUN_WARNINGS)


class Losses(Callback):
    """The mean loss and the learning rate of each optimiser step."""

    def __init__(self, accumulate: int = 1) -> None:
        self.accumulate, self.batches, self.lr = accumulate, [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        # Lightning hands back the loss divided by the batches of a step
        self.batches.append(float(outputs["loss"]))
        if len(self.batches) % self.accumulate == 0:
            self.lr.append(trainer.optimizers[0].param_groups[0]["lr"])

    @property
    def steps(self) -> list[float]:
        return torch.tensor(self.batches).view(-1, self.accumulate).sum(1).tolist()


def trained(folder, *, batch: int, accumulate: int, epochs: int = 5, **arguments):
    losses = Losses(accumulate)
    module = tiny_module(**{"lr": Constant(at=0.001), "momentum": HalfLife(samples=80.0), **arguments})
    limits = {"max_epochs": epochs, "gradient_clip_val": 1.0, "accumulate_grad_batches": accumulate}
    trainer = quiet_trainer(folder, callbacks=[losses], **limits)
    trainer.fit(module, clip_loader(16, batch))
    return module, trainer, losses


def test_two_batches_of_4_are_one_of_8(tmp_path):
    rule = LrRule(reference_batch=2, scaling="sqrt")
    whole, one, losses = trained(tmp_path, batch=8, accumulate=1, lr_rule=rule)
    halves, two, others = trained(tmp_path, batch=4, accumulate=2, lr_rule=rule)
    assert len(losses.steps) == one.global_step == two.global_step == 10
    assert losses.steps == pytest.approx(others.steps, abs=1e-5)
    assert losses.steps[-1] < losses.steps[0] - 0.005  # it learned
    for name in ("lr", "momentum"):
        assert float(one.callback_metrics[f"train/{name}"]) == float(two.callback_metrics[f"train/{name}"])
    assert float(two.callback_metrics["train/lr"]) == pytest.approx(0.002)
    assert float(two.callback_metrics["train/momentum"]) == pytest.approx(0.5**0.1)
    assert whole.clips_per_step == halves.clips_per_step == 8 and halves.peak_lr() == pytest.approx(0.002)
    states = [module.objective.target_encoder.state_dict() for module in (whole, halves)]
    assert all(torch.allclose(states[0][k], states[1][k], atol=1e-4) for k in states[0])


def test_the_cool_down_goes_on_from_the_constant_phase(tmp_path):
    def schedule(decay: float) -> WarmupStableDecay:
        return WarmupStableDecay(peak=0.01, warmup=2.0, decay=decay)

    _, trainer, first = trained(tmp_path, batch=4, accumulate=1, epochs=1, lr=schedule(0.0))
    trainer.save_checkpoint(tmp_path / "constant.ckpt")
    assert first.lr == pytest.approx([0.005, 0.01, 0.01, 0.01])
    cooling = Losses()
    longer = quiet_trainer(tmp_path, max_epochs=2, gradient_clip_val=1.0, callbacks=[cooling])
    module = tiny_module(lr=schedule(4.0), momentum=HalfLife(samples=80.0))
    longer.fit(module, clip_loader(16, 4), ckpt_path=tmp_path / "constant.ckpt")
    assert cooling.lr == pytest.approx([0.0075, 0.005, 0.0025, 0.0])
    whole, _, _ = trained(tmp_path, batch=4, accumulate=1, epochs=2, lr=schedule(4.0))
    states = [m.state_dict() for m in (whole, module)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_loader_must_tell_its_batch_where_a_rule_asks(tmp_path):
    loader = DataLoader([joined([RandomClips(2)[0]])] * 2, batch_size=None)
    with pytest.raises(ValueError, match="Give one with batch_size"):
        quiet_trainer(tmp_path).fit(tiny_module(momentum=HalfLife(samples=80.0)), loader)
    quiet_trainer(tmp_path).fit(tiny_module(), loader)
    quiet_trainer(tmp_path).fit(tiny_module(momentum=HalfLife(samples=80.0)), clip_loader(2, 1))


def test_the_batch_of_a_mixture_is_the_mean_of_its_parts(twelve):
    parts = [MixturePart(source=str(twelve), weight=3.0), MixturePart(source=str(twelve), batch_size=64)]
    data = VideoDataModule(parts=parts, batch_size=4)
    data.setup("fit")
    assert data.mean_batch == 6.0  # of 4 and, as there are no 64 clips, 12


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twelve")
    return write_videos(folder, 12, num_frames=4, height=16, width=32)[0].parent


def fit_of_twelve(folder, clips, *, batch: int, **limits):
    """A run on 12 clips, and the number of batches at each of its steps."""
    recorder, rule = Recorder(), LrRule(reference_batch=1, scaling="linear")
    masks = [RandomTubes(ratio=0.5)]
    module = tiny_module(masks, lr=Constant(at=1e-5), lr_rule=rule, momentum=HalfLife(samples=80.0))
    data = VideoDataModule(
        train=str(clips),
        sampler=ClipSampler(num_frames=4, fps=None),
        transform=TrainTransform(size=16),
        batch_size=batch,
    )
    trainer = quiet_trainer(folder, callbacks=[recorder], **{"max_epochs": -1, **limits})
    trainer.fit(module, datamodule=data)
    return module, recorder.steps


@pytest.mark.parametrize(
    ("accumulate", "limits"), [(4, {"max_steps": 3}), (8, {"max_epochs": 2}), (3, {"max_epochs": 2})]
)
def test_a_step_has_all_its_batches_across_the_ends_of_epochs(tmp_path, twelve, accumulate, limits):
    module, steps = fit_of_twelve(tmp_path, twelve, batch=5, accumulate_grad_batches=accumulate, **limits)
    assert (
        steps == [(i + 1) // accumulate for i in range(len(steps))] and steps[-1] == module.total_steps >= 2
    )
    assert module.clips_per_step == 5 * accumulate


def test_a_batch_larger_than_the_data_set_counts_the_clips_that_there_are(tmp_path, twelve):
    module, _ = fit_of_twelve(tmp_path, twelve, batch=100, max_steps=1)
    assert module.clips_per_step == 12 and module.peak_lr() == pytest.approx(12e-5)


@pytest.mark.parametrize("limits", [{"accumulate_grad_batches": 4, "limit_train_batches": 6}])
def test_an_epoch_cut_within_a_step_is_refused_with_the_largest_that_fits(tmp_path, twelve, limits):
    with pytest.raises(SettingError, match="Lower --trainer.accumulate_grad_batches to 3"):
        fit_of_twelve(tmp_path, twelve, batch=1, max_steps=2, **limits)
    _, steps = fit_of_twelve(
        tmp_path, twelve, batch=1, max_steps=2, **(limits | {"accumulate_grad_batches": 3})
    )
    assert steps == [0, 0, 1, 1, 1, 2]


def test_a_plain_loader_whose_epoch_ends_within_a_step_is_refused(tmp_path):
    with pytest.raises(SettingError, match="an epoch of 4 batches ends within a step of 8"):
        trained(tmp_path, batch=4, accumulate=8)
