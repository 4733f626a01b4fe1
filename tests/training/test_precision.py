"""The precisions that a run can train in."""

from __future__ import annotations

import pytest

from tests.recipes import tiny_recipe
from tests.training.runs import RUN_WARNINGS, clip_loader, quiet_trainer, tiny_module
from vjepa.commands.app import main
from vjepa.errors import SettingError
from vjepa.training.precision import precision_name


@pytest.mark.parametrize("verb", ["fit", "validate", "estimate"])
def test_every_verb_refuses_bf16_true_in_one_line(verb, tmp_path, capsys):
    recipe = tiny_recipe(tmp_path, tmp_path / "clips", root=tmp_path / "runs", precision="bf16-true")
    assert main([verb, "--config", str(recipe)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "measured to be no faster than bf16-mixed and to take more memory. Set it to bf16-mixed." in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings(*RUN_WARNINGS)
@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_rounded_weights_are_refused_and_the_advice_holds(precision, tmp_path):
    with pytest.raises(SettingError, match="Set it to .*bf16-mixed"):
        quiet_trainer(tmp_path, precision=precision).fit(tiny_module(), clip_loader(2, 1))
    quiet_trainer(tmp_path, precision="bf16-mixed").fit(tiny_module(), clip_loader(2, 1))


@pytest.mark.parametrize(
    ("given", "name"), [(None, "32-true"), (32, "32-true"), ("16", "16-mixed"), ("bf16", "bf16-mixed")]
)
def test_short_names_are_those_of_the_trainer(given, name):
    assert precision_name(given) == precision_name(name) == name
