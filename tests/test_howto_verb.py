"""docs/howto/verb.md holds what it says: its file and its line in the table make a verb."""

import importlib
import json
from pathlib import Path

from tests.docs_blocks import blocks_of
from tests.videos import write_videos
from vjepa import commands
from vjepa.commands import app, verbs

HOWTO = Path(__file__).parents[1] / "docs" / "howto" / "verb.md"


def test_the_verb_of_the_howto_works(tmp_path, monkeypatch, capsys):
    blocks = {block.language: block.text for block in blocks_of(HOWTO.read_text(encoding="utf-8"))}
    (tmp_path / "lengths.py").write_text(blocks["python"])
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    for name, verb in eval("{" + blocks["py"] + "}", {"Verb": verbs.Verb}).items():
        monkeypatch.setitem(app.VERBS, name, verb)
    write_videos(tmp_path / "clips", 3, num_frames=6, height=24, width=24)
    out = tmp_path / "out"
    assert app.main(["lengths", str(tmp_path / "clips"), "--top", "2", "--out", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["total_seconds"] > 0
    assert "3 videos" in capsys.readouterr().out
    assert app.main(["lengths", str(tmp_path / "clips"), "--top", "0"]) == 2
    assert "--top is 0. Give 1 or more." in capsys.readouterr().err
    assert app.main(["lengths", "--help"]) == 0
    help_text = capsys.readouterr().out
    assert "vjepa lengths data/train.csv --top 5" in help_text and "Number of videos to list." in help_text
