import pytest

from vjepa.data.audit.examine import FileRecord, PartRecord
from vjepa.data.audit.findings import AuditReport, ClipNeeds, duplicates, leaks, of_files, of_rows
from vjepa.data.manifests.rows import Manifest, ManifestRow


def files(rates: list[float], **options) -> dict[str, FileRecord]:
    return {f"{i}.mp4": FileRecord(num_frames=10, gap=1 / rate, **options) for i, rate in enumerate(rates)}


def reasons(findings) -> list[tuple[str, str, str]]:
    return [(found.kind, found.path, found.reason) for found in findings]


def test_a_frame_rate_is_odd_where_nearly_all_have_another():
    found = reasons(of_files(files([25.0] * 19 + [12.0]), set(), ClipNeeds()))
    assert found == [("odd_fps", "19.mp4", "12 frames per second, 19 of 20 files have 25")]
    assert not reasons(of_files(files([25.0] * 6 + [30.0] * 4), set(), ClipNeeds()))
    assert not reasons(of_files(files([29.97, 29.970001]), set(), ClipNeeds()))


def test_a_frame_rate_below_that_of_the_clip_is_odd():
    found = reasons(of_files(files([25.0, 3.0]), set(), ClipNeeds(fps=4.0)))
    assert found == [("odd_fps", "1.mp4", "3 frames per second, a clip takes 4: some repeat")]


def test_what_cannot_be_read_is_sorted():
    found = {
        "a": FileRecord(reason="truncated: 3 of 9 promised frames are there"),
        "b": FileRecord(reason="the file is empty (0 bytes)"),
        "c": FileRecord(reason="its process crashed (SIGSEGV)"),
        "d": FileRecord(num_frames=9, gap=0.1, uneven=2, longest_gap=0.5),
    }
    assert [f.kind for f in of_files(found, {"c"}, ClipNeeds())] == [
        "truncated",
        "broken",
        "hung",
        "variable",
    ]
    (variable,) = (f for f in of_files(found, {"c"}, ClipNeeds()) if f.kind == "variable")
    assert (
        "2 of 8 gaps between frames differ from 0.100 s by more than a tenth, the longest is 0.500 s"
        in variable.reason
    )


def test_short_rows_are_named_by_line():
    row = ManifestRow("a.mp4", start=1.0, end=2.0, line=7)
    manifest = Manifest((row,), (), "csv", "m.csv")
    parts = {row: PartRecord(10, 0.9, 0.1)}
    assert reasons(of_rows(manifest, parts, ClipNeeds(min_seconds=2.0))) == [
        ("short", "a.mp4", "line 7: 1.00 s of video, at least 2 are required")
    ]
    assert reasons(of_rows(manifest, parts, ClipNeeds(num_frames=11))) == [
        ("short", "a.mp4", "line 7: 10 frames, a clip has 11")
    ]
    assert not reasons(of_rows(manifest, parts, ClipNeeds(num_frames=10)))
    assert not reasons(of_rows(manifest, {}, ClipNeeds(num_frames=11))), "its file cannot be read"


def test_needs_that_mean_nothing_are_refused():
    for wrong in ({"num_frames": 0}, {"fps": 0.0}, {"min_seconds": -1.0}):
        with pytest.raises(ValueError, match="Omit what must not be checked"):
            ClipNeeds(**wrong)


def test_duplicates_name_the_first():
    found = {
        "a": FileRecord(content="1"),
        "b": FileRecord(content="2"),
        "c": FileRecord(content="1"),
        "d": FileRecord(),
    }
    assert reasons(duplicates(found)) == [("duplicate", "c", "all frames are those of a")]


def test_leaks_by_file_by_pictures_and_by_group():
    found = {name: FileRecord(content=name[0]) for name in ("a.mp4", "a2.mp4", "b.mp4", "c.mp4", "d.mp4")}
    rows = [
        ("train", ManifestRow("a.mp4", line=2)),
        ("val", ManifestRow("a2.mp4", line=3)),  # the same pictures
        ("train", ManifestRow("b.mp4", line=4, start=0.0, end=1.0)),
        ("val", ManifestRow("b.mp4", line=5, start=1.0, end=2.0)),  # another part of the same file
        ("train", ManifestRow("c.mp4", line=6, group="kitchen 1")),
        ("val", ManifestRow("d.mp4", line=7, group="kitchen 1")),
        ("val", ManifestRow("d.mp4", line=8, group="kitchen 1")),
    ]
    assert reasons(leaks(rows, found)) == [
        ("leak", "c.mp4", "group 'kitchen 1' is in train (c.mp4, line 6), val (d.mp4, line 7)"),
        ("leak", "a.mp4", "the same video is in train (a.mp4, line 2), val (a2.mp4, line 3)"),
        ("leak", "b.mp4", "the same video is in train (b.mp4, line 4), val (b.mp4, line 5)"),
    ]
    assert not list(leaks([("train", row) for _, row in rows], found))


def test_classes_are_counted_also_those_without_a_clip():
    rows = tuple(ManifestRow(f"{i}.mp4", label=0 if i < 12 else 2) for i in range(15))
    report = AuditReport(Manifest(rows, ("run", "sit", "walk"), "csv", "m.csv"), {})
    figures = report.figures()
    assert figures["labels"] == {"run": 12, "sit": 0, "walk": 3}
    assert figures["small_classes"] == {"sit": 0, "walk": 3} and figures["class_balance"] == 12.0
    unlabelled = AuditReport(Manifest((ManifestRow("a.mp4"),), (), "csv", "m.csv"), {}).figures()
    assert unlabelled["labels"] == {"(none)": 1} and unlabelled["class_balance"] is None
