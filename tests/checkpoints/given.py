"""Checkpoints of other makes, on disk: the reference cases as the files they would come in, and tiny networks."""

import json

import torch
from safetensors.torch import save_file

import vjepa
from tests.reference import reference_case
from vjepa.commands import convert as verb
from vjepa.commands.flags import grouped
from vjepa.commands.report import Report
from vjepa.probes import AttentiveProbe

WIDTH = 24
CLIP = {"img_size": 32, "patch_size": 8, "num_frames": 4}
HEADS = {"encoder": 2, "predictor": 2, "probe": 4}


def case_weights(name: str) -> dict[str, torch.Tensor]:
    """Weights of a reference case under their published keys, positions and all."""
    tensors = reference_case(name).tensors
    return {k.removeprefix("w."): v for k, v in tensors.items() if k.startswith("w.")}


def prefixed(weights: dict[str, torch.Tensor], prefix: str = "module.backbone.") -> dict[str, torch.Tensor]:
    return {prefix + k: v for k, v in weights.items()}


def random_(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The network with weights large enough for every one to matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / max(weight.shape[-1], 1) ** 0.5)
    return network.eval()


def tiny_encoder(seed: int = 0, **arguments) -> vjepa.VideoEncoder:
    settings = {**CLIP, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS["encoder"]} | arguments
    return random_(vjepa.VideoEncoder(**settings), seed)


def tiny_predictor(**arguments) -> vjepa.Predictor:
    settings = {"embed_dim": 16, "depth": 1, "num_heads": HEADS["predictor"]} | arguments
    return random_(vjepa.Predictor(WIDTH, **settings), 7)


def tiny_probe(depth: int = 4, num_heads: int = HEADS["probe"], **arguments) -> AttentiveProbe:
    sizes = {"embed_dim": WIDTH, "num_classes": 5, "num_heads": num_heads, "depth": depth}
    return random_(AttentiveProbe(**sizes, **arguments), 9)


def training_file(path, *, dtype=torch.float32):
    """A training checkpoint of V-JEPA 2: both encoders with the table of positions they do not use."""
    table = torch.randn(1, 32, WIDTH, generator=torch.Generator().manual_seed(3))

    def state(network, extra):
        return prefixed({k: v.to(dtype) for k, v in {**extra, **network.state_dict()}.items()})

    content = {
        "encoder": state(tiny_encoder(1), {"pos_embed": table}),
        "target_encoder": state(tiny_encoder(2), {"pos_embed": table}),
        "predictor": state(tiny_predictor(), {}),
        "opt": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "scaler": None,
        "epoch": 12,
        "lr": 5e-4,
    }
    torch.save(content, path)
    return content


def hf_folder(folder, tensors, *, shards: int = 1, **config):
    """A folder of transformers' from tensors in its names, in one file or in several."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "vjepa2", **config}))
    keys = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = {key: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, key in enumerate(keys)}
    for name in set(names.values()):
        save_file({k: tensors[k] for k in keys if names[k] == name}, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


def hf_case(folder, name: str, **options):
    case = reference_case(name)
    return case, hf_folder(folder, case_weights(name), **(case.about["ctor"]["VJEPA2Config"] | options))


def convert(**flags) -> Report:
    """Run `vjepa convert` with its flags as keywords."""
    return verb.convert(**grouped(verb.convert, flags))


def assert_same_bytes(a, b) -> None:
    """Two mappings of tensors, equal in names, types and bits."""
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape, key
        assert torch.equal(
            a[key].contiguous().flatten().view(torch.uint8), b[key].contiguous().flatten().view(torch.uint8)
        ), key
