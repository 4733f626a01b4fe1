import builtins
import json
import logging

import pyarrow as pa
import pytest
from pyarrow import parquet

from vjepa.data import ManifestError, read_manifest
from vjepa.data.loading.dataset import VideoClips
from vjepa.data.manifests.formats import ROWS_AT_ONCE
from vjepa.data.sampling import ClipSampler
from vjepa.data.transforms.video import TrainTransform


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    return tmp_path


COLUMNS = {
    "path": ["a.mp4", "b.mp4", "c.mp4"],
    "label": ["walk", "run", None],
    "start": [0.5, None, None],
    "end": [2.0, None, None],
    "split": ["train", "train", "val"],
    "group": ["x", "", "y"],
    "pair": ["p", "p", None],
    "weight": [2.0, None, 1.0],
    "event": ["fall", "fall", "bounce"],
}


def as_csv(folder):
    cells = [["" if v is None else str(v) for v in column] for column in COLUMNS.values()]
    lines = [",".join(COLUMNS), *(",".join(row) for row in zip(*cells, strict=True))]
    (folder / "m.csv").write_text("\n".join(lines))
    return folder / "m.csv"


def as_jsonl(folder):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "m.jsonl"


def as_parquet(folder):
    parquet.write_table(pa.table(COLUMNS), folder / "m.parquet")
    return folder / "m.parquet"


@pytest.mark.parametrize("written", [as_csv, as_jsonl, as_parquet])
def test_every_column_of_every_kind(folder, written):
    manifest = read_manifest(written(folder))
    assert manifest.kind == written.__name__[3:] and manifest.columns == tuple(COLUMNS)
    assert manifest.label_names == ("run", "walk")
    first, second, third = manifest.rows
    assert (first.label, first.start, first.end, first.group, first.weight, first.pair) == (
        1,
        0.5,
        2.0,
        "x",
        2.0,
        "p",
    )
    assert (second.label, second.start, second.group, second.weight, second.pair) == (0, None, "", 1.0, "p")
    assert (third.label, third.pair) == (-1, "")
    assert len(read_manifest(written(folder), split="val")) == 1
    assert read_manifest(written(folder), label_column="event").label_names == ("bounce", "fall")
    with pytest.raises(ManifestError, match="no column 'action' for the label"):
        read_manifest(written(folder), label_column="action")


def test_parquet_labels_of_other_types(folder):
    cases = {
        "ints": pa.array([3, None, 0]),
        "pandas": pa.array([3.0, float("nan"), 0.0]),
        "words": pa.array(["run", "walk", "run"]).dictionary_encode(),
    }
    for name, labels in cases.items():
        parquet.write_table(pa.table({"path": COLUMNS["path"], "label": labels}), folder / "m.parquet")
        found = [row.label for row in read_manifest(folder / "m.parquet").rows]
        assert found == ([0, 1, 0] if name == "words" else [3, -1, 0])


def test_parquet_errors_name_row_and_way_out(folder, monkeypatch):
    parquet.write_table(pa.table({"path": ["a.mp4", "gone.mp4"]}), folder / "gone.parquet")
    with pytest.raises(ManifestError, match=r"gone.parquet:2: gone.mp4: no such file"):
        read_manifest(folder / "gone.parquet")
    parquet.write_table(pa.table({"file": ["a.mp4"]}), folder / "file.parquet")
    with pytest.raises(ManifestError, match="missing column 'path'; found file"):
        read_manifest(folder / "file.parquet")
    (folder / "text.parquet").write_text("path,label\na.mp4,1\n")
    with pytest.raises(ManifestError, match="not a Parquet file .*save it as CSV"):
        read_manifest(folder / "text.parquet")
    real = builtins.__import__

    def without_pyarrow(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(ManifestError, match=r'pip install "vjepa-toolkit\[shards\]", or save it as CSV'):
        read_manifest(as_path := folder / "gone.parquet")
    monkeypatch.undo()
    (folder / "saved.csv").write_text("path\na.mp4\n")
    assert as_path.exists() and len(read_manifest(folder / "saved.csv")) == 1


def test_lines_hold_across_blocks_blank_lines_and_quoted_breaks(folder):
    rows = ["a.mp4,walk"] * (ROWS_AT_ONCE + 5)
    rows[3:3] = ["", " , ", '"a.mp4","two\nlines"']
    text = "path,label\r\n" + "\r\n".join(rows) + "\r\n,walk\r\n"
    (folder / "long.csv").write_text(text, newline="")
    with pytest.raises(ManifestError, match=rf"long.csv:{ROWS_AT_ONCE + 11}: the path is empty"):
        read_manifest(folder / "long.csv")
    (folder / "long.csv").write_text(text.replace("\r\n,walk", "\r\nb.mp4,run"), newline="")
    manifest = read_manifest(folder / "long.csv")
    assert manifest.rows[3].line == 8 and manifest.rows[4].line == 9  # the last line of the quoted break
    assert manifest.rows[-1].line == ROWS_AT_ONCE + 11 and manifest.rows[-1].path.endswith("b.mp4")
    assert [manifest.label_names[manifest.rows[i].label] for i in (0, -1)] == ["walk", "run"]


def test_urls_are_kept_and_not_looked_for(folder):
    (folder / "u.csv").write_text("path,label\ns3://bucket//a b.mp4,1\nhttps://host/b.mp4?x=1,0\na.mp4,0\n")
    first, second, third = read_manifest(folder / "u.csv", root=folder).rows
    assert (first.path, second.path) == ("s3://bucket//a b.mp4", "https://host/b.mp4?x=1")
    assert third.path == str(folder / "a.mp4")


def test_a_row_may_name_a_frame_folder(folder):
    (folder / "frames").mkdir()
    (folder / "m.csv").write_text("path\nframes\n")
    assert read_manifest(folder / "m.csv").rows[0].path == str(folder / "frames")


def test_files_of_a_long_manifest_are_sampled(folder, caplog):
    rows = ["a.mp4"] * 10_001
    rows[5_000] = "gone.mp4"
    (folder / "long.csv").write_text("\n".join(["path", *rows]))
    (folder / "short.csv").write_text("\n".join(["path", *rows[1:]]))
    with pytest.raises(ManifestError, match=r"short.csv:5001: gone.mp4: no such file"):
        read_manifest(folder / "short.csv")
    with caplog.at_level(logging.INFO, "vjepa"):
        manifest = read_manifest(folder / "long.csv")
    assert "checked that 1000 of 10001 files exist" in caplog.text
    with pytest.raises(ManifestError, match=r"no such file .*\(1000 of 1000 checked files\)"):
        read_manifest(folder / "long.csv", root=folder / "elsewhere")
    clips = VideoClips(manifest, sampler=ClipSampler(num_frames=2), transform=TrainTransform(size=16))
    failure = clips[5_000].failure
    assert failure is not None and failure.path.endswith("gone.mp4")
