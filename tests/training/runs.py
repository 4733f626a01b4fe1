"""Tiny real runs: an objective, clips, and a trainer that writes nothing."""

from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from tests.masks.given import Given
from vjepa.models import Predictor, VideoEncoder
from vjepa.objectives import LatentPrediction
from vjepa.optim import Constant, Linear
from vjepa.training import PretrainModule
from vjepa.types import ClipBatch, MaskPair

RUN_WARNINGS = (
    # advice of Lightning's that a run of a second on one core need not follow
    "ignore:.*does not have many workers",
    "ignore:You defined a `validation_step` but have no",
    # Lightning 2.6 on torch 2.15
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning",
)
FIRST_HALF = MaskPair(context=torch.arange(8)[None], target=torch.arange(8, 16)[None])  # of 2 x 2 x 4 tokens


class RandomClips(Dataset):
    """Clips of noise, each its own."""

    def __init__(self, num_clips: int) -> None:
        self.videos = torch.randn(num_clips, 3, 4, 16, 32, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> ClipBatch:
        one = torch.tensor([index])
        return ClipBatch(video=self.videos[index : index + 1], label=one, index=one)


def joined(batches: list[ClipBatch]) -> ClipBatch:
    return ClipBatch(*(torch.cat([getattr(b, k) for b in batches]) for k in ("video", "label", "index")))


def clip_loader(num_clips: int, batch_size: int) -> DataLoader:
    return DataLoader(RandomClips(num_clips), batch_size=batch_size, collate_fn=joined)


def tiny_module(masks=None, **arguments) -> PretrainModule:
    torch.manual_seed(0)
    settings = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    objective = LatentPrediction(
        encoder=VideoEncoder(img_size=(16, 32), patch_size=8, num_frames=4, **settings),
        predictor=lambda width: Predictor(width, **settings),
        masks=masks or [Given(FIRST_HALF)],
    )
    schedules = {
        "lr": Constant(at=0.01),
        "weight_decay": Constant(at=0.1),
        "momentum": Linear(start=0.5, end=1.0),
    }
    return PretrainModule(objective=objective, **{**schedules, **arguments})


def quiet_trainer(folder: Path, **arguments) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    settings = {"accelerator": "cpu", "default_root_dir": folder, "log_every_n_steps": 1, "max_epochs": 1}
    return L.Trainer(**{**quiet, **settings, **arguments})


class Recorder(L.Callback):
    """The target encoder's weights after each batch, and the loss."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.steps: list[int] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        parameters = pl_module.objective.target_encoder.parameters()
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in parameters]))
        self.steps.append(trainer.global_step)
