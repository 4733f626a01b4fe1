"""The training module: its steps, masks, schedules and checkpoints, in real tiny runs."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint

from tests.training.runs import RUN_WARNINGS, clip_loader, joined, quiet_trainer, tiny_module
from vjepa.checkpoints import load_encoder, load_predictor
from vjepa.masks import RandomTubes
from vjepa.optim import Constant, Linear
from vjepa.types import ClipBatch

pytestmark = pytest.mark.filterwarnings(*RUN_WARNINGS)


@pytest.fixture
def fitted(tmp_path):
    module = tiny_module(lr=Linear(start=0.01, end=0.0))
    trainer = quiet_trainer(tmp_path)
    trainer.fit(module, clip_loader(8, 2))
    return module, trainer


def test_learning_rate_decay_and_logs_of_a_run(fitted):
    module, trainer = fitted
    groups = trainer.optimizers[0].param_groups
    assert [g["lr"] for g in groups] == pytest.approx([0.0025] * 4)  # of the last of 4 steps
    assert [g["weight_decay"] for g in groups] == [0.1, 0.1, 0.0, 0.0]
    logged = {k.removeprefix("train/") for k in trainer.callback_metrics}
    for name in (
        "loss", "target_std", "prediction_std", "target_rank", "prediction_rank", "target_cosine",
        "loss_over_mean", "grad_norm_encoder", "grad_norm_predictor", "ema_distance", "lr",
        "weight_decay", "momentum",
    ):  # fmt: skip
        assert name in logged
    assert float(trainer.callback_metrics["train/momentum"]) == pytest.approx(0.875)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_stopped_at_the_end_of_an_epoch_goes_on_as_if_it_had_not(tmp_path, accumulate):
    limits = {"max_epochs": -1, "accumulate_grad_batches": accumulate}
    steps = 4 // accumulate  # of an epoch

    def run(last_step, **arguments):
        module = tiny_module([RandomTubes(ratio=0.5)], momentum=Constant(at=0.9))
        trainer = quiet_trainer(tmp_path, max_steps=last_step, **limits)
        trainer.fit(module, clip_loader(8, 2), **arguments)
        return module, trainer

    _, stopped = run(steps)
    stopped.save_checkpoint(tmp_path / "end.ckpt")
    resumed, _ = run(2 * steps, ckpt_path=tmp_path / "end.ckpt")
    whole, _ = run(2 * steps)
    for a, b in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_run_saves_nothing_between_two_steps(tmp_path):
    """A checkpoint after half of an accumulation lacks the gradients of that half."""
    saved = []

    class Note(ModelCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            saved.append((trainer.global_step, trainer.fit_loop.batch_idx))
            super()._save_checkpoint(trainer, filepath)

    def run(last_step, **arguments):
        every = Note(dirpath=tmp_path, filename="last", every_n_train_steps=1, enable_version_counter=False)
        limits = {"max_epochs": -1, "max_steps": last_step, "accumulate_grad_batches": 2}
        trainer = quiet_trainer(tmp_path, callbacks=[every], **limits | {"enable_checkpointing": True})
        trainer.fit(tiny_module(), clip_loader(8, 2), **arguments)

    run(2)
    assert saved == [(1, 1), (2, 3)]
    saved.clear()
    run(4, ckpt_path=tmp_path / "last.ckpt")
    assert saved == [(3, 1), (4, 3)]


@pytest.mark.parametrize(("every", "warned"), [(1, True), (2, False), (4, False)])
def test_a_validation_within_a_step_is_reported_and_the_advice_holds(tmp_path, caplog, every, warned):
    chosen = ModelCheckpoint(dirpath=tmp_path, monitor="val/loss", save_on_train_epoch_end=False)
    settings = {"accumulate_grad_batches": 2, "val_check_interval": every, "enable_checkpointing": True}
    trainer = quiet_trainer(tmp_path, callbacks=[chosen], num_sanity_val_steps=0, **settings)
    with caplog.at_level("WARNING", logger="vjepa"):
        trainer.fit(tiny_module(), clip_loader(8, 2), clip_loader(2, 2))
    assert ("to a multiple of 2" in caplog.text) == warned


def test_the_target_encoder_drops_no_paths_while_others_train(tmp_path):
    module, modes = tiny_module(), []

    def note(trainer, module, *_):
        modes.append((module.objective.target_encoder.training, module.objective.context_encoder.training))

    quiet_trainer(tmp_path, callbacks=[LambdaCallback(on_train_batch_start=note)]).fit(
        module, clip_loader(4, 2)
    )
    assert modes == [(False, True)] * 2


def test_target_encoder_follows_the_momentum(tmp_path):
    module = tiny_module(momentum=Constant(at=0.0))
    quiet_trainer(tmp_path).fit(module, clip_loader(4, 2))
    for average, source in module.objective.ema_pairs():
        for a, s in zip(average.parameters(), source.parameters(), strict=True):
            assert torch.equal(a, s)


def test_checkpoint_holds_all_three_networks(fitted, tmp_path):
    module, trainer = fitted
    path = tmp_path / "run.ckpt"
    trainer.save_checkpoint(path)
    video = torch.randn(1, 3, 4, 16, 32, generator=torch.Generator().manual_seed(0))
    for which in ("target", "context"):
        network = getattr(module.objective, f"{which}_encoder").eval()
        assert torch.equal(load_encoder(path, which=which)(video), network(video))
    ours, theirs = module.objective.predictor.state_dict(), load_predictor(path).state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_resumed_run_ends_bit_equal_to_an_uninterrupted_one(tmp_path):
    def module():
        return tiny_module([RandomTubes(ratio=0.5)], momentum=Constant(at=0.9))

    stopped, whole, resumed = module(), module(), module()
    first = quiet_trainer(tmp_path)
    first.fit(stopped, clip_loader(8, 2))
    first.save_checkpoint(tmp_path / "stop.ckpt")
    quiet_trainer(tmp_path, max_epochs=2).fit(whole, clip_loader(8, 2))
    trainer = quiet_trainer(tmp_path, max_epochs=2)
    trainer.fit(resumed, clip_loader(8, 2), ckpt_path=tmp_path / "stop.ckpt")
    assert trainer.global_step == 8
    states = [m.state_dict() for m in (whole, resumed, stopped)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_masks_differ_by_batch_epoch_rank_and_seed():
    module = tiny_module()
    seeds = {module.mask_generator(e, b).initial_seed() for e in range(3) for b in range(5)}
    seeds |= {tiny_module(seed=1).mask_generator(e, b).initial_seed() for e in range(3) for b in range(5)}
    assert len(seeds) == 30
    assert module.mask_generator(2, 3).initial_seed() == module.mask_generator(2, 3).initial_seed()


def test_micro_batches_of_a_step_have_masks_of_their_own(tmp_path):
    drawn = []

    class Watched(RandomTubes):
        def sample(self, grid, batch_size, generator):
            drawn.append(generator.initial_seed())
            return super().sample(grid, batch_size, generator)

    quiet_trainer(tmp_path, accumulate_grad_batches=4).fit(tiny_module([Watched()]), clip_loader(8, 2))
    assert len(set(drawn)) == 4


def test_validation_has_the_same_masks_every_time(tmp_path):
    trainer, module = quiet_trainer(tmp_path), tiny_module([RandomTubes(ratio=0.5)])
    losses = [trainer.validate(module, clip_loader(4, 2), verbose=False)[0]["val/loss"] for _ in range(2)]
    assert losses[0] == losses[1]
    other = trainer.validate(tiny_module([RandomTubes(ratio=0.5)], seed=1), clip_loader(4, 2), verbose=False)
    assert other[0]["val/loss"] != losses[0]


def test_a_batch_to_validate_on_may_have_no_readable_clip(tmp_path):
    none = torch.empty(0, dtype=torch.int64)
    tiny_module().validation_step(ClipBatch(video=torch.empty(0, 3, 0, 0, 0), label=none, index=none), 0)


def test_masks_follow_the_turn_of_a_batch(tmp_path):
    generator = tiny_module().mask_generator(2, 5)
    drawn = []

    class Draws(RandomTubes):
        def sample(self, grid, batch_size, generator):
            drawn.append(generator.initial_seed())
            return super().sample(grid, batch_size, generator)

    loader = clip_loader(4, 2)
    loader.collate_fn = lambda batches: replace(joined(batches), turn=(2, 5))
    quiet_trainer(tmp_path).fit(tiny_module([Draws(ratio=0.5)]), loader)
    assert drawn == [generator.initial_seed()] * 2


def test_a_run_without_an_end_is_refused_and_the_advice_holds(tmp_path):
    with pytest.raises(ValueError, match="Set --trainer.max_steps"):
        quiet_trainer(tmp_path, max_epochs=-1).fit(tiny_module(), clip_loader(4, 2))
    trainer = quiet_trainer(tmp_path, max_epochs=-1, max_steps=1)
    trainer.fit(tiny_module(), clip_loader(4, 2))
    assert trainer.global_step == 1


def test_adams_own_arguments_arrive():
    optimizer = tiny_module(betas=(0.8, 0.9), eps=1e-4).configure_optimizers()
    assert optimizer.defaults["betas"] == (0.8, 0.9) and optimizer.defaults["eps"] == 1e-4


def test_masks_of_all_ranks_need_a_mask_strategy(tmp_path):
    module = tiny_module(mask_batch="all")
    module.objective.masks = []
    with pytest.raises(ValueError, match="Set mask_batch to 'rank'"):
        quiet_trainer(tmp_path).fit(module, clip_loader(4, 2))
    quiet_trainer(tmp_path).fit(tiny_module(mask_batch="rank"), clip_loader(4, 2))


def test_masks_of_all_ranks_are_the_same_after_a_fit_that_was_broken_off(tmp_path):
    module = tiny_module(mask_batch="all")
    own, calls = list(module.objective.masks), []

    def broken(*arguments) -> None:
        calls.append(arguments)
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        quiet_trainer(tmp_path, callbacks=[LambdaCallback(on_train_start=broken)]).fit(
            module, clip_loader(4, 2)
        )
    assert calls and module.objective.masks != own
    quiet_trainer(tmp_path).fit(module, clip_loader(4, 2))
    assert module.objective.masks == own


class TwoLengths(torch.utils.data.Dataset):
    """Batches of clips of 4 frames and of 8, by turns."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> ClipBatch:
        generator = torch.Generator().manual_seed(index)
        rows = torch.arange(2)
        video = torch.randn(2, 3, (4, 8)[index % 2], 16, 32, generator=generator)
        return ClipBatch(video=video, label=rows, index=rows)


