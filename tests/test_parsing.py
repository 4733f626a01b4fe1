"""The parsers' own words made into one line, on a plain parser and on a real LightningCLI."""

import sys

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule
from torch import nn

from vjepa.commands.parsing import explained, known_keys
from vjepa.errors import UsageError

NEAREST = ": the nearest real one is 'width'."


class Part(nn.Module):
    def __init__(self, *, width: int = 4, inner: nn.Module | None = None) -> None:
        super().__init__()


class Net(LightningModule):
    def __init__(self, *, part: nn.Module, parts: list[nn.Module] = [], learning_rate: float = 0.1) -> None:  # noqa: B006
        super().__init__()
        self.part = part


class Clips(BoringDataModule):
    def __init__(self, *, num_clips: int = 4) -> None:
        super().__init__()


class StrictCLI(LightningCLI):
    def parse_arguments(self, parser, args):
        with explained(parser, args):
            self.config = parser.parse_args(args)


@pytest.fixture
def part(monkeypatch):
    """Class path of `Part`, which a parser imports by name."""
    module = type(sys)("outside")
    module.Part = Part
    monkeypatch.setitem(sys.modules, "outside", module)
    return "outside.Part"


def error_of(*argv: str) -> str:
    strict = {"allow_abbrev": False, "exit_on_error": False}
    with pytest.raises(UsageError) as caught:
        StrictCLI(
            Net,
            Clips,
            args=list(argv),
            auto_configure_optimizers=False,
            save_config_callback=None,
            parser_kwargs={**strict, "fit": strict, "validate": strict},
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--data.num_clip", "4"], "unknown flag --data.num_clip: the nearest real one is --data.num_clips."),
        (["--data.num_clip=4"], "unknown flag --data.num_clip: the nearest real one is --data.num_clips."),
        (["--trainer.max_stps=4"], "the nearest real one is --trainer.max_steps."),
        (["--cnfig", "a.yaml"], "the nearest real one is --config."),
        (
            ["--model.part.widht", "4"],
            "unknown key 'model.part.widht' of outside.Part{width}",
        ),
        (["--model.learning_rate", "fast"], "key 'model.learning_rate': Expected a float. Got value: fast."),
        (["--config", "absent.yaml"], "File does not exist"),
        (["stray"], "unexpected argument 'stray': it belongs to no flag."),
    ],
)
def test_flags_of_lightning_cli(part, flags, told):
    assert told.format(width=NEAREST) in error_of("fit", "--model.part", part, *flags)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("modl:\n  part: outside.Part\n", "unknown key 'modl' ({file}:1): the nearest real one is 'model'."),
        (
            "model:\n  part: outside.Part\n  learnng_rate: 3\n",
            "unknown key 'model.learnng_rate' ({file}:3): the nearest real one is 'model.learning_rate'.",
        ),
        (
            "model:\n  part:\n    class_path: outside.Part\n    init_args:\n      widht: 3\n",
            "unknown key 'model.part.widht' of outside.Part ({file}:5){width}",
        ),
        (
            "model:\n  part:\n    class_path: outside.Part\n    init_args:\n"
            "      inner:\n        class_path: outside.Part\n        init_args: {widht: 3}\n",
            "unknown key 'model.part.inner.widht' of outside.Part ({file}:7){width}",
        ),
        (
            "model:\n  part: outside.Part\n  parts:\n"
            "  - class_path: outside.Part\n    init_args: {widht: 3}\n",
            "unknown key 'model.parts.widht' of outside.Part ({file}:5){width}",
        ),
        (
            "model:\n  part:\n    class_path: outside.Prt\n",
            "({file}:3): the nearest real one is outside.Part.",
        ),
        ("model:\n  part: [\n", "Problems parsing config"),
        (
            "data:\n  num_clips: 3\n",
            "missing --model.part: give it on the command line or in a --config file.",
        ),
    ],
)
def test_recipes_of_lightning_cli(part, tmp_path, recipe, told):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe)
    assert told.format(file=file, width=NEAREST) in error_of("fit", "--config", str(file))


@pytest.fixture
def files(part, tmp_path):
    """A recipe, and a function that writes a second file and returns the flags of both."""
    (tmp_path / "recipe.yaml").write_text(
        f"model:\n  part: {part}\n  learning_rate: 3\ndata:\n  num_clips: 3\n"
    )

    def with_overlay(text: str) -> list[str]:
        (tmp_path / "over.yaml").write_text(text)
        return ["--config", str(tmp_path / "recipe.yaml"), f"--config={tmp_path / 'over.yaml'}"]

    return with_overlay


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ("model:\n  part: {init_args: {widht: 3}}\n", "'model.part.widht' of outside.Part ({file}:2)"),
        ("model:\n  width: 3\n", "unknown key 'model.width' ({file}:2)"),
        ("# learning_rat\nmodel.learning_rat: 3\n", "unknown key 'model.learning_rat' ({file}:2)"),
        ("data:\n  learning_rate: 3\n", "unknown key 'data.learning_rate' ({file}:2)"),
        ("model: [\n", 'did not find expected node content in "{file}", line 2'),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_the_file_of_several_that_is_wrong_is_named(files, tmp_path, verb, overlay, told):
    assert told.format(file=tmp_path / "over.yaml") in error_of(verb, *files(overlay))


def test_an_overlay_alone_or_at_an_old_place_is_explained(part, tmp_path):
    (tmp_path / "objectives").mkdir()
    overlay = tmp_path / "objectives" / "pixels.yaml"
    overlay.write_text(
        "# Overlay: pixels.\n# Command:  vjepa fit --config A --config B\ndata: {num_clips: 3}\n"
    )
    assert error_of("fit", "--config", str(overlay)).endswith(
        f"{overlay} is an overlay: give the recipe that it changes before it, as another --config."
    )
    assert error_of("fit", "--config", str(tmp_path / "pixels.yaml")) == (
        f"--config {tmp_path / 'pixels.yaml'}: no such file; {overlay} is an overlay. "
        "Give: vjepa fit --config A --config B"
    )


def test_advice_names_the_help_of_the_verb(part):
    assert error_of("validate", "--model.part", part, "--data.num_clip", "4").endswith("validate --help`.")


def test_the_advised_flag_works(part):
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_subclass_arguments(nn.Module, "part")
    with pytest.raises(UsageError, match="'width'"), explained(parser, []):
        parser.parse_args(["--part", part, "--part.widht", "3"])
    assert parser.parse_args(["--part", part, "--part.width", "3"]).part.init_args.width == 3


def test_known_keys_are_those_of_the_signature():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(torch.nn.LayerNorm, skip={"normalized_shape", "device", "dtype"})
    assert known_keys(parser) == ["eps", "elementwise_affine", "bias"]
