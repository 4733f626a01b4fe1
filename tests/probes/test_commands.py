"""From real video files to names: the probe and classify commands, features, and files."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.probes.verbs import classify, probe
from tests.videos import write_broken
from vjepa.commands.app import main
from vjepa.data.manifests.reader import read_manifest
from vjepa.data.manifests.rows import ManifestError
from vjepa.features import ClipSpec, FeaturesError, RecordStore
from vjepa.features.tokens import tokens_of
from vjepa.models import VideoEncoder
from vjepa.models.files import save_folder
from vjepa.probes import ProbeError, ProbeSettings, eval_clips, random_init_like
from vjepa.probes.files import open_probe

QUICK = ProbeSettings(lr=(3e-3,), num_steps=40)


def write_clip(path: Path, brightness: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 20, (4, 32, 32, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in (brightness + noise).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def write_split(folder: Path, name: str, clips: int, first_seed: int) -> Path:
    rows = ["path,label,side,one"]
    for i in range(clips):
        label = ("bright", "dark")[i % 2]
        write_clip(folder / name / f"{i}.mp4", {"bright": 200, "dark": 60}[label], first_seed + i)
        rows.append(f"{name}/{i}.mp4,{label},{'lr'[i % 2]},same")
    manifest = folder / f"{name}.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with train.csv, val.csv, an encoder in `encoder`, and a probe of it in `probe`."""
    folder = tmp_path_factory.mktemp("probe")
    write_split(folder, "train", 20, 0)
    write_split(folder, "val", 10, 100)
    save_folder(folder / "encoder", tiny_encoder(0))
    run(folder, out=folder / "probe")
    return folder


def tiny_encoder(seed: int) -> VideoEncoder:
    model = VideoEncoder(img_size=32, patch_size=8, num_frames=4, embed_dim=24, depth=1, num_heads=2)
    return random_init_like(model, seed=seed)


def run(place: Path, **options):
    files = {
        "encoder": str(place / "encoder"),
        "train": str(place / "train.csv"),
        "val": str(place / "val.csv"),
    }
    return probe(**{**files, "grid": QUICK, "device": "cpu", **options})


def test_probe_then_classify(place):
    figures = run(place, out=place / "probe").figures
    assert figures["top1"] > 0.9 and figures["random_init_top1"] > 0.9 and figures["chance"] == 0.5
    assert figures["per_class"] == {"bright": 1.0, "dark": 1.0}
    assert figures["confusion"] == ((5, 0), (0, 5)) and figures["labels"] == ("bright", "dark")
    assert sorted(p.name for p in (place / "probe").iterdir()) == ["config.json", "probe.safetensors"]

    videos = [str(place / "val" / f"{i}.mp4") for i in range(4)]
    predictions = classify(probe=place / "probe", videos=videos, device="cpu").figures["predictions"]
    assert [predictions[v][0]["label"] for v in videos] == ["bright", "dark", "bright", "dark"]
    assert sum(x["probability"] for x in predictions[videos[0]]) == pytest.approx(1)
    best = classify(probe=place / "probe", videos=videos, top=1, batch_size=1).figures["predictions"]
    assert len(best[videos[0]]) == 1
    with pytest.raises(ProbeError, match="at least 1"):
        classify(probe=place / "probe", videos=videos, top=0)


def test_linear_probe_of_another_column(place, tmp_path):
    figures = run(place, out=tmp_path / "p", probe="linear", label="side", random_init=False).figures
    assert figures["labels"] == ("l", "r") and figures["random_init_top1"] is None
    head, card = open_probe(tmp_path / "p")
    assert card.kind == "linear" and card.label_names == ("l", "r")
    found = classify(probe=tmp_path / "p", videos=[str(place / "val/0.mp4")]).figures["predictions"]
    assert found[str(place / "val/0.mp4")][0]["label"] == "l"


def test_settings_reach_the_probe(place, tmp_path):
    options = {"num_frames": 2, "fps": 8.0, "num_per_class": 4, "batch_size": 3, "random_init": False}
    figures = run(place, out=tmp_path, root=str(place), decoder="pyav", seed=3, **options).figures
    clip = json.loads((tmp_path / "config.json").read_text())["clip"]
    assert (clip["num_frames"], clip["fps"]) == (2, 8.0)
    assert figures["num_train"] == 8
    assert figures["chosen"]["num_steps"] == 40


def test_broken_clips_are_counted_and_the_rest_goes_on(place, tmp_path):
    broken = write_broken(place / "broken")
    manifest = place / "with_broken.csv"
    text = (place / "train.csv").read_text()
    manifest.write_text(text + "".join(f"{p.relative_to(place)},dark,l,same\n" for p in broken))
    figures = run(place, out=tmp_path, train=str(manifest), random_init=False).figures
    assert figures["num_failures"] == 3 and figures["num_train"] == 20
    assert {Path(f["path"]) for f in figures["failures"]} == set(broken)

    good, missing = str(place / "val/1.mp4"), str(place / "missing.mp4")
    report = classify(probe=place / "probe", videos=[str(broken[0]), good, missing])
    assert [row["1"].split(" ")[0] for row in report.rows] == ["cannot", "dark", "cannot"]
    with pytest.raises(ProbeError, match="none of the 1 clips"):
        classify(probe=place / "probe", videos=[str(broken[1])])


def test_an_encoder_that_moved_or_is_another(place, tmp_path):
    head, card = open_probe(place / "probe")
    text = (place / "probe" / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("/encoder", "/gone"))
    (tmp_path / "probe.safetensors").write_bytes((place / "probe" / "probe.safetensors").read_bytes())
    videos = [str(place / "val/0.mp4")]
    with pytest.raises(ProbeError, match="Name its place with --encoder"):
        classify(probe=tmp_path, videos=videos)
    classify(probe=tmp_path, videos=videos, encoder=str(place / "encoder"))
    save_folder(tmp_path / "other", tiny_encoder(1))
    with pytest.raises(ProbeError, match="not the encoder this probe was trained on"):
        classify(probe=place / "probe", videos=videos, encoder=str(tmp_path / "other"))


