"""The training loop of every objective: optimiser, schedules, moving average, logging."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from vjepa.data import VideoDataModule
from vjepa.errors import SettingError
from vjepa.layers import Block
from vjepa.masks import MaskStrategy
from vjepa.masks.rank_rows import RankRows
from vjepa.models.files import network_configs
from vjepa.objectives import Objective
from vjepa.optim import Constant, HalfLife, LrRule, Schedule, decay_groups, ema_update
from vjepa.training.callbacks import log_interval, note_clips
from vjepa.training.clip_shapes import check_clips
from vjepa.training.health import feature_health, input_health, mask_geometry, network_health, not_measured
from vjepa.training.precision import precision_name
from vjepa.training.rank_means import RankMeans, as_others
from vjepa.training.sharding import add_missing_state, shard_objective, sharding_mesh
from vjepa.training.whole_steps import HeldBack, check_whole_steps
from vjepa.types import ClipBatch

log = logging.getLogger(__name__)

VALIDATION_EPOCH = 2**32 - 1  # a separate mask stream, the same in every validation


class PretrainModule(L.LightningModule):
    """Trains an objective with AdamW, and updates its moving averages once after each optimiser step.

    Args:
        objective: Networks, masks and loss.
        lr: Learning rate of each optimiser step.
        weight_decay: Weight decay of each step, on weights that are neither biases nor vectors.
        momentum: Momentum of the moving average after each step, or its half-life in clips; omit it for objectives
            without one.
        lr_rule: How the learning rate scales with the clips per step; without it, `lr` is used unchanged.
        betas: Decay rates of AdamW's two averages.
        eps: AdamW's epsilon.
        seed: Seed of the masks, which depend only on it, the rank and `ClipBatch.turn`.
        mask_batch: Draw masks for the clips of one "rank", or for the batch of "all" ranks, which then train as one
            rank with the whole batch does.
        recompute_blocks: Compute each block again in the backward pass: costs about one third more compute, and keeps
            only the input of each block in memory.
        compile_blocks: Compile each block by `torch.compile`, for sequences of any length.
        target_bf16: Multiply in bf16 in the blocks of the target encoder of an fp32 run. Tokens between blocks stay
            in fp32, and the loss changes by about 1e-6; faster on hardware with bf16.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        lr: Schedule,
        weight_decay: Schedule,
        momentum: Schedule | HalfLife | None = None,
        lr_rule: LrRule | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        seed: int = 0,
        mask_batch: Literal["rank", "all"] = "rank",
        recompute_blocks: bool = False,
        compile_blocks: bool = False,
        target_bf16: bool = False,
    ) -> None:
        super().__init__()
        if bool(objective.ema_pairs()) != (momentum is not None):
            raise SettingError(
                f"{type(objective).__name__} keeps a moving average, got no momentum. Give one, such as "
                "{class_path: vjepa.optim.Linear, init_args: {start: 0.998, end: 1.0}}."
                if momentum is None
                else f"{type(objective).__name__} keeps no moving average, got momentum {momentum}. Omit it."
            )
        if not (all(0 <= beta < 1 for beta in betas) and eps >= 0):
            raise SettingError(
                f"betas {betas}, eps {eps}: give betas of at least 0 and below 1, and an eps of 0 or more."
            )
        self.objective = objective
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, momentum
        self.lr_rule = lr_rule
        self.betas, self.eps, self.seed = betas, eps, seed
        self.mask_batch = mask_batch
        self._said = False
        self._validated = RankMeans()
        for block in (module for module in objective.modules() if isinstance(module, Block)):
            block.recompute = recompute_blocks
            if compile_blocks:
                block.compile(dynamic=True)
        if target_bf16:
            self._lower_target()

    def configure_model(self) -> None:
        """Shard the networks if the strategy is FSDP2; Lightning may call this more than once."""
        from torch.distributed.fsdp import FSDPModule

        if self.device_mesh is not None and not isinstance(self.objective, FSDPModule):
            shard_objective(self.objective, sharding_mesh(self.device_mesh))

    def configure_optimizers(self) -> torch.optim.AdamW:
        """Return AdamW over the objective's trained networks; each step sets the learning rate and the decay."""
        groups = decay_groups(*self.objective.trained().values())
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps)

    def on_fit_start(self) -> None:
        """Fix the length of the run, which the schedules need."""
        precision_name(self.trainer.precision)
        if self.trainer.accumulate_grad_batches < 1:
            raise SettingError(
                f"--trainer.accumulate_grad_batches {self.trainer.accumulate_grad_batches}: give 1 or more."
            )
        total = self.trainer.estimated_stepping_batches
        if not np.isfinite(total):
            raise SettingError(
                "the schedules need the length of the run, got no limit. "
                "Set --trainer.max_steps or --trainer.max_epochs."
            )
        self.total_steps = int(total)
        check_clips(self.objective.exported()["encoder"], getattr(self.trainer, "datamodule", None))
        self._count_clips()
        self._check_schedules()
        if self.mask_batch == "all":
            self._share_masks()
        networks = self.objective.trained()
        sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
        message = ", ".join(f"{name.removeprefix('context_')} {n / 1e6:.2f} M" for name, n in sizes.items())
        log.info("%s parameters, %d steps", message, self.total_steps)

    def on_train_start(self) -> None:
        """Call `Objective.train`, which leaves untrained networks in eval mode (no drop path)."""
        self.objective.train()
        check_whole_steps(self.trainer)
        # a resumed optimiser has the settings of the checkpoint
        own = self.configure_optimizers().param_groups
        for group, settings in zip(self.trainer.optimizers[0].param_groups, own, strict=True):
            group.update(settings | {"params": group["params"]})

    def on_train_epoch_start(self) -> None:
        """Count the batches of an epoch from 0. Resumed at the end of an epoch, Lightning would not."""
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        if progress.current.completed >= self.trainer.num_training_batches:
            progress.reset_on_run()

    def on_train_batch_start(self, batch: ClipBatch, batch_idx: int) -> None:
        """Prevent a checkpoint after a batch that ends no step: checkpoints do not hold its gradients."""
        self._held_back = HeldBack(self.trainer)

    def on_train_batch_end(self, outputs: Any, batch: ClipBatch, batch_idx: int) -> None:
        """Allow checkpoints of a validation within a step: its score matters more than exact resumption."""
        self._held_back.release(self.trainer)

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        turn = batch.turn or (self.trainer.current_epoch, batch_idx)  # if the loader does not count
        self.objective.set_step(self.trainer.global_step, self.total_steps)
        output = self.objective(batch, self.mask_generator(*turn))
        logged = {"loss": output.loss.detach(), **output.metrics}
        if self._log_now():
            logged |= feature_health(output) | input_health(batch) | mask_geometry(output.masks, output.grid)
            if (absent := not_measured(output)) and not self._said:
                log.info("%s: %s", type(self.objective).__name__, absent)
            self._said = True
        self.log_dict(self._named("train", logged), batch_size=len(batch))
        return output.loss

    def on_validation_epoch_start(self) -> None:
        """Forget the figures of an earlier validation."""
        self._validated = RankMeans()

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Measure loss and health of one batch of held-out clips, with the same masks every time."""
        # FSDP2 gathers weights on all ranks together, so a rank without a clip computes too
        computed = as_others(batch) if self.device_mesh is not None else batch
        if computed is None or not len(computed):
            return
        output = self.objective(computed, self.mask_generator(VALIDATION_EPOCH, batch_idx))
        if len(batch):
            self._validated.add({"loss": output.loss, **output.metrics, **feature_health(output)}, len(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the means over the clips of all ranks."""
        means = {name: torch.tensor(value) for name, value in self._validated.reduced().items()}
        self.log_dict(self._named("val", means), sync_dist=True)  # equal on all ranks
        if not means:
            log.warning("no validation clip could be read: there are no figures of validation")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the figures that need gradients."""
        if self._log_now():
            self.log_dict(self._named("train", network_health(self.objective)))

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Set the learning rate and decay, take the step, then update the averages.

        Lightning calls this once per optimiser step for any accumulation; the end of a batch comes too often.
        """
        step, log_now = self.trainer.global_step, self._log_now()
        lr = self.lr_factor * self.lr.value(step, self.total_steps)
        decay = self.weight_decay.value(step, self.total_steps)
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = lr, decay if group["decay"] else 0.0
        optimizer.step(closure=optimizer_closure)
        if self.device_mesh is not None:
            add_missing_state(cast("Any", optimizer).optimizer)
        logged = {"lr": lr, "weight_decay": decay}
        if self.momentum_schedule is not None:
            logged["momentum"] = self.momentum_schedule.value(step, self.total_steps)
            ema_update(self.objective.ema_pairs(), logged["momentum"])
        if log_now:
            self.log_dict({f"train/{name}": value for name, value in logged.items()})

    def on_fit_end(self) -> None:
        """Restore the mask strategies."""
        if self.mask_batch == "all":
            self.objective.masks = self._own_masks()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configs from which `vjepa.load_encoder` builds the networks."""
        networks = self.objective.exported()
        note_clips(networks["encoder"], self.trainer)
        checkpoint["vjepa"] = network_configs(networks["encoder"], networks.get("predictor"))

    def mask_generator(self, epoch: int, batch_idx: int) -> torch.Generator:
        """Return the generator of one batch's masks.

        It depends on the batch and not on the optimiser step, which micro-batches share under accumulation.
        """
        rank = 0 if self.mask_batch == "all" else self.global_rank
        words = np.random.SeedSequence([self.seed, rank, epoch, batch_idx]).generate_state(2)
        return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))

    def peak_lr(self) -> float:
        """Return the highest learning rate of the run, with the rule applied."""
        return self.lr_factor * max(self.lr.value(step, self.total_steps) for step in self._some_steps())

    def _count_clips(self) -> None:
        """Compute what depends on the clips per step, over ranks and accumulation."""
        trainer = cast("Any", self.trainer)
        if isinstance(trainer.datamodule, VideoDataModule):
            batch = trainer.datamodule.mean_batch
        else:
            trainer.fit_loop.setup_data()  # a plain loader does not exist yet
            batch = trainer.train_dataloader.batch_size
        by_clips = isinstance(self.momentum, HalfLife) or self.lr_rule is not None
        if batch is None and by_clips:
            raise SettingError(
                "a half-life or lr_rule needs the clips per batch, got a loader without batch_size. "
                "Give one with batch_size, or a vjepa.data.VideoDataModule."
            )
        self.clips_per_step = (batch or 0) * trainer.world_size * trainer.accumulate_grad_batches
        self.lr_factor = 1.0 if self.lr_rule is None else self.lr_rule.factor(self.clips_per_step)
        momentum = self.momentum
        if isinstance(momentum, HalfLife):
            momentum = Constant(at=momentum.momentum(self.clips_per_step))
        self.momentum_schedule: Schedule | None = momentum
        log.info("%g clips per step, peak learning rate %.4g", self.clips_per_step, self.peak_lr())

    def _check_schedules(self) -> None:
        """Check all scheduled values before the run instead of failing during it."""
        ranges = [("lr", self.lr, 0.0, np.inf), ("weight_decay", self.weight_decay, 0.0, np.inf)]
        if self.momentum_schedule is not None:
            ranges.append(("momentum", self.momentum_schedule, 0.0, 1.0))
        for name, schedule, least, most in ranges:
            for step in self._some_steps():
                value = schedule.value(step, self.total_steps)
                if not least <= value <= most:
                    raise SettingError(
                        f"model.{name} is {value:g} at step {step}; it must be {least:g} "
                        + (f"to {most:g}." if most < np.inf else "or more.")
                    )

    def _some_steps(self) -> range:
        """Return steps of the run, enough to find the extremes of a schedule."""
        return range(0, self.total_steps, max(self.total_steps // 10_000, 1))

    def _lower_target(self) -> None:
        if self.objective.target_encoder in self.objective.trained().values():
            name = type(self.objective).__name__
            raise SettingError(f"{name} has no target encoder that is not trained. Omit target_bf16.")
        for block in self.objective.target_encoder.blocks:
            cast("Block", block).products = torch.bfloat16

    def _share_masks(self) -> None:
        masks = self._own_masks()
        if not masks:
            name = type(self.objective).__name__
            raise SettingError(f"{name} draws no masks, mask_batch is 'all'. Set mask_batch to 'rank'.")
        ranks = {"rank": self.global_rank, "world_size": self.trainer.world_size}
        self.objective.masks = [RankRows(strategy=mask, **ranks) for mask in masks]

    def _own_masks(self) -> list[MaskStrategy]:
        """Return the mask strategies without the wrappers that an interrupted fit may have left."""
        return [mask.strategy if isinstance(mask, RankRows) else mask for mask in self.objective.masks]

    def _log_now(self) -> bool:
        """Return whether to log the figures of this step: the first of the run, and the last of every n."""
        step = self.trainer.global_step
        return step == 0 or (step + 1) % log_interval(self.trainer) == 0

    def _named(self, stage: str, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{stage}/{name}": value for name, value in metrics.items()}
