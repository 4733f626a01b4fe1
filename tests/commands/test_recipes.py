"""Keys of recipe files that hold an empty mapping, which the parser drops without a word."""

import pytest

from tests.recipes import tiny_recipe
from vjepa.commands.app import main
from vjepa.commands.recipes import check_empty_mappings
from vjepa.errors import UsageError

PARSED = {
    "trainer": {"devices": 1, "callbacks": None},
    "report": None,
    "model": {"parts": [{"class_path": "a.B", "init_args": {"width": 4}}]},
    "data": {"sampler": {"class_path": "a.C", "init_args": {"fps": 4.0}}, "extras": {}},
}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainerr: {}", "'trainerr' ({file}:1): the nearest real one is 'trainer'"),
        ("trainerr: {a: {}}", "'trainerr' ({file}:1)"),
        ("trainer:\n  devicess: {}", "'trainer.devicess' ({file}:2): the nearest real one is 'trainer.devices'"),
        ("data:\n  sampler: {fpss: {}}", "'data.sampler.fpss' ({file}:2): the nearest real one is 'data.sampler.fps'"),
        ("data:\n  sampler:\n    init_args:\n      fpss: {}", "'data.sampler.fpss' ({file}:4)"),
        ("model:\n  parts:\n  - class_path: a.B\n    init_args:\n      w: {}", "'model.parts.w' ({file}:5)"),
    ],
)  # fmt: skip
def test_an_unknown_key_with_an_empty_mapping_is_refused(tmp_path, text, told):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        check_empty_mappings(PARSED, ["--config", str(file)])
    assert told.format(file=file) in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "trainer: {}\nreport: {}\ndata: {extras: {}}",
        "data:\n  sampler: {class_path: a.Other, init_args: {fpss: {}}}",
        "model: {parts: [{init_args: {}}]}",
        "",
    ],
)
def test_known_keys_may_be_empty(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    check_empty_mappings(PARSED, ["--config", str(tmp_path / "recipe.yaml")])


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fit", "extract"])
def test_every_verb_refuses_it(tmp_path, capsys, verb):
    recipe = tiny_recipe(tmp_path, tmp_path, root=tmp_path / "runs")
    recipe.write_text(
        (recipe.read_text() if verb == "fit" else "encoder: a\ndata: b\nout: c\n") + "datta: {}\n"
    )
    assert main([verb, "--config", str(recipe)]) == 2
    assert "unknown key 'datta'" in capsys.readouterr().err