def test_folders_without_a_whole_probe(place, tmp_path):
    with pytest.raises(ProbeError, match="vjepa probe --out"):
        open_probe(tmp_path)
    card = (place / "probe" / "config.json").read_text()
    weights = (place / "probe" / "probe.safetensors").read_bytes()
    (tmp_path / "config.json").write_text(card)
    (tmp_path / "probe.safetensors").write_bytes(weights[:100])
    with pytest.raises(ProbeError, match="damaged"):
        open_probe(tmp_path)
    (tmp_path / "probe.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text(card.replace('"bright",', '"bright", "third",'))
    with pytest.raises(ProbeError, match="does not fit"):
        open_probe(tmp_path)


def test_labels_that_make_no_task(place, tmp_path):
    with pytest.raises(ManifestError, match="It has: path, label, side, one"):
        run(place, out=tmp_path, label="event")
    with pytest.raises(ProbeError, match="needs labels"):
        run(place, out=tmp_path, train=str(place / "train"))
    with pytest.raises(ProbeError, match="at least two classes"):
        run(place, out=tmp_path, label="one")
    unseen = place / "unseen.csv"
    unseen.write_text("path,label\nval/0.mp4,purple\n")
    with pytest.raises(ManifestError, match="unseen.csv:2: label 'purple'"):
        run(place, out=tmp_path, val=str(unseen))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there(place, tmp_path):
    with pytest.raises(ProbeError, match="--device cpu"):
        run(place, out=tmp_path, device="cuda")


def test_command_line(place, tmp_path, capsys):
    recipe = tmp_path / "probe.yaml"
    recipe.write_text(
        f"train: {place / 'train.csv'}\nval: {place / 'val.csv'}\ngrid: {{lr: [3e-3], num_steps: 40}}\n"
    )
    out = tmp_path / "out"
    argv = ["probe", "--config", str(recipe), "--encoder", str(place / "encoder"), "--out", str(out)]
    assert main(argv) == 0
    result = json.loads((out / "result.json").read_text())
    assert {"top1", "top5", "per_class", "confusion", "random_init_top1", "chance"} <= result.keys()
    assert result["settings"]["grid"]["num_steps"] == 40
    capsys.readouterr()
    assert main(["classify", "--probe", str(out), str(place / "val/0.mp4"), str(place / "none.mp4")]) == 2
    printed = capsys.readouterr().out
    assert "bright" in printed and "cannot be read" in printed
    assert main(["classify", "--probe", str(tmp_path), str(place / "val/0.mp4")]) == 2


def test_features_serve_several_columns_and_skip_nothing(place):
    manifest = read_manifest(place / "val.csv")
    model = tiny_encoder(0)
    spec = ClipSpec.for_encoder(model)
    features = tokens_of(model.train(), eval_clips(manifest, spec), spec, batch_size=4)
    assert model.training
    assert features.tokens.shape == (10, 2 * 4 * 4, 24) and features.index.tolist() == list(range(10))
    assert features.labels(manifest).tolist() == [0, 1] * 5
    one = read_manifest(place / "val.csv", label_column="one")
    assert features.labels(one).tolist() == [0] * 10
    assert features.groups(manifest) == [""] * 10
    sample = eval_clips(manifest, spec)[3].video
    with torch.no_grad():
        expected = model.eval()(sample[None])
    torch.testing.assert_close(features.tokens[3:4].float(), expected, atol=2e-3, rtol=2e-3)


def test_bf16_features_are_near_fp32(place):
    manifest, model = read_manifest(place / "val.csv"), tiny_encoder(0)
    spec = ClipSpec.for_encoder(model)
    exact, rough = (
        tokens_of(model, eval_clips(manifest, spec), spec, precision=p).tokens.float()
        for p in ("fp32", "bf16")
    )
    assert 0 < (exact - rough).abs().max() < 0.2


def test_large_features_go_to_a_file(place, tmp_path):
    manifest, model = read_manifest(place / "val.csv"), tiny_encoder(0)
    spec = ClipSpec.for_encoder(model)
    clips = eval_clips(manifest, spec)
    with pytest.raises(FeaturesError, match="give a scratch folder"):
        tokens_of(model, clips, spec, store=RecordStore(num_records=10, max_ram_gb=1e-6))
    store = RecordStore(num_records=10, max_ram_gb=1e-6, scratch=tmp_path)
    filed = tokens_of(model, clips, spec, store=store)
    assert [p.stat().st_size for p in tmp_path.iterdir()] == [filed.tokens.numel() * 2]
    assert torch.equal(filed.tokens, tokens_of(model, clips, spec).tokens)


def test_a_diverged_encoder_is_refused(place):
    manifest, model = read_manifest(place / "val.csv"), tiny_encoder(0)
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    spec = ClipSpec.for_encoder(model)
    with pytest.raises(FeaturesError, match="it has diverged"):
        tokens_of(model, eval_clips(manifest, spec), spec)


def test_random_init_differs_by_its_seed_only():
    model = tiny_encoder(0)
    before = torch.random.get_rng_state()
    same, other = random_init_like(model, seed=0), random_init_like(model, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    weight = model.blocks[0].mlp.fc1.weight
    assert torch.equal(weight, same.blocks[0].mlp.fc1.weight)
    assert not torch.equal(weight, other.blocks[0].mlp.fc1.weight)
    assert other.config == model.config and not other.training
