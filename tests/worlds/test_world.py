import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vjepa.commands.data_world import world_command
from vjepa.worlds import WorldConfig, WorldError, generate, world
from vjepa.worlds.physics import EVENTS
from vjepa.worlds.shapes import SHAPES

TINY = WorldConfig(num_train=8, num_val=2, num_frames=8, num_workers=1)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def fingerprint(folder: Path) -> dict[str, str]:
    """A hash of every clip's decoded frames and of every manifest's bytes."""
    clips = {p.relative_to(folder).as_posix(): decode(p).tobytes() for p in sorted(folder.rglob("*.mp4"))}
    manifests = {p.name: p.read_bytes() for p in sorted(folder.glob("*.csv"))}
    return {name: hashlib.sha256(content).hexdigest() for name, content in (clips | manifests).items()}


def interrupt(folder: Path) -> None:
    """Leave the world as a build leaves it that is killed before its end."""
    (folder / "world.json").rename(folder / "world.begun.json")


def in_background(config: WorldConfig, folder: Path) -> subprocess.Popen:
    code = (
        "from pathlib import Path; from vjepa.worlds import WorldConfig, generate\n"
        f"if __name__ == '__main__': generate({config!r}, Path({str(folder)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return generate(TINY, tmp_path_factory.mktemp("world") / "tiny")


@pytest.mark.parametrize(("split", "count"), [("train", 8), ("val", 2)])
def test_a_manifest_row_describes_each_video(tiny, split, count):
    with (tiny / f"{split}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "appearance", "event", "group", "seed"]
    assert [row["path"] for row in rows] == [f"{split}/{i:06d}.mp4" for i in range(count)]
    for row in rows:
        assert decode(tiny / row["path"]).shape == (8, 32, 32, 3)
        assert row["label"] == row["event"] in EVENTS and row["appearance"] in SHAPES
        assert row["group"].startswith(f"{split}-")


def test_a_finished_folder_holds_what_it_should_and_nothing_else(tiny):
    names = {path.name for path in tiny.iterdir()}
    assert names == {"train", "val", "train.csv", "val.csv", "world.json", "sheet.png"}
    assert json.loads((tiny / "world.json").read_text()) == TINY.settings
    # a row of frames for each event of each split, noisy and clean, every other frame, enlarged threefold
    with Image.open(tiny / "sheet.png") as sheet:
        assert sheet.size == (4 * 32 * 3, (6 + 2) * 2 * 32 * 3)


def test_the_same_settings_make_the_same_world(tiny, tmp_path):
    assert fingerprint(generate(TINY, tmp_path)) == fingerprint(tiny)


def test_the_same_settings_make_the_same_files(tiny, tmp_path):
    generate(TINY, tmp_path)
    for path in sorted(path for path in tiny.rglob("*") if path.is_file()):
        assert (tmp_path / path.relative_to(tiny)).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"noise": 0.1}, {"num_distractors": 2}, {"size": 34}, {"num_frames": 9}, {"num_val": 1}],
)
def test_every_setting_changes_the_world_and_its_folder(tiny, tmp_path, change):
    other = replace(TINY, num_train=1, **change)
    assert other.folder != replace(TINY, num_train=1).folder
    generate(other, tmp_path)
    names = ["val.csv"] if "num_val" in change else ["train/000000.mp4"]
    theirs, ours = fingerprint(tmp_path), fingerprint(tiny)
    assert all(theirs[name] != ours[name] for name in names)


