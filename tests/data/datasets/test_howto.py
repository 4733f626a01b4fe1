import csv
import shlex
from pathlib import Path

import pytest

from tests.docs_blocks import blocks_of, commands_of
from tests.given import trees
from vjepa.commands.app import main
from vjepa.data import read_manifest
from vjepa.data.datasets.base import Sources
from vjepa.data.datasets.twentybn import jester

FOLDER = Path(__file__).parents[3] / "data_manifests"
COMMANDS = [c for block in blocks_of((FOLDER / "README.md").read_text("utf-8")) for c in commands_of(block)]


def test_the_readmes_commands_make_what_the_recipes_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [shlex.split(command)[1:] for command in COMMANDS if "data manifest" in command]
    assert [words[3] for words in made] == ["k400", "ssv2"]
    for words in made:
        getattr(trees, words[3])(tmp_path / words[5])
        assert main(words) == 0
        (recipe,) = (
            file.read_text("utf-8") for file in (FOLDER.parent / "configs").rglob(f"{words[3]}.yaml")
        )
        assert f"train: {words[7]}/train.csv" in recipe
        assert len(read_manifest(f"{words[7]}/train.csv", root=words[5])) == 1


@pytest.mark.parametrize(("name", "count"), [("k400", 400), ("ucf101", 101), ("hmdb51", 51), ("jester", 27)])
def test_label_maps_are_whole(name, count):
    with (FOLDER / "labels" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(i) for i in range(count)]
    assert len({row["label"] for row in rows}) == count and all(row["label"].strip() for row in rows)


def test_a_label_map_has_the_order_of_the_annotation(tmp_path):
    trees.jester(tmp_path)
    with (FOLDER / "labels/jester.csv").open(newline="", encoding="utf-8") as file:
        published = [row["label"] for row in csv.DictReader(file)]
    annotated = jester(Sources(tmp_path, tmp_path)).labels
    assert annotated == (published[0], published[-1])
