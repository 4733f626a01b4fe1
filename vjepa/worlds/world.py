"""A generated world on disk: videos, manifests, a contact sheet and the settings."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vjepa.errors import VjepaError
from vjepa.files import digest, from_home, replacing, write_text
from vjepa.readers import read_json
from vjepa.worlds.render import render
from vjepa.worlds.scenes import SceneSpec, compose, scene_spec
from vjepa.worlds.textures import Split
from vjepa.worlds.video import write_video

log = logging.getLogger(__name__)

VERSION = 6  # part of the folder's name; raise it when the frames of a world change
DONE = "world.json"  # written last: a folder without it is unfinished
STARTED = "world.begun.json"  # settings of an unfinished world
SHEET = "sheet.png"
COLUMNS = ("path", "label", "appearance", "event", "group", "seed")
SPLITS: tuple[Split, ...] = ("train", "val")
CHUNK = 32  # clips per task of a worker
NOTICE_SECONDS = 10.0  # time between two lines of progress


class WorldError(VjepaError, ValueError):
    """Error of a world that cannot be generated."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Settings of a generated world of short labelled videos; the same settings give the same frames.

    Args:
        root: Folder of all worlds; null for `.cache/vjepa/worlds` in the user's home.
        num_train: Number of training clips.
        num_val: Number of validation clips; their patterns and backgrounds appear in no training clip.
        num_frames: Frames per clip, at least 8.
        size: Height and width in pixels; even, at least 32.
        fps: Frames per second.
        noise: Standard deviation of the noise in each frame, divided by the contrast of the main object.
        num_distractors: Number of small moving objects beside the main object, at least 1.
        seed: Random seed.
        num_workers: Number of processes that draw; null for one per core.
    """

    root: str | None = None
    num_train: int = 3000
    num_val: int = 600
    num_frames: int = 16
    size: int = 32
    fps: float = 8.0
    noise: float = 0.4
    num_distractors: int = 1
    seed: int = 0
    num_workers: int | None = None

    def __post_init__(self) -> None:
        limits = {"num_train": 1, "num_val": 1, "num_frames": 8, "size": 32, "num_distractors": 1, "seed": 0}
        for name, least in limits.items():
            if getattr(self, name) < least:
                raise WorldError(f"{name} is {getattr(self, name)}. Give at least {least}.")
        if self.size % 2 or self.noise < 0 or self.fps <= 0:
            raise WorldError(
                f"size {self.size}, noise {self.noise}, fps {self.fps}: size must be even (h264), "
                "noise at least 0, fps above 0."
            )

    @property
    def folder(self) -> Path:
        """Folder of this world below `root`, named by a digest of its settings."""
        root = from_home(self.root) if self.root else Path.home() / ".cache" / "vjepa" / "worlds"
        return root / f"world-{digest(json.dumps(self.settings, sort_keys=True).encode(), size=5)}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that determine the frames."""
        fields = asdict(self) | {"version": VERSION}
        return {k: v for k, v in fields.items() if k not in ("root", "num_workers")}

    def build(self) -> Path:
        """Return the folder of this world, and generate it first if it is missing; several processes may call this."""
        return generate(self, self.folder)


def generate(config: WorldConfig, folder: Path) -> Path:
    """Write the world to `folder`, which is made if it does not exist; an interrupted world is continued.

    Raises:
        WorldError: If the folder holds another world or other files.
    """
    _claim(folder, config)
    if (folder / DONE).is_file():
        return folder
    log.info("drawing %d clips to %s", config.num_train + config.num_val, folder)
    started = time.monotonic()
    specs = {split: list(scene_specs(config, split)) for split in SPLITS}
    for split in SPLITS:
        (folder / split).mkdir(parents=True, exist_ok=True)
    drawn = _draw_missing([spec for split in SPLITS for spec in specs[split]], config, folder)
    for split in SPLITS:
        _write_manifest(specs[split], folder / f"{split}.csv")
    _write_sheet(specs, config, folder / SHEET)
    write_text(json.dumps(config.settings, indent=2), folder / DONE)
    (folder / STARTED).unlink(missing_ok=True)
    log.info("drew %d clips in %.0f s", drawn, time.monotonic() - started)
    return folder


