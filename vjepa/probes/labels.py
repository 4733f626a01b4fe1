"""Names of classes: from a file, or of a public data set by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vjepa.probes.base import ProbeError
from vjepa.readers import content_of, read_csv, read_json

# beside the package in a wheel, in the repository otherwise
FOLDERS = (Path(__file__).parents[1] / "labels", Path(__file__).parents[2] / "data_manifests" / "labels")


def known_label_sets() -> dict[str, Path]:
    """Return the label files of this package, by name."""
    return {file.stem: file for folder in FOLDERS for file in sorted(folder.glob("*.csv"))}


def read_labels(source: str) -> tuple[str, ...]:
    """Return class names in the order of their ids.

    Args:
        source: A CSV file `id,label`, a JSON object of id to name (transformers' `id2label`) or of name to id
            (SSv2's `labels.json`), or the name of a set that comes with this package.

    Raises:
        ProbeError: If there is no such file or set, or the ids are not 0, 1, 2 and so on.
    """
    known = known_label_sets()
    file = Path(source)
    if not file.is_file():
        if source not in known:
            raise ProbeError(
                f"--labels {source}: no such file, and no set of that name comes with vjepa: {', '.join(known)}. "
                "Give a CSV file with the header id,label, or a JSON file (of SSv2: its own labels.json)."
            )
        file = known[source]
    with content_of(file, "a table of ids and labels, with the header id,label"):
        pairs = _json_pairs(file) if file.suffix == ".json" else _csv_pairs(file)
    if [i for i, _ in pairs] != list(range(len(pairs))):
        raise ProbeError(
            f"{file}: ids must be 0, 1, 2 and so on without a gap. Number the {len(pairs)} labels this way."
        )
    return tuple(name for _, name in pairs)


def names_for(count: int, stored: Sequence[str], given: str | None, where: Path) -> tuple[str, ...]:
    """Return the names of `count` classes: those given, else those stored with the probe, else "class 0" and so on.

    Raises:
        ProbeError: If there are more or fewer names.
    """
    names = tuple(stored) if given is None else read_labels(given)
    if names and len(names) != count:
        raise ProbeError(
            f"{given or where} names {len(names)} classes, the probe has {count}. Give the labels it was trained "
            "with as --labels."
        )
    return names or tuple(f"class {i}" for i in range(count))


def _csv_pairs(file: Path) -> list[tuple[int, str]]:
    return sorted((int(row["id"]), row["label"]) for _, row in read_csv(file, ("id", "label")))


def _json_pairs(file: Path) -> list[tuple[int, str]]:
    content = read_json(file)
    if all(key.isdigit() for key in content):
        return sorted((int(i), str(name)) for i, name in content.items())
    return sorted((int(i), name) for name, i in content.items())