@pytest.mark.parametrize("frame_counts", [(), (4, 8)])
def test_clips_of_several_lengths_train_one_objective(frame_counts, tmp_path):
    module = tiny_module([RandomTubes(ratio=0.5)], lr=Constant(at=0.01))
    module.objective.frame_counts = frame_counts
    before = [token.detach().clone() for token in module.objective.predictor.mask_tokens]
    loader = torch.utils.data.DataLoader(TwoLengths(), batch_size=None)
    quiet_trainer(tmp_path).fit(module, loader)
    after = module.objective.predictor.mask_tokens
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == ([True, True] if frame_counts else [True, False])  # one strategy; two lengths


def test_the_objective_is_given_the_step(tmp_path):
    module, steps = tiny_module(), []
    module.objective.set_step = lambda step, total: steps.append((step, total))
    quiet_trainer(tmp_path, accumulate_grad_batches=2).fit(module, clip_loader(8, 2))
    assert steps == [(0, 2), (0, 2), (1, 2), (1, 2)]  # optimiser steps, not batches


def test_a_momentum_goes_with_a_moving_average():
    with pytest.raises(ValueError, match="keeps a moving average, got no momentum. Give one"):
        tiny_module(momentum=None)
    tiny_module(momentum=Linear(start=0.998, end=1.0))
