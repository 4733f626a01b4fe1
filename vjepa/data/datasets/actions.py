"""Builders of smaller action data sets: Diving48, COIN, UCF101 and HMDB51."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vjepa.data.datasets.base import (
    Annotated,
    AnnotatedClip,
    Sources,
    need_annotation,
    need_keys,
    number,
    read_json,
    read_lines,
    split_of,
)
from vjepa.data.manifests.rows import ManifestError


def diving48(sources: Sources) -> Annotated:
    """Read `Diving48_V2_train.json` and `_test.json`: `{vid_name, label}`, names of labels in `Diving48_vocab.json`.

    A class name has take-off, somersaults, twists and position, as in `Back 15som 05Twis FREE`. Clips are cut
    already, so `start_frame` and `end_frame` are not used. The group is the name before its last `_number`, which
    is the competition's video.
    """
    vocab_file = need_annotation(sources.annotations, ("Diving48_vocab.json",))
    vocab = [" ".join(words) if isinstance(words, list) else str(words) for words in read_json(vocab_file)]
    clips: list[AnnotatedClip] = []
    for split in ("train", "test"):
        file = need_annotation(sources.annotations, (f"Diving48_V2_{split}.json", f"Diving48_{split}.json"))
        for i, entry in enumerate(read_json(file)):
            need_keys(file, f"entry {i}", entry, ("vid_name", "label"))
            if not 0 <= int(entry["label"]) < len(vocab):
                raise ManifestError(
                    file,
                    0,
                    f"entry {i}: label {entry['label']} is not among the {len(vocab)} of {vocab_file.name}. "
                    "Give two files of one release",
                )
            name = entry["vid_name"]
            clips.append(AnnotatedClip(split, name, vocab[int(entry["label"])], name.rpartition("_")[0]))
    return Annotated(clips, tuple(vocab))


def coin(sources: Sources) -> Annotated:
    """Read whole videos of COIN with their task (180 classes) from `COIN.json`; clips `<youtube id>.mp4`."""
    file, database = _coin_database(sources)
    clips = []
    for video, entry in database.items():
        need_keys(file, video, entry, ("class", "subset"))
        clips.append(AnnotatedClip(split_of(file, 0, entry["subset"]), video, entry["class"], video))
    return Annotated(clips)


def coin_steps(sources: Sources) -> Annotated:
    """Read the annotated steps of COIN's videos: one row per segment, with `start` and `end` in seconds."""
    file, database = _coin_database(sources)
    clips = []
    for video, entry in database.items():
        need_keys(file, video, entry, ("class", "subset", "annotation"))
        for step in entry["annotation"]:
            need_keys(file, video, step, ("segment", "label"))
            start, end = (number(file, 0, f"{video}: segment", str(second)) for second in step["segment"])
            task = (("task", entry["class"]),)
            clips.append(
                AnnotatedClip(
                    split_of(file, 0, entry["subset"]), video, step["label"], video, start, end, extra=task
                )
            )
    return Annotated(clips)


def _coin_database(sources: Sources) -> tuple[Path, dict[str, Any]]:
    given = sources.annotations
    file = given if given.is_file() else need_annotation(given, ("COIN.json", "coin.json"))
    found = read_json(file)
    need_keys(file, "the file", found, ("database",))
    return file, found["database"]


def ucf101(sources: Sources) -> Annotated:
    """Read `ucfTrainTestlist`: `classInd.txt` (`1 ApplyEyeMakeup`), `trainlist01.txt` and `testlist01.txt`.

    The class is the folder in a list's path. The group is class and group number (`g08`), which the official splits
    keep together. `fold` selects one of the three official splits.
    """
    listed = need_annotation(sources.annotations, ("classInd.txt",))
    labels = tuple(text.split()[-1] for _, text in read_lines(listed))
    clips: list[AnnotatedClip] = []
    for split in ("train", "test"):
        file = need_annotation(sources.annotations, (f"{split}list{sources.fold:02d}.txt",))
        for line, text in read_lines(file):
            found = re.fullmatch(r"(\w+)/(v_\w+_(g\d+)_c\d+)\.avi(?: +\d+)?", text)
            if found is None:
                raise ManifestError(
                    file, line, f"{text!r} is not `Class/v_Class_g01_c01.avi`. Correct the line"
                )
            clips.append(AnnotatedClip(split, found[2], found[1], f"{found[1]}_{found[3]}"))
    return Annotated(clips, labels)


def hmdb51(sources: Sources) -> Annotated:
    """Read `<class>_test_split1.txt`: lines `file.avi 1` (train), `2` (test) or `0` (in neither).

    The group is the file name before its class, which is the film. `fold` selects one of the three official splits.
    """
    ending = f"_test_split{sources.fold}.txt"
    folder = need_annotation(sources.annotations, (f"*{ending}",)).parent
    clips: list[AnnotatedClip] = []
    for file in sorted(folder.glob(f"*{ending}")):
        label = file.name.removesuffix(ending)
        for line, text in read_lines(file):
            name, _, use = text.rpartition(" ")
            if use not in ("0", "1", "2") or not name:
                raise ManifestError(file, line, f"{text!r} is not `file.avi` and 0, 1 or 2. Correct the line")
            if use != "0":
                stem = name.strip().removesuffix(".avi")
                clips.append(
                    AnnotatedClip(("train", "test")[use == "2"], stem, label, stem.partition(f"_{label}_")[0])
                )
    return Annotated(clips)
