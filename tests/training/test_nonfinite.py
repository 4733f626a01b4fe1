"""The guard against what is not finite, in real runs with one bad batch."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy

from tests.training.runs import RUN_WARNINGS, clip_loader, quiet_trainer, tiny_module
from vjepa.optim import Constant
from vjepa.training import AtomicCheckpointIO, NonFiniteError, NonFiniteGuard

pytestmark = pytest.mark.filterwarnings(*RUN_WARNINGS)

BAD = 5  # row of the clip with a NaN: in the third batch of two


def run(tmp_path, guard, *, bad=(BAD,), **arguments):
    loader = clip_loader(8, 2)
    for row in bad:
        loader.dataset.videos[row, 0, 0, 0, 0] = float("nan")
    module = tiny_module(momentum=Constant(at=0.9))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    logger = CSVLogger(tmp_path, name="")
    trainer = quiet_trainer(
        tmp_path, callbacks=[guard], logger=logger, plugins=[AtomicCheckpointIO()], **arguments
    )
    return module, trainer, loader, before


def finite(module) -> bool:
    return all(bool(value.isfinite().all()) for value in module.state_dict().values())


def test_stop_names_the_files_saves_the_batch_and_its_advice_holds(tmp_path):
    module, trainer, loader, _ = run(tmp_path, NonFiniteGuard())
    with pytest.raises(NonFiniteError, match="step 2: the loss is not finite.*row 4, row 5.*'skip'"):
        trainer.fit(module, loader)
    (saved,) = tmp_path.glob("**/bad_batches/step2_rank0.pt")
    held = torch.load(saved, weights_only=True)
    assert held["index"].tolist() == [4, 5] and held["video"][1].isnan().any()
    assert finite(module)
    module, trainer, loader, _ = run(tmp_path, NonFiniteGuard(action="skip"))
    trainer.fit(module, loader)
    assert trainer.global_step == 4 and finite(module)


def test_a_skipped_step_leaves_weights_and_optimiser(tmp_path):
    guard = NonFiniteGuard(action="skip", most=4)
    module, trainer, loader, before = run(tmp_path, guard, bad=range(8))
    trainer.fit(module, loader)
    assert guard.count == 4 and not trainer.optimizers[0].state
    after = module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "target_encoder" not in k)


def test_what_is_sharded_is_not_rolled_back_and_the_advice_holds(tmp_path):
    def sharding():
        return ModelParallelStrategy(save_distributed_checkpoint=False)

    guards = NonFiniteGuard(action="rollback"), NonFiniteGuard(action="skip")
    refused, taken = (quiet_trainer(tmp_path, strategy=sharding(), callbacks=[guard]) for guard in guards)
    with pytest.raises(ValueError, match="Give 'skip' or 'stop'"):
        guards[0].on_fit_start(refused, tiny_module())
    guards[1].on_fit_start(taken, tiny_module())


def test_too_many_skips_stop(tmp_path):
    module, trainer, loader, _ = run(tmp_path, NonFiniteGuard(action="skip", most=3), bad=range(8))
    with pytest.raises(NonFiniteError, match="most: 3"):
        trainer.fit(module, loader)


def test_the_bad_micro_batch_of_a_step_is_named(tmp_path):
    module, trainer, loader, _ = run(tmp_path, NonFiniteGuard(), bad=[0], accumulate_grad_batches=4)
    with pytest.raises(NonFiniteError, match="row 0, row 1;"):
        trainer.fit(module, loader)


def test_an_infinite_gradient_of_a_finite_loss_is_seen(tmp_path):
    module, trainer, loader, _ = run(tmp_path, NonFiniteGuard(), bad=())
    next(module.objective.predictor.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        trainer.fit(module, loader)


def test_rollback_puts_the_last_checkpoint_back(tmp_path):
    guard = NonFiniteGuard(action="rollback")
    module, trainer, loader, _ = run(tmp_path, guard)
    first = {}

    class SaveFirst(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 0:
                trainer.save_checkpoint(tmp_path / "version_0" / "checkpoints" / "last.ckpt")
                first.update({k: v.clone() for k, v in pl_module.state_dict().items()})
            if batch_idx == 2:
                after = pl_module.objective.context_encoder.state_dict()
                self.equal = all(
                    torch.equal(v, first[f"objective.context_encoder.{k}"]) for k, v in after.items()
                )

    watch = SaveFirst()
    trainer.callbacks.append(watch)
    trainer.fit(module, loader)
    assert guard.count == 1 and watch.equal and finite(module)


def test_the_count_survives_a_resume(tmp_path):
    guard = NonFiniteGuard(action="skip")
    guard.load_state_dict({"count": 7})
    assert guard.state_dict() == {"count": 7}
