"""Malformed JSON, YAML, CSV and safetensors headers, given to every verb: each must end with 2 and name the file.

    python tools/attack_texts.py --out report.csv [--only features] [--every 1]

The files are those of tests/fixtures/before and small ones written here; each is damaged in many ways, alike in each
run. An answer is bad if a verb crashes, or refuses the file without its name. If it ends with 0, the damage did no
harm. The script exits with 1 if an answer is bad.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from vjepa.commands.app import main as vjepa
from vjepa.models import VideoEncoder

BEFORE = Path(__file__).parents[1] / "tests" / "fixtures" / "before"
SLOWEST_SECONDS = 60
ODD = (None, True, -1, 0, 10**30, 1e308, "", "x", "\ud800", [], [[]], [None], {}, {"x": []})
WHOLE = {  # texts that replace any file
    "empty": b"",
    "blank": b" \n\n",
    "not_utf8": b"\xff\xfe\x00{",
    "zeros": bytes(64),
    "deep": b"[" * 100_000,
    "deep_object": b'{"a":' * 100_000,
    "long_integer": b"9" * 5000,
    "number": b"3",
    "null": b"null",
    "list": b"[1, 2]",
    "object": b"{}",
    "nan": b"NaN",
    "tab": b"\tx: [",
    "anchor": b"a: &a [*a]",
    "alias": b"*nothing",
    "tag": b"!!python/object/apply:os.system ['true']",
    "date": b"seed: 2001-99-99",
    "key": b"? [a, b]\n: 1",
    "long_cell": b"path,label\n" + b"x" * 200_000 + b",1\n",
    "quote": b'path,label\n"a.mp4,1\nb.mp4,2\n',
    "header_alone": b"path,label\n",
}


@dataclass(frozen=True)
class Target:
    """A file that a verb reads: its path below a copy of the folder, and the command; `{}` is the copy."""

    name: str
    file: str
    command: str


NEW = "--out {}/new"
CLASSIFY = "classify {video} --probe {}/probe_linear --encoder {}/probe_encoder"
SEARCH = "search {video} --features {}/features --encoder {}/export"
INDEX = "data index --num_processes 0 " + NEW
POOL = "extract --encoder {}/probe_encoder --data {}/videos --pool attentive --probe {}/probe " + NEW
DRAW = "data world --num_train 1 --num_val 1 --num_frames 8 --num_workers 1"
SSV2 = "data manifest --dataset ssv2 --root {}/ssv2 " + NEW
TARGETS = [
    Target("export", "export/config.json", "inspect {}/export"),
    Target("convert", "export/config.json", "convert {}/export {}/new --to native"),
    Target("hf", "hf/config.json", "inspect {}/hf"),
    Target("hf_index", "hf/model.safetensors.index.json", "inspect {}/hf"),
    Target("features", "features/features.json", SEARCH),
    Target("index", "features/index.csv", SEARCH),
    Target("old_probe", "probe_linear/probe.json", CLASSIFY),
    Target("epic", "probe_epic/probe.json", "inspect {}/probe_epic"),
    Target("probe", "probe/config.json", CLASSIFY.replace("probe_linear", "probe")),
    Target("pooler", "probe/config.json", POOL),
    Target("labels_csv", "labels.csv", CLASSIFY + " --labels {}/labels.csv"),
    Target("labels_json", "labels.json", CLASSIFY + " --labels {}/labels.json"),
    Target("manifest", "clips.csv", INDEX + " {}/clips.csv"),
    Target("manifest_jsonl", "clips.jsonl", INDEX + " {}/clips.jsonl"),
    Target(
        "probe_manifest", "clips.csv", "probe --encoder {}/export --folder {}/clips.csv --probe knn " + NEW
    ),
    Target("journal", "checked/check.jsonl", "data check {}/clips.csv --num_processes 1 --out {}/checked"),
    Target("shards", "shards/shards.json", INDEX + " {}/shards/shards.json"),
    Target("shards_again", "shards/shards.json", "data shard {}/clips.csv --out {}/shards"),
    Target("world", "world/world.json", DRAW + " --out {}/world"),
    Target("settings", "world.yaml", DRAW + " --config {}/world.yaml " + NEW),
    Target("recipe", "tiny.yaml", "fit --config {}/tiny.yaml --print_config"),
    Target("ssv2", "ssv2/train.json", SSV2),
    Target("ssv2_labels", "ssv2/labels.json", SSV2),
    Target("k400", "k400/train.csv", "data manifest --dataset k400 --root {}/k400 " + NEW),
    Target("header", "export/encoder.safetensors", "inspect {}/export"),
    Target("feature_header", "features/features.safetensors", SEARCH),
    Target("search_header", "features/search.safetensors", SEARCH),
    Target("probe_header", "probe_linear/probe.safetensors", CLASSIFY),
]


def damaged(original: bytes, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Yield a name and a text for each way to damage a file."""
    if suffix == ".safetensors":
        yield from _damaged_headers(original)
        return
    yield from WHOLE.items()
    yield "cut", original[: len(original) // 2]
    yield "not_utf8_within", original[:20] + b"\xff" + original[20:]
    yield "zero_within", original[:20] + b"\0" + original[20:]
    yield "twice", original + original
    if suffix == ".json":
        for name, content in _damaged_values(json.loads(original)):
            yield name, json.dumps(content).encode()
    if suffix == ".jsonl":
        first, _, rest = original.partition(b"\n")
        for name, content in _damaged_values(json.loads(first)):
            yield name, json.dumps(content).encode() + b"\n" + rest
    if suffix == ".yaml":
        import yaml

        for name, content in _damaged_values(yaml.safe_load(original)):
            if "\ud800" not in str(content):
                yield name, yaml.safe_dump(content).encode()
    if suffix == ".csv":
        yield from _damaged_tables(original)


def _damaged_values(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the content with one value replaced or removed, at each place down to the third level."""
    if not isinstance(content, dict) or place.count(".") > 2:
        return
    for key, value in content.items():
        rest = {k: v for k, v in content.items() if k != key}
        yield f"{place}.{key} removed", rest
        for odd in ODD:
            yield f"{place}.{key}={odd!a}", {**content, key: odd}
        for name, changed in _damaged_values(value, f"{place}.{key}"):
            yield name, {**content, key: changed}


def _damaged_tables(original: bytes) -> Iterator[tuple[str, bytes]]:
    header, *rows = list(csv.reader(io.StringIO(original.decode())))
    for i, column in enumerate(header):
        yield f"{column} removed", _csv([line[:i] + line[i + 1 :] for line in (header, *rows)])
        yield f"{column} twice", _csv([[*line, line[i]] for line in (header, *rows)])
        for odd in ("", "x", "-1", "nan", "inf", "1e400", "9" * 5000, "\0", "a\nb", "x" * 200_000):
            changed = [[*rows[0][:i], odd, *rows[0][i + 1 :]], *rows[1:]]
            yield f"{column}={odd[:8]!a}", _csv([header, *changed])


def _csv(rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def _damaged_headers(original: bytes) -> Iterator[tuple[str, bytes]]:
    size = int.from_bytes(original[:8], "little")
    header, data = json.loads(original[8 : 8 + size]), original[8 + size :]
    for name, text in WHOLE.items():
        yield name, len(text).to_bytes(8, "little") + text + data
        yield f"{name} alone", text
    yield "cut", original[:-5]
    yield "endless", (2**63).to_bytes(8, "little") + original[8:]
    first = next(key for key in header if key != "__metadata__")
    for name, content in _damaged_values({first: header[first]}):
        text = json.dumps(header | content if first in content else content).encode()
        yield name, len(text).to_bytes(8, "little") + text + data


def make_files(folder: Path) -> None:
    """Write one good file of each kind to a folder."""
    shutil.copytree(BEFORE, folder, dirs_exist_ok=True)
    clips = [("left", "videos/left/0.mp4"), ("right", "videos/right/0.mp4")] * 4
    rows = [f"{path},{label},0,1,g{i},1" for i, (label, path) in enumerate(clips)]
    (folder / "clips.csv").write_text("\n".join(["path,label,start,end,group,weight", *rows, ""]))
    entries = [json.dumps({"path": path, "label": label, "start": 0.0}) for label, path in clips]
    (folder / "clips.jsonl").write_text("\n".join([*entries, ""]))
    (folder / "labels.csv").write_text("id,label\n0,left\n1,right\n")
    (folder / "labels.json").write_text('{"0": "left", "1": "right"}')
    (folder / "world.yaml").write_text("seed: 3\nfps: 8.0\nnoise: 0.4\n")
    (folder / "ssv2").mkdir()
    for name, some in (("train", "1"), ("validation", "2")):
        entry = {"id": some, "template": "Pushing [something]"}
        (folder / "ssv2" / f"{name}.json").write_text(json.dumps([entry]))
    (folder / "ssv2" / "labels.json").write_text('{"Pushing something": "0"}')
    (folder / "ssv2" / "1.webm").write_bytes(b"")
    (folder / "k400").mkdir()
    for name in ("train", "val"):
        text = f"label,youtube_id,time_start,time_end,split\njump,abc,0,10,{name}\n"
        (folder / "k400" / f"{name}.csv").write_text(text)
    tiled = VideoEncoder(
        img_size=16, patch_size=8, num_frames=4, embed_dim=16, depth=1, num_heads=2, position="rope"
    )
    tiled.save_pretrained(folder / "tiled")
    for command in (
        "convert {}/tiled {}/hf --to hf",
        "probe --encoder {}/probe_encoder --folder {}/videos --out {}/probe --probe attentive --grid.num_steps 1",
        "data shard {}/clips.csv --out {}/shards",
        "data check {}/clips.csv --num_processes 1 --out {}/checked",
        DRAW + " --out {}/world",
    ):
        code, said = answer(command.replace("{}", str(folder)).split())
        if code:
            raise SystemExit(f"{command}: {said}")
    weights = {"weight_map": {"x": "model.safetensors"}}
    (folder / "hf" / "model.safetensors.index.json").write_text(json.dumps(weights))


def answer(command: list[str], limit: int = 0) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it wrote to standard error.

    `limit` is in seconds; 0 is none.
    """
    said = io.StringIO()
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(limit)
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = vjepa(command)
    signal.alarm(0)
    return code, said.getvalue()


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"no answer in {SLOWEST_SECONDS} s")


def attack(target: Target, good: Path, every: int) -> Iterator[tuple[str, str, str]]:
    """Give a verb each damaged form of a file; yield the damage, the verdict and the last line it said."""
    for number, (name, text) in enumerate(
        damaged((good / target.file).read_bytes(), Path(target.file).suffix)
    ):
        if number % every:
            continue
        with tempfile.TemporaryDirectory(prefix="attack-") as place:
            folder = Path(place) / "copy"
            shutil.copytree(good, folder)
            (folder / target.file).write_bytes(text)
            video = str(folder / "videos" / "left" / "0.mp4")
            code, said = answer(
                [word.format(folder, video=video) for word in target.command.split()], SLOWEST_SECONDS
            )
            lines = [line for line in said.splitlines() if line.startswith("vjepa: ")]
            yield (
                name,
                judged(code, lines, folder / target.file),
                lines[-1].replace(place, "")[:300] if lines else "",
            )


def judged(code: int, lines: list[str], file: Path) -> str:
    """Return what an answer is worth."""
    if code == 0:
        return "read"
    if code != 2 or not lines:
        return f"BAD exit {code}"
    return "refused" if str(file) in lines[-1] or str(file.parent) in lines[-1] else "BAD names no file"


def main() -> int:
    """Attack, write the report, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("attack_texts.csv"))
    parser.add_argument("--only", nargs="+", help="names of targets")
    parser.add_argument("--every", type=int, default=1, help="take each so-many-th damage")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="attack-good-") as good,
        options.out.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        make_files(Path(good))
        writer = csv.writer(file)
        writer.writerow(("target", "damage", "verdict", "said"))
        for target in TARGETS:
            if options.only and target.name not in options.only:
                continue
            for name, verdict, said in attack(target, Path(good), options.every):
                writer.writerow((target.name, name, verdict, said))
                counts[verdict] += 1
            file.flush()
            print(target.name, dict(counts), flush=True)
    return int(any(verdict.startswith("BAD") for verdict in counts))


if __name__ == "__main__":
    sys.exit(main())
