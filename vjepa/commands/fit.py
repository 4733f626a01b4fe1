"""The verbs `fit` and `validate`: LightningCLI over one module and one datamodule, and the report at the end."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vjepa.checkpoints.strict import key_diff
from vjepa.commands.console import StatusLine, log_terminal, one_line
from vjepa.commands.fit_report import ReportSettings, report_run
from vjepa.commands.parsing import explained
from vjepa.commands.recipes import check_empty_mappings, dropped_settings, own_data_first
from vjepa.commands.report import Report, write_result
from vjepa.commands.run_folder import (
    LAST,
    checkpoint_at,
    link_latest,
    loggers_of,
    newest_checkpoint,
    run_root,
)
from vjepa.commands.save_config import SaveConfig
from vjepa.commands.trainer_settings import check_length, explained_trainer
from vjepa.data import VideoDataModule
from vjepa.errors import UsageError
from vjepa.training import (
    AtomicCheckpointIO,
    ExportEncoder,
    HealthVerdict,
    LastCheckpoint,
    MonitoredFigures,
    NonFiniteGuard,
    PretrainModule,
    ProgressLines,
    StopOnLostWorker,
    StopOnSignal,
    gathered_network,
    keeps_files,
    run_folder,
)
from vjepa.training.precision import precision_name

log = logging.getLogger(__name__)

QUIET = (  # warnings of Lightning that do not help the user of a recipe
    r".*isinstance\(treespec, LeafSpec\)",
    r".*The number of training batches .* is smaller than the logging interval",
    r".*does not have many workers which may be a bottleneck",
    r".*is not in the `val_dataloaders`",
    r"\s*By default only one JsonargparseDeprecationWarning",
    r"\s*``instantiate_classes`` was deprecated",
    r"\s*skip_none parameter was deprecated",
    r"find_unused_parameters=True was specified",  # raised if a batch uses all weights after all
    r"The dirpath has changed from",  # a resumed run writes to a new folder
    r"Found \d+ module\(s\) in eval mode",  # a frozen encoder stays in eval mode
)
STEPS_BETWEEN_CHECKPOINTS = 200


def main(verb: str, argv: Sequence[str]) -> Report:
    """Run `vjepa fit` or `vjepa validate`.

    Returns:
        The measured figures; for a fit loss and health and, if the recipe asks for it, probes and a picture.
    """
    return started(FitCLI, verb, argv, trainer_class=Trainer).outcome


def started(kind: type[FitCLI], verb: str, argv: Sequence[str], *, trainer_class: type[Trainer]) -> FitCLI:
    """Parse a recipe and run the verb on it."""
    for noise in QUIET:
        warnings.filterwarnings("ignore", message=noise)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # the import sets it to INFO
    try:
        return _cli(kind, [verb, *argv], trainer_class)
    except MisconfigurationException as error:  # found only when the data are there
        raise UsageError(f"a setting of the trainer: {one_line(error)}") from error


def _cli(kind: type[FitCLI], argv: list[str], trainer_class: type[Trainer]) -> FitCLI:
    return kind(
        PretrainModule,
        VideoDataModule,
        SaveConfig,
        {"save_to_log_dir": False},
        trainer_class=trainer_class,
        seed_everything_default=0,
        auto_configure_optimizers=False,  # else every verb grows a second, dead --optimizer
        load_from_checkpoint_support=False,
        parser_kwargs={key: {"allow_abbrev": False, "exit_on_error": False} for key in kind.subcommands()}
        | {"prog": "vjepa", "allow_abbrev": False, "exit_on_error": False},
        args=argv,
    )


class FitCLI(LightningCLI):
    """LightningCLI with strict flags, one seed for everything, and a report at the end."""

    outcome = Report()

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return, for both verbs, the arguments of the trainer's method that are not flags."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the end-of-run report, and one seed for masks and data."""
        for part in ("model", "data"):
            parser.link_arguments("seed_everything", f"{part}.seed", compute_fn=int)
        parser.add_argument(
            "--report", type=ReportSettings | None, default=None, help="report at the end of a fit"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, or explain in one line what is wrong."""
        argv = own_data_first(cast("list[str]", args))
        with explained(parser, argv):
            self.config = parser.parse_args(argv)
        parsed = self.config[self.config.subcommand].as_dict()
        check_empty_mappings(parsed, argv)
        for dropped in dropped_settings(parsed, argv):
            log.warning(dropped)
        self.find_checkpoint()

    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint: LightningCLI would import the class that its hyper_parameters name."""

    def find_checkpoint(self) -> None:
        """Check that the checkpoint to resume from exists, and replace "last" and "auto" by its path."""
        settings = self.config[self.config.subcommand]
        if settings.ckpt_path in ("last", "auto"):
            root = run_root(settings)
            found = newest_checkpoint(root)
            if found is None and settings.ckpt_path == "last":
                raise UsageError(
                    f"--ckpt_path last: no {LAST} below {root}. Give the file, or --trainer.default_root_dir, or "
                    "auto to start a new run if there is none."
                )
            log.info(
                "--ckpt_path %s: %s", settings.ckpt_path, found or f"no {LAST} below {root}, from the start"
            )
            settings.ckpt_path = None if found is None else str(found)
        if settings.ckpt_path is not None:
            checkpoint_at(Path(settings.ckpt_path))  # LightningCLI would read it with a traceback

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with two loggers, atomic checkpoints, and lines of progress."""
        settings = self._get(self.config_init, "trainer")
        precision_name(settings.precision)
        if self.subcommand == "fit":
            check_length(settings)
        kwargs["callbacks"] = [*(settings.callbacks or []), *self._callbacks(settings)]
        kwargs["enable_progress_bar"] = (
            False  # `ProgressLines` shows more, and shares the terminal with the log
        )
        plugins = settings.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        atomic = [] if any(isinstance(plugin, CheckpointIO) for plugin in plugins) else [AtomicCheckpointIO()]
        kwargs["plugins"] = [*plugins, *atomic]
        kwargs["enable_model_summary"] = bool(settings.enable_model_summary)
        kwargs["use_distributed_sampler"] = (
            False  # the datamodule's own sampler splits the clips between ranks
        )
        root = run_root(self.config[self.config.subcommand])
        if settings.logger in (None, True):
            kwargs["logger"] = False  # `before_fit` makes the folder of the run, and validate needs none
        if self.config.subcommand == "validate":
            self.save_config_callback = None
        kwargs["default_root_dir"] = root
        if settings.strategy == "fsdp2":  # one file per checkpoint, as with every other strategy
            kwargs["strategy"] = ModelParallelStrategy(save_distributed_checkpoint=False)
        callbacks = kwargs.pop("callbacks")  # LightningCLI adds to the list it is given
        with explained_trainer(settings):
            trainer = super().instantiate_trainer(callbacks=list(callbacks), **kwargs)
        if settings.strategy in ("auto", "ddp") and isinstance(trainer.strategy, DDPStrategy):
            # some weights are not used in every batch: mask tokens beyond the mask strategies, and the patch
            # embedding of clips in a batch of images
            kwargs["strategy"] = "ddp_find_unused_parameters_true"
            trainer = super().instantiate_trainer(callbacks=list(callbacks), **kwargs)
        return trainer

    def before_fit(self) -> None:
        """Check the data before the loggers create a folder, and start the clock."""
        self._check_checkpoint()
        self._check_monitors()
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        settings = self.config[self.config.subcommand]
        if settings.trainer.logger in (None, True) and not cast("Any", self.trainer).fast_dev_run:
            self.trainer.loggers = loggers_of(run_root(settings))
        self.started = time.monotonic()

    def after_fit(self) -> None:
        """Report the run."""
        seconds = round(time.monotonic() - self.started, 1)
        self.datamodule.ledger.gather()
        if not keeps_files(self.trainer):
            return
        encoder = gathered_network(self.model.objective.target_encoder)  # all ranks together
        if not self.trainer.is_global_zero:
            return
        settings = self.config_init[self.config.subcommand]
        run = run_folder(self.trainer)
        assert run is not None  # it keeps files
        if settings.trainer.logger in (None, True):
            run = link_latest(run)
        self.outcome = report_run(
            self.trainer, self.model, encoder, self.datamodule, settings.report, run=run
        )
        write_result(
            Path(self.outcome.figures["log_dir"]),
            figures=self.outcome.figures | {"fit_seconds": seconds},
            settings=self.config[self.config.subcommand].as_dict(),
            seed=settings.seed_everything,
        )

    def before_validate(self) -> None:
        """Check data and checkpoint before the loggers create a folder."""
        self._check_checkpoint()
        self.datamodule.prepare_data()
        self.datamodule.setup("validate")

    def after_validate(self) -> None:
        """Report the measured figures, from the first rank."""
        if not self.trainer.is_global_zero:
            return
        figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.outcome = Report(title="validation", figures=figures)

    def _check_checkpoint(self) -> None:
        """Check that the checkpoint fits the model, and that the folder of the run can be created."""
        settings = self.config[self.config.subcommand]
        root = run_root(settings).absolute()
        real = next(place for place in (root, *root.parents) if place.exists())
        if not real.is_dir():
            raise UsageError(
                f"--trainer.default_root_dir {root}: {real} is a file. Give a folder, new or old."
            )
        if settings.ckpt_path is None:
            return
        content = checkpoint_at(Path(settings.ckpt_path))
        weights, step = content.get("state_dict", {}), content.get("global_step", 0)
        if 0 < self.trainer.max_steps <= step:
            log.warning(
                "%s is of step %d, --trainer.max_steps %d: nothing is left to train",
                settings.ckpt_path,
                step,
                self.trainer.max_steps,
            )
        if diff := key_diff(self.model.state_dict(), weights):
            raise UsageError(
                f"--ckpt_path {settings.ckpt_path} belongs to another model: {diff}. Give its own recipe."
            )

    def _check_monitors(self) -> None:
        """Check that the run has the probes by which checkpoints are chosen."""
        trainer = cast("Any", self.trainer)
        monitors = {getattr(callback, "monitor", None) or "" for callback in trainer.checkpoint_callbacks}
        wanted = {monitor for monitor in monitors if monitor.startswith("probe/")}
        if not wanted:
            return
        from vjepa.training.online_probe import OnlineProbe

        probes = [callback for callback in trainer.callbacks if isinstance(callback, OnlineProbe)]
        made = {f"probe/{kind}{end}" for probe in probes for kind in probe.kinds for end in ("", "_gain")}
        if missing := wanted - made:
            there = (
                f"There are {', '.join(sorted(made))}"
                if made
                else "There is no vjepa.training.online_probe.OnlineProbe"
            )
            raise UsageError(
                f"ModelCheckpoint: monitor {min(missing)} is not a figure of this run. {there} in trainer.callbacks."
            )

    def _callbacks(self, settings: Namespace) -> list[Any]:
        given = [type(callback) for callback in settings.callbacks or []]
        terminal = None if settings.enable_progress_bar is False else log_terminal()
        own: list[Any] = [ExportEncoder()]
        # the same line, where there is no terminal less often and each below the last
        on_terminal = terminal and ProgressLines(show=StatusLine(terminal), every_seconds=0.25)
        own.append(on_terminal or ProgressLines())
        own += [make() for make in (HealthVerdict, NonFiniteGuard) if make not in given]
        own.append(MonitoredFigures())
        chosen = [each for each in settings.callbacks or [] if isinstance(each, ModelCheckpoint)]
        # a checkpoint that waits for a figure does not suffice: a run killed before it could not resume
        if settings.enable_checkpointing is not False and all(each.monitor for each in chosen):
            own.append(
                ModelCheckpoint(
                    filename=LAST.removesuffix(".ckpt"),
                    every_n_train_steps=STEPS_BETWEEN_CHECKPOINTS,
                    enable_version_counter=False,
                )
            )
        if settings.enable_checkpointing is not False:
            own += [LastCheckpoint(LAST), StopOnSignal(LAST), StopOnLostWorker(LAST)]
        return own
