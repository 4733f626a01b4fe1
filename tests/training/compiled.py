"""How far weights trained with compiled blocks are from plain ones: `python -m tests.training.compiled`.

A program of its own, for the checks of shapes that tests put around every function cannot be compiled.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import torch

from tests.training.runs import clip_loader, quiet_trainer, tiny_module
from vjepa.masks import RandomTubes


def weights(folder: Path, **settings: bool) -> torch.Tensor:
    """All weights after 4 steps."""
    module = tiny_module([RandomTubes(ratio=0.5)], **settings)
    quiet_trainer(folder).fit(module, clip_loader(8, 2))
    compiled = any(child._compiled_call_impl is not None for child in module.modules())
    assert compiled == settings.get("compile_blocks", False)
    return torch.cat([p.detach().flatten() for p in module.parameters()])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        plain = weights(Path(name))
        for recompute in (False, True):
            other = weights(Path(name), compile_blocks=True, recompute_blocks=recompute)
            sys.stdout.write(f"apart {float((plain - other).abs().max()):.3e}\n")
