"""Runs with weights in halves: they learn, resume, and leave what any other precision goes on from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.recipes import tiny_recipe
from tests.training.runs import RUN_WARNINGS, clip_loader, quiet_trainer, tiny_module
from tests.videos import write_videos
from vjepa.checkpoints import load_encoder
from vjepa.commands.app import main
from vjepa.optim import Constant, in_halves
from vjepa.training import Bf16True

pytestmark = pytest.mark.filterwarnings(*RUN_WARNINGS)


def fitted(folder: Path, epochs: int, checkpoint: Path | None = None, **arguments):
    """A module after a run of 4 steps an epoch; the checkpoint of its end is in `folder`."""
    module = tiny_module(lr=Constant(at=1e-5), momentum=Constant(at=0.999))
    trainer = quiet_trainer(folder, max_epochs=epochs, **arguments)
    trainer.fit(module, clip_loader(8, 2), ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{trainer.global_step}.ckpt")
    return module


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_small_steps_and_a_slow_average_are_not_lost(tmp_path):
    before = tiny_module().state_dict()
    exact, rounded = fitted(tmp_path, 1).state_dict(), fitted(tmp_path, 1, plugins=[Bf16True()]).state_dict()
    for name, start in before.items():
        moved, reference = rounded[name] - start, exact[name] - start
        assert rounded[name].dtype == torch.float32
        if reference.any():
            # the same way as in fp32, all but gradients too small to have a sign in bfloat16
            assert torch.cosine_similarity(moved.flatten(), reference.flatten(), dim=0) > 0.8, name


def test_a_run_resumes_to_the_same_weights(tmp_path):
    fitted(tmp_path / "whole", 2, plugins=[Bf16True()])
    fitted(tmp_path / "stopped", 1, plugins=[Bf16True()])
    fitted(tmp_path / "stopped", 2, tmp_path / "stopped" / "4.ckpt", plugins=[Bf16True()])
    whole, stopped = (weights_of(tmp_path / name / "8.ckpt") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_checkpoint_goes_on_in_any_precision(tmp_path):
    fitted(tmp_path, 1, plugins=[Bf16True()])
    held = weights_of(tmp_path / "4.ckpt")
    assert any(not torch.equal(w, w.bfloat16().float()) for w in held.values())  # in full
    for name, arguments in (("fp32", {}), ("mixed", {"precision": "bf16-mixed"})):
        module = fitted(tmp_path / name, 2, tmp_path / "4.ckpt", **arguments)
        assert not in_halves(module)
    fitted(tmp_path / "back", 3, tmp_path / "fp32" / "8.ckpt", plugins=[Bf16True()])
    encoder = load_encoder(tmp_path / "back" / "12.ckpt")
    assert next(encoder.parameters()).dtype == torch.float32


@pytest.mark.filterwarnings(
    "ignore:Found .* eval mode"
)  # a second fit finds the target encoder as the first left it
@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_rounded_weights_are_refused_and_the_advice_holds(precision, tmp_path):
    with pytest.raises(ValueError, match="Leave precision out and give plugins=.vjepa.training.Bf16True"):
        quiet_trainer(tmp_path, precision=precision).fit(tiny_module(), clip_loader(2, 1))
    module = tiny_module()
    for _ in range(2):
        quiet_trainer(tmp_path, plugins=[Bf16True()]).fit(module, clip_loader(2, 1))
    with pytest.raises(ValueError, match="Give plugins=.*again"):
        quiet_trainer(tmp_path).fit(module, clip_loader(2, 1))


def test_a_network_in_bfloat16_is_trained_with_one_in_fp32(tmp_path):
    module = tiny_module()
    module.objective.context_encoder.bfloat16()
    quiet_trainer(tmp_path, plugins=[Bf16True()]).fit(module, clip_loader(2, 1))
    assert all(weight.dtype == torch.float32 for weight in module.state_dict().values())


@pytest.mark.slow
def test_a_fit_in_bf16_true_probes_its_encoder_and_is_validated(tmp_path):
    for label in "ab":
        write_videos(tmp_path / "clips" / label, 4, num_frames=6, height=24, width=24)
    probe = {"class_path": "vjepa.training.online_probe.OnlineProbe", "init_args": {"every_n_steps": 2}}
    root = tmp_path / "runs"
    recipe = tiny_recipe(tmp_path, tmp_path / "clips", root=root, precision="bf16-true", callbacks=[probe])
    clips = ["--data.val", str(tmp_path / "clips")]
    assert main(["fit", "--config", str(recipe), *clips]) == 0
    assert "probe/linear_gain" in (root / "version_0" / "metrics.csv").read_text()
    (checkpoint,) = root.glob("version_0/checkpoints/last.ckpt")
    exported = load_encoder(root / "version_0" / "export").state_dict()
    for name, weight in weights_of(checkpoint).items():
        if name.startswith("objective.target_encoder."):
            assert torch.equal(weight, exported[name.removeprefix("objective.target_encoder.")])
    assert main(["validate", "--config", str(recipe), *clips, "--ckpt_path", str(checkpoint)]) == 0


@pytest.mark.slow
def test_two_ranks_keep_the_same_weights(tmp_path):
    command = [sys.executable, "-m", "tests.training.ranks", "bf16-true", "2", "2", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"] and len(first["losses"]) == 10


@pytest.mark.slow
def test_sharded_networks_are_refused(tmp_path):
    command = [sys.executable, "-m", "tests.training.ranks", "fsdp2-bf16-true", "2", "1", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode != 0 and "bf16-true is not for strategy fsdp2. Set it to bf16-mixed" in done.stderr