def test_fps_is_that_of_the_file(tmp_path):
    generate(replace(TINY, num_train=1, num_val=1, fps=4.0), tmp_path)
    with av.open(str(tmp_path / "train" / "000000.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == 4.0


def test_the_folder_does_not_depend_on_the_workers_and_is_found_again(tmp_path):
    config = replace(TINY, root=str(tmp_path), num_train=1, num_val=1)
    folder = config.build()
    assert folder == config.folder and folder.parent == tmp_path
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert replace(config, num_workers=2).build() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_interrupted_world_is_taken_up_where_it_stopped(tiny, tmp_path):
    generate(TINY, tmp_path)
    interrupt(tmp_path)
    (tmp_path / "train" / "000003.mp4").unlink()
    kept = (tmp_path / "train" / "000002.mp4").stat().st_mtime_ns
    generate(TINY, tmp_path)
    assert fingerprint(tmp_path) == fingerprint(tiny)
    assert (tmp_path / "train" / "000002.mp4").stat().st_mtime_ns == kept


@pytest.mark.parametrize("num_workers", [None, 2])
@pytest.mark.parametrize("gone", ["train.csv", "sheet.png", "world.json"])
def test_a_world_whose_clips_are_all_drawn_is_completed(tiny, tmp_path, num_workers, gone):
    generate(TINY, tmp_path)
    interrupt(tmp_path)
    (tmp_path / gone).unlink(missing_ok=True)
    generate(replace(TINY, num_workers=num_workers), tmp_path)
    assert (tmp_path / "world.json").is_file() and not (tmp_path / "world.begun.json").exists()
    assert fingerprint(tmp_path) == fingerprint(tiny)


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_the_second_loss_is_named(tmp_path, monkeypatch):
    kills = iter([True, False, True, True])
    draw_all = world._draw_all

    def kill(specs, config, folder):
        if next(kills):
            with ProcessPoolExecutor(1) as pool:
                pool.submit(os._exit, 9).result()
        draw_all(specs, config, folder)

    monkeypatch.setattr(world, "_draw_all", kill)
    generate(TINY, tmp_path / "once")
    assert (tmp_path / "once" / "world.json").is_file()
    with pytest.raises(WorldError, match="killed twice. Lower --num_workers"):
        generate(TINY, tmp_path / "twice")


def test_what_a_kill_leaves_half_written_is_in_nobodys_way(tiny, tmp_path):
    generate(TINY, tmp_path)
    interrupt(tmp_path)
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train" / "000003.mp4").rename(tmp_path / "train" / ".000003.mp4.123")
    generate(TINY, tmp_path)
    assert fingerprint(tmp_path) == fingerprint(tiny)


def test_a_folder_that_another_process_is_just_beginning_is_not_foreign(tiny, tmp_path):
    (tmp_path / ".world.begun.json.123").write_text("{")
    assert fingerprint(generate(TINY, tmp_path)) == fingerprint(tiny)


def test_a_world_that_another_process_finished_after_this_one_looked_is_taken_as_it_is(tiny, tmp_path):
    generate(TINY, tmp_path)
    (tmp_path / "world.begun.json").write_text((tmp_path / "world.json").read_text())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    generate(TINY, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")} == before


def test_another_world_is_not_overwritten_and_another_folder_takes_it(tiny, tmp_path):
    other = replace(TINY, num_train=1, seed=5)
    with pytest.raises(WorldError, match="Give another folder"):
        generate(other, tiny)
    assert (generate(other, tmp_path) / "world.json").is_file()


def test_an_interrupted_world_is_not_completed_with_clips_of_another(tmp_path):
    generate(TINY, tmp_path / "mixed")
    interrupt(tmp_path / "mixed")
    with pytest.raises(WorldError, match="Give another folder"):
        generate(replace(TINY, seed=5), tmp_path / "mixed")


@pytest.mark.slow
def test_clips_do_not_depend_on_the_number_of_processes(tmp_path):
    config = replace(TINY, num_train=66)
    alone = generate(config, tmp_path / "alone")
    together = generate(replace(config, num_workers=2), tmp_path / "together")
    assert fingerprint(alone) == fingerprint(together)


@pytest.mark.slow
def test_a_killed_build_is_never_taken_for_a_whole_one(tmp_path):
    config = replace(TINY, num_train=150)
    process = in_background(config, tmp_path / "killed")
    while len(list((tmp_path / "killed").glob("train/*.mp4"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "world.json").exists()
    assert 5 <= len(list((tmp_path / "killed").glob("train/*.mp4"))) < 150
    generate(config, tmp_path / "killed")
    whole = generate(config, tmp_path / "whole")
    assert fingerprint(tmp_path / "killed") == fingerprint(whole)


@pytest.mark.slow
def test_two_processes_may_build_one_world_at_a_time(tmp_path):
    config = replace(TINY, num_train=60)
    builders = [in_background(config, tmp_path / "shared") for _ in range(2)]
    assert [builder.wait(timeout=60) for builder in builders] == [0, 0]
    assert fingerprint(tmp_path / "shared") == fingerprint(generate(config, tmp_path / "alone"))


@pytest.mark.parametrize(
    ("wrong", "said", "right"),
    [
        ({"num_train": 0}, "num_train is 0. Give at least 1", {"num_train": 1}),
        ({"num_frames": 4}, "num_frames is 4. Give at least 8", {"num_frames": 8}),
        ({"num_distractors": 0}, "num_distractors is 0. Give at least 1", {"num_distractors": 1}),
        ({"seed": -1}, "seed is -1. Give at least 0", {"seed": 0}),
        ({"size": 33}, "size must be even", {"size": 34}),
        ({"noise": -0.1}, "noise at least 0", {"noise": 0.0}),
        ({"fps": 0.0}, "fps above 0", {"fps": 0.5}),
    ],
)
def test_a_setting_out_of_range_says_what_is_allowed(tmp_path, wrong, said, right):
    with pytest.raises(WorldError, match=said):
        replace(TINY, num_val=1, **wrong)
    config = replace(TINY, **({"num_train": 1, "num_val": 1} | right))
    assert (generate(config, tmp_path) / "train.csv").is_file()


def test_the_verb_reports_what_it_made(tmp_path):
    report = world_command(out=tmp_path / "new", num_train=2, num_val=1, num_frames=8, num_workers=1)
    assert report.figures["clips"] == 3
    assert report.figures["megabytes"] >= 0
    assert all(Path(report.figures[name]).is_file() for name in ("train", "val", "sheet"))


def test_the_verb_leaves_a_folder_of_other_files_alone(tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(WorldError, match="Give an empty or a new folder"):
        world_command(out=tmp_path, num_train=1, num_val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
    world_command(out=tmp_path / "new", num_train=1, num_val=1, num_frames=8, num_workers=1)


def test_the_verb_takes_up_a_world_interrupted_after_its_manifests(tmp_path):
    settings = {"num_train": 1, "num_val": 1, "num_frames": 8, "num_workers": 1}
    world_command(out=tmp_path, **settings)
    interrupt(tmp_path)
    world_command(out=tmp_path, **settings)
    assert (tmp_path / "world.json").is_file()


def test_a_folder_that_cannot_be_written_is_named_with_advice(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorldError, match="cannot be written .* Give another folder: --data.world.root"):
        replace(TINY, root=str(tmp_path / "file")).build()
