"""A tiny recipe for tests of the command line: real videos, a real trainer, seconds on one core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ENCODER = {
    "class_path": "vjepa.models.VideoEncoder",
    "init_args": {
        "img_size": 16,
        "patch_size": 8,
        "num_frames": 4,
        "tubelet_size": 2,
        "embed_dim": 24,
        "depth": 1,
        "num_heads": 2,
    },
}
PREDICTOR = {
    "class_path": "vjepa.models.Predictor",
    "init_args": {"embed_dim": 12, "depth": 1, "num_heads": 1},
}


def tiny_recipe(
    folder: Path, train: Path | str | list[dict[str, Any]], *, root: Path | str, **trainer: Any
) -> Path:
    """Write a recipe to `folder`/tiny.yaml.

    Args:
        folder: Where to.
        train: Source of the training clips, or the parts of a mixture.
        root: `trainer.default_root_dir`.
        **trainer: More of the trainer's settings.
    """
    settings = {"accelerator": "cpu", "max_steps": 8, "max_epochs": -1, "log_every_n_steps": 1}
    recipe = {
        "seed_everything": 3,
        "trainer": {**settings, "default_root_dir": str(root), **trainer},
        "model": {
            "objective": {
                "class_path": "vjepa.objectives.LatentPrediction",
                "init_args": {
                    "encoder": ENCODER,
                    "predictor": PREDICTOR,
                    "masks": [{"class_path": "vjepa.masks.RandomTubes", "init_args": {"ratio": 0.5}}],
                },
            },
            "lr": {"class_path": "vjepa.optim.WarmupCosine", "init_args": {"peak": 1.0e-3}},
            "weight_decay": {"class_path": "vjepa.optim.Constant", "init_args": {"at": 0.05}},
            "momentum": {"class_path": "vjepa.optim.Linear", "init_args": {"start": 0.9, "end": 1.0}},
        },
        "data": {
            **({"parts": train} if isinstance(train, list) else {"train": str(train)}),
            "sampler": {"num_frames": 4, "fps": 4.0},
            "transform": {"size": 16},
            "batch_size": 4,
        },
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