def _claim(folder: Path, config: WorldConfig) -> None:
    """Check that the folder belongs to this world (finished, started or empty), and start it if it is empty.

    Another process may be building the world at the same time. It writes `STARTED` before anything else, so this
    lists the folder first and then looks for `STARTED`. It deletes `STARTED` after it writes `DONE`, so this looks
    for `STARTED` before `DONE`.
    """
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    others = [name for name in names if not name.startswith(f".{STARTED}.")]
    for name in (STARTED, DONE):
        try:
            settings = read_json(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if settings != config.settings:
            raise WorldError(
                f"{folder} holds a world with other settings. Give another folder, or delete it."
            )
        return
    if others:
        raise WorldError(f"{folder} holds other files. Give an empty or a new folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(json.dumps(config.settings, indent=2), folder / STARTED)
    except OSError as error:
        raise WorldError(
            f"{folder} cannot be written ({error.strerror}). Give another folder: --data.world.root of fit, --out of "
            "data world."
        ) from error


def scene_specs(config: WorldConfig, split: Split) -> Iterator[SceneSpec]:
    """Return the settings of the clips of a split, in the order of its manifest."""
    count = config.num_train if split == "train" else config.num_val
    return (scene_spec(split, index, seed=config.seed) for index in range(count))


def draw(spec: SceneSpec, config: WorldConfig) -> UInt8[np.ndarray, "t h w 3"]:
    """Render the frames of one clip; they depend only on `spec` and `config`."""
    scene = compose(spec, num_frames=config.num_frames, num_distractors=config.num_distractors)
    return render(scene, size=config.size, noise=config.noise, rng=np.random.default_rng([spec.seed, 1]))


def _draw_all(specs: list[SceneSpec], config: WorldConfig, folder: Path) -> None:
    workers = config.num_workers or os.cpu_count() or 1
    chunks = [specs[i : i + CHUNK] for i in range(0, len(specs), CHUNK)]
    work = partial(_draw_chunk, config=config, folder=folder)
    if workers == 1 or len(chunks) <= 1:  # none, if all was drawn before or by another process
        _follow(map(work, chunks), len(specs))
        return
    # spawn, not fork: the caller may have threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        _follow(pool.map(work, chunks), len(specs))


def _draw_missing(specs: list[SceneSpec], config: WorldConfig, folder: Path) -> int:
    """Draw the clips that are not in the folder, and return how many; repeat it once if a process is killed.

    Raises:
        WorldError: If a process is killed again.
    """
    lost: BrokenProcessPool | None = None
    for _ in range(2):
        missing = [spec for spec in specs if not (folder / spec.path).is_file()]
        try:
            _draw_all(missing, config, folder)
            return len(missing)
        except BrokenProcessPool as error:
            lost = error
            log.warning("a process that draws was killed; new ones continue")
    raise WorldError(
        f"{folder}: processes that draw were killed twice. Lower --num_workers if the machine ran out of memory, and "
        "give the same command again: it continues here."
    ) from lost


def _draw_chunk(specs: list[SceneSpec], *, config: WorldConfig, folder: Path) -> int:
    for spec in specs:
        write_video(folder / spec.path, draw(spec, config), fps=config.fps)
    return len(specs)


def _follow(done: Iterable[int], total: int) -> None:
    count, noticed = 0, time.monotonic()
    for number in done:
        count += number
        if time.monotonic() - noticed > NOTICE_SECONDS:
            noticed = time.monotonic()
            log.info("drew %d of %d clips", count, total)


def _write_manifest(specs: list[SceneSpec], path: Path) -> None:
    rows = [(s.path, s.event, s.appearance, s.event, s.group, s.seed) for s in specs]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _write_sheet(specs: dict[Split, list[SceneSpec]], config: WorldConfig, path: Path) -> None:
    """Write a picture with one clip per event: every second frame in a row, with noise and without."""
    from PIL import Image

    clean = replace(config, noise=0.0)
    strips = []
    for split in SPLITS:
        for number, event in enumerate(sorted({spec.event for spec in specs[split]})):
            clips = [spec for spec in specs[split] if spec.event == event]
            shown = clips[number % len(clips)]  # another shape for each event
            for settings in (config, clean):
                strips.append(np.concatenate(list(draw(shown, settings)[::2]), axis=1))
    sheet = Image.fromarray(np.concatenate(strips))
    zoom = max(1, 96 // config.size)
    large = sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)
    with replacing(path) as temporary:
        large.save(temporary, "png")
