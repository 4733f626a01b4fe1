"""`--help` is read from source text; it says what the parsers of the verbs say."""

import importlib
import re

import pytest

from tests.test_docs import flags_of
from vjepa.commands.app import VERBS, main, verb_parser
from vjepa.commands.help import RECIPE_FLAGS, described, help_of
from vjepa.commands.parsing import known_keys


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if not verb.forwards])
def test_help_names_each_flag_of_the_parser_with_its_default(name):
    module, function = VERBS[name].target.split(":")
    parser = verb_parser(name, getattr(importlib.import_module(module), function))
    about, flags = described(module, function)
    assert parser.description == about
    shown = {flag.name: flag for flag in flags}
    assert set(shown) == {key for key in known_keys(parser) if key not in ("grid", "anticipation")}
    for action in parser._actions:
        if action.dest in shown and action.option_strings:
            flag = shown[action.dest]
            assert flag.help == " ".join(action.help.split()), flag.name
            default = parser.get_defaults().get(action.dest) if not action.required else None
            assert (flag.default is None) == bool(action.required), flag.name
            if isinstance(default, (int, float, bool)):
                assert eval(flag.default) == default, flag.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit", "validate"])
def test_the_twenty_flags_of_a_recipe_are_real(name):
    known = flags_of(name)
    below_a_class = {"model.lr.init_args.peak"}
    assert len(RECIPE_FLAGS) == 20
    assert set(RECIPE_FLAGS) - below_a_class <= set(known)
    text = help_of(name)
    assert "--ckpt_path" in text and "auto (as last" in " ".join(text.split())
    assert len(re.findall(r"^  --", text, re.MULTILINE)) == 21  # and --help_all


def test_an_estimate_lists_its_own_flags_first():
    text = help_of("estimate")
    assert text.index("--gpus") < text.index("--trainer.max_steps")


@pytest.mark.slow
def test_help_all_lists_what_the_parser_knows(capsys):
    assert main(["data", "world", "--help_all"]) == 0
    assert "--print_config" in capsys.readouterr().out
