from dataclasses import replace

import numpy as np

from vjepa.data import read_manifest
from vjepa.data.loading.order import epoch_order
from vjepa.data.manifests.identity import row_identities

# of the loop over PurePath that was here before the columns: runs made then resume with the same order
PINNED = [
    0x0BA16706B0B904318,
    0x7BE8DFBB7D5BCF7C,
    0x8EA4BF82DA6A9B3C,
    0x15948A9A93597765,
    0x0337DFBE7C4B0747,
    0xB2F8F9B73D8EA72A,
    0x8004F858373A7BB2,
    0x8962BE767D631B3E,
    0x5098F54E903C98AB,
    0x363BFAB894AA83A5,
    0xC027DCA8F3E9EDC1,
    0x876912CB1A522DA2,
]
PATHS = ["a.mp4", "b/c.mp4", "./a.mp4", "a.mp4", "é ü.mp4", "b/../a.mp4"]


def pinned_manifest(folder):
    (folder / "b").mkdir()
    for name in ("a.mp4", "b/c.mp4", "é ü.mp4"):
        (folder / name).touch()
    lines = [f"{path},{start}" for path in PATHS for start in ("", "1.5")]
    (folder / "m.csv").write_text("\n".join(["path,start", *lines]), encoding="utf-8")
    return read_manifest(folder / "m.csv")


def test_identities_are_those_of_earlier_runs(tmp_path):
    assert row_identities(pinned_manifest(tmp_path)).tolist() == PINNED


def test_identities_do_not_depend_on_how_rows_are_kept_or_on_the_folder(tmp_path):
    manifest = pinned_manifest(tmp_path)
    listed = replace(manifest, rows=tuple(manifest.rows))
    assert row_identities(listed).tolist() == PINNED
    assert row_identities(replace(manifest, rows=manifest.rows[:2])).tolist() == PINNED[:2]
    absolute = tmp_path / "absolute.csv"
    absolute.write_text(f"path,start\n{tmp_path}/a.mp4,\n", encoding="utf-8")
    assert row_identities(read_manifest(absolute)).tolist() == PINNED[:1]


def test_a_url_is_its_own_name(tmp_path):
    (tmp_path / "u.csv").write_text("path\ns3://one//a.mp4\ns3://one/a.mp4\ns3://one/a.mp4\n")
    first, second, third = row_identities(read_manifest(tmp_path / "u.csv")).tolist()
    assert len({first, second, third}) == 3


def test_order_of_the_others_stays_when_a_row_goes():
    identities = np.random.default_rng(0).integers(0, 2**63, 50).astype(np.uint64)
    whole, without = epoch_order(identities, 3, 1), epoch_order(identities[:-1], 3, 1)
    assert [i for i in whole if i != 49] == without.tolist()
