"""Windows, layers, pools and formats, as `vjepa.features.open` reads them."""

import shutil
import sys

import pytest
import torch
from torch.utils.data import DataLoader

import vjepa
import vjepa.features
from tests.features.given import extract
from vjepa.features import FeaturesError


def made(out, **given):
    extract(out=out, **given)
    return vjepa.features.open(out)


def test_windows_of_a_long_video_are_those_of_the_encoder(small, long_video, tmp_path):
    store = made(tmp_path, encoder=small, data=str(long_video), window=2.0, stride=1.0, batch_size=4)
    assert len(store) == 19 and [row.start for row in store.rows] == [float(i) for i in range(19)]
    network = vjepa.load_encoder(small)
    for at in (0, 7, 18):
        clip = vjepa.read_clip(long_video, num_frames=4, fps=2.0, start_seconds=float(at))
        with torch.no_grad():
            expected = network(vjepa.default_transform(network)(clip)[None]).mean(1)[0]
        torch.testing.assert_close(store.features[at], expected, atol=2e-5, rtol=1e-4)
    assert store.rows[3].end == pytest.approx(4.5)  # its last frame
    assert len(made(tmp_path / "b", encoder=small, data=str(long_video), window=2.0)) == 10


def test_layers_and_pools(small, clips, tmp_path):
    dense = made(tmp_path / "n", encoder=small, data=clips, pool="none").features
    frame = made(tmp_path / "f", encoder=small, data=clips, pool="frame")
    torch.testing.assert_close(frame.features, dense.reshape(10, 2, 4, 24).mean(2))
    assert frame.about["grid"] == [2, 2, 2]
    both = made(tmp_path / "b", encoder=small, data=clips, layers="-1,0").features
    torch.testing.assert_close(both[:, 0], dense.mean(1))
    first = made(tmp_path / "0", encoder=small, data=clips, layers="0").features
    assert torch.equal(both[:, 1], first) and not torch.allclose(both[:, 0], first)
    with pytest.raises(ValueError, match="indices name blocks 0..1 once each"):
        extract(encoder=small, data=clips, out=tmp_path / "x", layers="7")
    with pytest.raises(FeaturesError, match="such as -1 or 5,11"):
        extract(encoder=small, data=clips, out=tmp_path / "x", layers="last")


def test_negative_layers_on_the_command_line(small, clips, tmp_path):
    from vjepa.commands.app import main

    arguments = ["extract", "--encoder", small, "--data", clips, "--out", str(tmp_path)]
    assert main([*arguments, "--layers", "-1,0", "--index", "false"]) == 0
    assert vjepa.features.open(tmp_path).spec.layers == (-1, 0)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("format", ["safetensors", "npy", "parquet"])
def test_formats_hold_the_same(small, clips, tmp_path, format, dtype):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    given = {"encoder": small, "data": clips, "dtype": dtype, "pool": "frame", "batch_size": 4}
    if format != "safetensors" and dtype == "bf16":
        with pytest.raises(FeaturesError, match="Use --dtype fp16 or fp32, or --format safetensors"):
            extract(out=tmp_path, format=format, **given)
        return
    store = made(tmp_path / "it", format=format, **given)
    plain = made(tmp_path / "plain", **given | {"dtype": "fp32"}).features
    kept = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert store.features.dtype == kept and store.features.shape == (10, 2, 24)
    assert torch.equal(store.features, plain.to(kept))
    assert store.labels.tolist() == [0, 1] * 5


def test_parquet_without_its_package_names_the_extra(small, clips, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FeaturesError, match=r"vjepa-toolkit\[shards\]"):
        extract(encoder=small, data=clips, out=tmp_path, format="parquet")


def test_rows_pandas_dataset_and_timeline(small, clips, tmp_path):
    store = made(tmp_path, encoder=small, data=clips, window=0.5)
    assert len(store) == 30 and store.label_names == ("left", "right")
    row = store.rows[4]
    assert (row.label_name, row.manifest_row, row.start) == ("right", 1, 0.5)
    batch, labels = next(iter(DataLoader(store, batch_size=5)))
    assert torch.equal(batch, store.features[:5]) and labels.tolist() == [0, 0, 0, 1, 1]
    line = store.timeline(row.path)
    assert torch.equal(line.features, store.features[3:6]) and line.seconds[:, 0].tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(FeaturesError, match="no features of b.mp4"):
        store.timeline("b.mp4")
    pandas = pytest.importorskip("pandas")
    table = store.pandas()
    assert isinstance(table, pandas.DataFrame) and table["label_name"].value_counts()["left"] == 15
    assert (table["features"][4] == store.features[4].numpy()).all()


def test_a_folder_without_features_is_refused(tmp_path):
    with pytest.raises(FeaturesError, match="the same command again finishes one that was stopped"):
        vjepa.features.open(tmp_path)


@pytest.mark.parametrize("format", ["safetensors", "npy", "parquet"])
def test_damaged_files_are_named_and_the_advice_holds(small, clips, tmp_path, format):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    given = {"encoder": small, "data": clips, "out": tmp_path, "format": format}
    extract(**given)
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    names = {path.name for path in whole} - {"result.json", ".lock"}
    assert len(names) == 3
    for name in names:
        path = tmp_path / name
        path.write_bytes(whole[path][: len(whole[path]) // 2])
        with pytest.raises(FeaturesError, match=f"{name} is damaged .*Delete the folder and run"):
            store = vjepa.features.open(tmp_path)
            assert len(store.rows) and len(store.features)
        path.write_bytes(whole[path])
    (tmp_path / "index.csv").write_bytes(b"\n".join(whole[tmp_path / "index.csv"].split(b"\n")[:-3]))
    with pytest.raises(FeaturesError, match="8 rows of 10"):
        vjepa.features.open(tmp_path).rows  # noqa: B018
    shutil.rmtree(tmp_path)
    extract(**given)
    assert {path: path.read_bytes() for path in whole if path.name in names} == {
        path: content for path, content in whole.items() if path.name in names
    }


def test_attentive_pooling_is_that_of_the_probe(small, clips, tmp_path):
    from tests.probes.verbs import probe
    from vjepa.probes import ProbeSettings
    from vjepa.probes.files import open_probe

    quick = ProbeSettings(lr=(3e-3,), num_steps=20)
    probe(encoder=small, train=clips, val=clips, out=tmp_path / "probe", random_init=False, grid=quick)
    given = {"encoder": small, "data": clips}
    pooled = made(tmp_path / "a", pool="attentive", probe=tmp_path / "probe", **given).features
    tokens = made(tmp_path / "n", pool="none", **given).features
    trained, _ = open_probe(tmp_path / "probe")
    with torch.no_grad():
        torch.testing.assert_close(trained.probe.linear(pooled), trained(tokens), atol=1e-4, rtol=1e-4)
    with pytest.raises(FeaturesError, match="needs --probe DIR"):
        extract(out=tmp_path / "x", pool="attentive", **given)
    with pytest.raises(FeaturesError, match="Leave --layers out"):
        extract(out=tmp_path / "x", pool="attentive", probe=tmp_path / "probe", layers="0", **given)
    with pytest.raises(FeaturesError, match="holds no readable probe"):
        extract(out=tmp_path / "x", pool="attentive", probe=tmp_path / "a", **given)
