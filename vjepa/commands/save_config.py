"""The settings of a run, written to its folder."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from vjepa.files import write_text
from vjepa.training import run_folder


class SaveConfig(SaveConfigCallback):
    """Writes the settings of a run to its folder, without credentials of URLs."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`; called on the first rank alone."""
        folder = run_folder(trainer)
        assert folder is not None
        folder.mkdir(parents=True, exist_ok=True)
        write_text(self.parser.dump(self.config, skip_none=False), folder / self.config_filename)
