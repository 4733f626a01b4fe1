"""Malformed texts end with 2 and the name of the file: a part of what `tools/attack_texts.py` does."""

import importlib.util
import sys
from pathlib import Path

import pytest

from vjepa.errors import FileError, SettingError
from vjepa.readers import content_of, parse_json, read_csv, read_json, read_yaml, tensors_header

TOOL = Path(__file__).parents[1] / "tools" / "attack_texts.py"


def load_tool():
    spec = importlib.util.spec_from_file_location("attack_texts", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["attack_texts"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1,\n "b" 2}', r":2:6: not JSON \(Expecting ':' delimiter\)"),
        (b"\xff\xfe", r": not JSON \('utf-8' codec"),
        (b"[" * 100_000, ": nested too deep"),
        (b"9" * 5000, r": not JSON \(Exceeds the limit"),
        (b"[1]", ": holds list, not an object"),
    ],
)
def test_json_is_refused_with_its_place(tmp_path, text, said):
    file = tmp_path / "some.json"
    file.write_bytes(text)
    with pytest.raises(FileError, match=f"some.json{said}"):
        read_json(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"id,label\n0,a\n1\n", ":3: 1 cells, the header has 2"),
        (b"id\n0\n", ":1: missing column 'label'; found id"),
        (b"", ":1: missing column 'id'; found an empty file"),
        (b"id,label\n0," + b"x" * 200_000, r": not CSV \(field larger"),
    ],
)
def test_csv_is_refused_with_its_place(tmp_path, text, said):
    file = tmp_path / "some.csv"
    file.write_bytes(text)
    with pytest.raises(FileError, match=f"some.csv{said}"):
        list(read_csv(file, ("id", "label")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", ":1:5: not YAML"),
        ("- a\nb: 1", ":2:1: not YAML"),
        ("a: 2001-99-99", r": not YAML \(month must"),
    ],
)
def test_yaml_is_refused_with_its_place(tmp_path, text, said):
    file = tmp_path / "some.yaml"
    file.write_text(text)
    with pytest.raises(FileError, match=f"some.yaml{said}"):
        read_yaml(file)


def test_a_header_and_an_unexpected_value_name_the_file(tmp_path):
    file = tmp_path / "some.safetensors"
    file.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(FileError, match="some.safetensors: not a complete safetensors file"):
        tensors_header(file)
    for wrong, said in ((lambda: {}["x"], "no 'x'"), (lambda: [] + 1, "can only concatenate")):
        with pytest.raises(FileError, match=rf"some.json: not a list of clips \({said}"):
            with content_of("some.json", "a list of clips"):
                wrong()
    with pytest.raises(FileError, match="some.json: fps 0"):
        with content_of("some.json"):
            raise SettingError("fps 0")
    with pytest.raises(FileError, match="some.jsonl:7: not JSON"):
        parse_json(b"{", "some.jsonl", 7)


@pytest.mark.slow
def test_a_part_of_the_attack_finds_nothing(tmp_path):
    tool = load_tool()
    tool.shutil.copytree(tool.BEFORE, tmp_path / "good")
    (target,) = (each for each in tool.TARGETS if each.name == "features")
    answers = list(tool.attack(target, tmp_path / "good", 60))
    assert len(answers) > 5
    assert not [answer for answer in answers if answer[1].startswith("BAD")]
