"""A folder of features names only decoders of the package; a class path is imported if the user gives it."""

import json
import shutil
import sys

import pytest

import vjepa
from tests.features.given import extract
from vjepa.commands.app import main

DECODER = "from vjepa.data.decoders.auto import AutoDecoder\n\nclass Mine(AutoDecoder):\n    pass\n"


@pytest.fixture(scope="module")
def indexed(small, clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("indexed")
    extract(encoder=small, data=clips, out=out, index=True)
    return out


@pytest.mark.parametrize("inside", [False, True], ids=["a module on the path", "a module in the folder"])
def test_a_class_named_by_a_folder_is_not_imported(indexed, tmp_path, monkeypatch, capsys, inside):
    folder = tmp_path / "features"
    shutil.copytree(indexed, folder)
    about = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(about | {"decoder": "planted_decoder.Mine"}))
    place = folder if inside else tmp_path
    ran = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (place / "planted_decoder.py").write_text(ran + DECODER)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "planted_decoder", raising=False)
    command = ["search", vjepa.features.open(indexed).rows[0].path, "--features", str(folder)]
    assert main(command) == 2
    assert "name it with --decoder planted_decoder.Mine" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert main([*command, "--decoder", "auto"]) == 0 and not (tmp_path / "ran").exists()
    assert main([*command, "--decoder", "planted_decoder.Mine"]) == 0 and (tmp_path / "ran").exists()
