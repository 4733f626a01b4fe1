"""A run on several ranks, as a program: `python -m tests.training.ranks STRATEGY RANKS EPOCHS FOLDER [CHECKPOINT]`.

An epoch has 5 steps. Each rank writes the losses of its steps to FOLDER/rank<rank>.json, with the number of weights
that it holds; all together write a checkpoint at the end.
"""

import json
import sys
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from tests.training.runs import RandomClips, joined, quiet_trainer, tiny_module
from vjepa.masks import TubeBlocks
from vjepa.optim import Constant

GLOBAL_BATCH = 8
NUM_CLIPS = 40


def local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


class Losses(L.Callback):
    """The loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.values.append(float(outputs["loss"]))


def module():
    masks = [
        TubeBlocks(num_blocks=2, spatial_scale=(0.15, 0.5)),
        TubeBlocks(num_blocks=1, spatial_scale=(0.4, 0.4)),
    ]
    return tiny_module(masks, lr=Constant(at=1e-3), momentum=Constant(at=0.9), mask_batch="all")


def loader(rank: int, ranks: int) -> DataLoader:
    """Every `ranks`-th clip, as the datamodule deals them."""
    mine = list(range(rank, NUM_CLIPS, ranks))
    return DataLoader(
        RandomClips(NUM_CLIPS), batch_size=GLOBAL_BATCH // ranks, sampler=mine, collate_fn=joined
    )


def main(strategy: str, ranks: int, epochs: int, folder: Path, checkpoint: str | None = None) -> None:
    losses = Losses()
    chosen = ModelParallelStrategy(save_distributed_checkpoint=False) if strategy == "fsdp2" else strategy
    settings = {"devices": ranks, "max_epochs": epochs, "use_distributed_sampler": False}
    trainer = quiet_trainer(folder, strategy=chosen, callbacks=[losses], gradient_clip_val=1.0, **settings)
    network = module()
    trainer.fit(network, loader(trainer.global_rank, ranks), ckpt_path=checkpoint)
    assert network.objective.masks[0].num_blocks == 2  # as they were
    held = sum(local(p).numel() for p in trainer.lightning_module.parameters())
    result = {"losses": losses.values, "held": held}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(result))
    trainer.save_checkpoint(folder / "last.ckpt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), *sys.argv[5:])
