"""The verbs `fit` and `validate`: LightningCLI over one module and one datamodule, and the report at the end."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from vjepa.checkpoints.opening import check_whole, open_safely
from vjepa.checkpoints.strict import CheckpointError, key_diff
from vjepa.commands.fit_report import ReportSettings, report_run
from vjepa.commands.parsing import explained
from vjepa.commands.recipes import dropped_settings
from vjepa.commands.report import Report, write_result
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
    complete,
    keeps_files,
)
from vjepa.training.precision import precision_name

log = logging.getLogger(__name__)

LAST = "last.ckpt"
QUIET = (  # Lightning's own, of no use to who runs a recipe
    r".*isinstance\(treespec, LeafSpec\)",
    r".*The number of training batches .* is smaller than the logging interval",
    r".*does not have many workers which may be a bottleneck",
    r".*is not in the `val_dataloaders`",
    r"\s*By default only one JsonargparseDeprecationWarning",
    r"\s*``instantiate_classes`` was deprecated",
    r"\s*skip_none parameter was deprecated",
    r"find_unused_parameters=True was specified",  # where a batch uses them all after all
    r"The dirpath has changed from",  # a resumed run writes to a folder of its own
    r"Found \d+ module\(s\) in eval mode",  # a frozen encoder stays in it
)
STEPS_BETWEEN_CHECKPOINTS = 200


def main(verb: str, argv: Sequence[str]) -> Report:
    """Run `vjepa fit` or `vjepa validate`.

    Args:
        verb: "fit" or "validate".
        argv: Its flags, as typed.

    Returns:
        What was measured: of a fit, loss and health and, where the recipe asks for it, probes and a picture.
    """
    return started(FitCLI, verb, argv, trainer_class=Trainer).outcome


def started(kind: type[FitCLI], verb: str, argv: Sequence[str], *, trainer_class: type[Trainer]) -> FitCLI:
    """Parse a recipe and do with it what the verb says.

    Args:
        kind: Whose verb it is.
        verb: One of its subcommands, a method of `trainer_class`.
        argv: Its flags, as typed.
        trainer_class: Whose arguments are flags.
    """
    for noise in QUIET:
        warnings.filterwarnings("ignore", message=noise)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(
            logging.WARNING
        )  # they set themselves to INFO when they are imported
    return kind(
        PretrainModule,
        VideoDataModule,
        trainer_class=trainer_class,
        seed_everything_default=0,
        auto_configure_optimizers=False,  # else every verb grows a second, dead --optimizer
        load_from_checkpoint_support=False,
        parser_kwargs={key: {"allow_abbrev": False, "exit_on_error": False} for key in kind.subcommands()}
        | {"prog": "vjepa", "allow_abbrev": False, "exit_on_error": False},
        args=[verb, *argv],
    )


class FitCLI(LightningCLI):
    """LightningCLI with strict flags, one seed for everything, and a report at the end."""

    outcome = Report()

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The two verbs, and which arguments of the trainer's methods are not flags."""
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
        argv = cast("list[str]", args)
        with explained(parser, argv):
            self.config = parser.parse_args(argv)
        for dropped in dropped_settings(self.config[self.config.subcommand].as_dict(), argv):
            log.warning(dropped)
        self.find_checkpoint()

    def find_checkpoint(self) -> None:
        """See that the checkpoint to go on from is there; "last" and "auto" become its name."""
        settings = self.config[self.config.subcommand]
        if settings.ckpt_path in ("last", "auto"):
            root = run_root(settings)
            found = newest_checkpoint(root)
            if found is None and settings.ckpt_path == "last":
                raise UsageError(
                    f"--ckpt_path last: no {LAST} below {root}. Give the file, or --trainer.default_root_dir, or "
                    "auto to begin where there is none."
                )
            log.info(
                "--ckpt_path %s: %s", settings.ckpt_path, found or f"no {LAST} below {root}, from the start"
            )
            settings.ckpt_path = None if found is None else str(found)
        if settings.ckpt_path is not None:
            checkpoint_at(Path(settings.ckpt_path))  # before LightningCLI reads it, with a traceback

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with what every run has: two logs, whole checkpoints, a bar or lines of progress."""
        settings = self._get(self.config_init, "trainer")
        precision_name(settings.precision)
        on_terminal = sys.stderr.isatty()
        kwargs["callbacks"] = [*(settings.callbacks or []), *self._callbacks(settings, on_terminal)]
        kwargs["enable_progress_bar"] = on_terminal and settings.enable_progress_bar is not False
        plugins = settings.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        atomic = [] if any(isinstance(plugin, CheckpointIO) for plugin in plugins) else [AtomicCheckpointIO()]
        kwargs["plugins"] = [*plugins, *atomic]
        kwargs["enable_model_summary"] = bool(settings.enable_model_summary)
        kwargs["use_distributed_sampler"] = False  # the datamodule's own sampler knows the ranks
        root = run_root(self.config[self.config.subcommand])
        if settings.logger in (None, True):
            csv = CSVLogger(root, name="")
            kwargs["logger"] = [csv, TensorBoardLogger(root, name="", version=csv.version)]
        kwargs["default_root_dir"] = root
        if settings.strategy == "fsdp2":  # one file a checkpoint, as every other strategy writes
            kwargs["strategy"] = ModelParallelStrategy(save_distributed_checkpoint=False)
        callbacks = kwargs.pop("callbacks")  # LightningCLI adds to the list it is given
        trainer = super().instantiate_trainer(callbacks=list(callbacks), **kwargs)
        if settings.strategy in ("auto", "ddp") and isinstance(trainer.strategy, DDPStrategy):
            # not all weights have a part in every batch: mask tokens beyond the mask strategies, and the patch
            # embedding of clips where a batch is of images
            kwargs["strategy"] = "ddp_find_unused_parameters_true"
            trainer = super().instantiate_trainer(callbacks=list(callbacks), **kwargs)
        return trainer

    def before_fit(self) -> None:
        """See that there are data, before the loggers make a folder, and start the clock."""
        self._check_checkpoint()
        self._check_monitors()
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        self.started = time.monotonic()

    def after_fit(self) -> None:
        """Sum up the run."""
        seconds = round(time.monotonic() - self.started, 1)
        self.datamodule.ledger.gather()
        if not keeps_files(self.trainer):
            return
        encoder = complete(self.model.objective.target_encoder)  # all ranks together
        if not self.trainer.is_global_zero:
            return
        settings = self.config_init[self.config.subcommand]
        self.outcome = report_run(self.trainer, self.model, encoder, self.datamodule, settings.report)
        write_result(
            Path(self.outcome.figures["log_dir"]),
            figures=self.outcome.figures | {"fit_seconds": seconds},
            settings=self.config[self.config.subcommand].as_dict(),
            seed=settings.seed_everything,
        )

    def before_validate(self) -> None:
        """See that there are data and a checkpoint, before the loggers make a folder."""
        self._check_checkpoint()
        self.datamodule.prepare_data()
        self.datamodule.setup("validate")

    def after_validate(self) -> None:
        """Report what was measured."""
        figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.outcome = Report(title="validation", figures=figures)

    def _check_checkpoint(self) -> None:
        """See that a checkpoint fits the model, and that there can be a folder for the run."""
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
        held, step = content.get("state_dict", {}), content.get("global_step", 0)
        if 0 < self.trainer.max_steps <= step:
            log.warning(
                "%s is of step %d, --trainer.max_steps %d: nothing is left to train",
                settings.ckpt_path,
                step,
                self.trainer.max_steps,
            )
        if diff := key_diff(self.model.state_dict(), held):
            raise UsageError(
                f"--ckpt_path {settings.ckpt_path} is of another model: {diff}. Give the recipe it was made with."
            )

    def _check_monitors(self) -> None:
        """See that the probes by which checkpoints are chosen are made."""
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
                f"ModelCheckpoint: monitor {min(missing)} is no figure of this run. {there} in trainer.callbacks."
            )

    def _callbacks(self, settings: Namespace, on_terminal: bool) -> list[Any]:
        given = [type(callback) for callback in settings.callbacks or []]
        own: list[Any] = [ExportEncoder(), RichProgressBar() if on_terminal else ProgressLines()]
        own += [make() for make in (HealthVerdict, NonFiniteGuard) if make not in given]
        own.append(MonitoredFigures())
        chosen = [each for each in settings.callbacks or [] if isinstance(each, ModelCheckpoint)]
        # one that waits for a figure is no substitute: a run that is killed before goes on from nowhere
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


def run_root(settings: Namespace) -> Path:
    """Folder of a recipe's runs: `--trainer.default_root_dir`, or `runs`."""
    return Path(settings.trainer.default_root_dir or "runs")


def checkpoint_at(path: Path) -> dict[str, Any]:
    """What a run's checkpoint holds, its tensors mapped and not copied.

    Raises:
        FileNotFoundError: If there is none.
        CheckpointError: If it is no file of torch's, or no checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint. Give a .ckpt file, or 'last'.")
    content = open_safely(path)
    check_whole(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds {type(content).__name__}, not a run. Give a .ckpt file of `fit`."
        )
    return content


def newest_checkpoint(root: Path) -> Path | None:
    """The newest `last.ckpt` below `root`, if there is one."""
    return max(root.glob(f"**/{LAST}"), key=lambda path: path.stat().st_mtime, default=None)
