"""The recipe files of a command line: a recipe, the overlays after it, and the place of each setting in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from vjepa.errors import UsageError, did_you_mean
from vjepa.readers import read_yaml

CLASS_KEYS = ("class_path", "init_args")  # levels of a class in YAML, which keys on the command line may omit


def config_files(argv: Sequence[str]) -> list[str]:
    """Return the files that `argv` gives with --config, in order, whether they exist or not."""
    words = [word for arg in argv for word in arg.split("=", 1)]
    return [file for flag, file in zip(words, words[1:], strict=False) if flag in ("--config", "-c")]


def existing(argv: Sequence[str]) -> list[str]:
    """Return the files of `config_files` that exist."""
    return [file for file in config_files(argv) if Path(file).is_file()]


def check_config_files(argv: Sequence[str]) -> None:
    """Check that a recipe that has become an overlay is not asked for at its old place.

    Raises:
        UsageError: If a file is missing and a folder beside it has an overlay of that name.
    """
    for file in map(Path, config_files(argv)):
        found = None if file.is_file() else next(iter(sorted(file.parent.glob(f"*/{file.name}"))), None)
        if found is not None:
            advice = "".join(f" Give:{command}" for command in _commands(found))
            raise UsageError(f"--config {file}: no such file; {found} is an overlay.{advice}")


def own_data_first(argv: Sequence[str]) -> list[str]:
    """Return `argv` with the recipe's world switched off, if it gives training data instead.

    >>> own_data_first(["--data.train", "clips"])
    ['--data.train', 'clips', '--data.world=null']
    """
    flags = [word.split("=")[0] for word in argv]
    gives_data = {"--data.train", "--data.parts"} & {flag.removesuffix("+") for flag in flags}
    if gives_data and not any(flag.startswith("--data.world") for flag in flags):
        return [*argv, "--data.world=null"]
    return list(argv)


def overlay_advice(argv: Sequence[str]) -> str:
    """Return what to do if the first file in `argv` is an overlay, or ''."""
    first = next(iter(existing(argv)), None)
    if first is None or not Path(first).read_text(encoding="utf-8").startswith("# Overlay"):
        return ""
    return f" {first} is an overlay: give the recipe that it changes before it, as another --config."


def place_of(key: str, argv: Sequence[str]) -> str:
    """Return ' (FILE:LINE)' of the last file in `argv` that sets `key`, or ''.

    Files are read in order. If several set a key, the parser accepted it in the earlier ones.

    `key` may omit `class_path` and `init_args`; its last part may be the name of a class.
    """
    for file in reversed(existing(argv)):
        line = _line_of(_composed(file), key.split("."))
        if line is not None:
            return f" ({file}:{line})"
    return ""


def unreadable(argv: Sequence[str]) -> str:
    """Return the first file in `argv` that is not YAML, or a phrase for it if all are."""
    files = existing(argv)
    broken = (file for file in files if _composed(file) is None)
    return next(broken, files[0] if len(files) == 1 else "the --config file")


def dropped_settings(parsed: Any, argv: Sequence[str]) -> list[str]:
    """Return a line for each `init_args` entry of a file that a later `class_path` does not accept."""
    return [
        f"{class_path} has no {key}: the value in {file} is not used"
        for file in existing(argv)
        for key, class_path in _dropped(read_yaml(Path(file)), parsed)
    ]


def check_empty_mappings(parsed: Any, argv: Sequence[str]) -> None:
    """Check that no file holds an unknown key with an empty mapping, such as `trainerr: {}`: jsonargparse drops it.

    Raises:
        UsageError: With the key, its place and the nearest real one.
    """
    for file in existing(argv):
        for key, known in _lost(read_yaml(Path(file)), parsed, ""):
            above, dot, name = key.rpartition(".")
            nearest = f"the nearest real one is '{above}{dot}{did_you_mean(name, known)}'"
            advice = nearest if known else "it takes none"
            raise UsageError(f"unknown key '{key}'{place_of(key, argv)}: {advice}.")


def _lost(written: Any, parsed: Any, above: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each key of `written` that holds no value and is missing from `parsed`, with the keys that are there."""
    if isinstance(written, list) and isinstance(parsed, list):
        for each, read in zip(written, parsed, strict=False):
            yield from _lost(each, read, above)
    if not (isinstance(written, dict) and isinstance(parsed, dict)):
        return
    if written.get("class_path", parsed.get("class_path")) != parsed.get("class_path"):
        return  # a later file names another class
    if "class_path" in parsed and not set(CLASS_KEYS) & set(written):
        parsed = parsed.get("init_args") or {}  # the short form of a class
    for name, value in written.items():
        key = above if name == "init_args" else f"{above}{name}"
        if name in parsed:
            yield from _lost(value, parsed[name], key if name == "init_args" else f"{key}.")
        elif "." not in str(name) and _is_empty(value):
            yield key, list(parsed)


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_empty, value.values()))


def _dropped(written: Any, parsed: Any) -> Iterator[tuple[str, str]]:
    """Yield each key of `init_args` that was written for one class and is missing from another, with the latter."""
    if not (isinstance(written, dict) and isinstance(parsed, dict)):
        return
    if parsed.get("class_path") not in (None, written.get("class_path", parsed.get("class_path"))):
        kept = parsed.get("init_args") or {}
        for key in written.get("init_args") or {}:
            if key not in kept:
                yield key, parsed["class_path"]
    for key in written:
        yield from _dropped(written[key], parsed.get(key))


def _commands(overlay: Path) -> list[str]:
    lines = overlay.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("# Command: ") for line in lines if line.startswith("# Command: ")]


def _composed(file: str) -> yaml.Node | None:
    try:
        return yaml.compose(Path(file).read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return None


def _line_of(node: yaml.Node | None, parts: list[str]) -> int | None:
    """Return the line of a setting below `node`, counted from 1."""
    below: list[tuple[yaml.Node, list[str]]] = []
    if isinstance(node, yaml.ScalarNode) and parts == [node.value.split(".")[-1]]:
        return node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        below = [(each, parts) for each in node.value]
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            own = str(name.value).split(".")
            if own == parts:
                return name.start_mark.line + 1
            if parts[: len(own)] == own:
                below.append((value, parts[len(own) :]))
            elif name.value in CLASS_KEYS:
                below.append((value, parts))
    return next((line for each, rest in below if (line := _line_of(each, rest)) is not None), None)
