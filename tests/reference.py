"""The reference cases in tests/fixtures: random-weight networks with inputs and expected outputs."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent / "fixtures"
ENCODER_ARGUMENTS = (
    "img_size", "patch_size", "num_frames", "tubelet_size", "embed_dim", "depth", "num_heads", "mlp_ratio",
)  # fmt: skip


class Case(NamedTuple):
    """A case: what `fixtures.json` says of it, and its tensors (inputs stored in half precision as float)."""

    about: dict[str, Any]
    tensors: dict[str, Tensor]

    def weights(self, prefix: str = "w.") -> dict[str, Tensor]:
        """Tensors under `prefix`, less positions (made anew); 2-D patch weights as one-frame tubelets."""
        found = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        patch = "patch_embed.proj.weight"
        if patch in found and found[patch].ndim == 4:
            found[patch] = found[patch][:, :, None]
        return {k: v for k, v in found.items() if "pos_embed" not in k}

    def assert_close(self, actual: Tensor, name: str) -> None:
        """Within the tolerance that the case states."""
        tolerance = self.about["tolerance"]
        torch.testing.assert_close(actual, self.tensors[name].to(actual.dtype), **tolerance)


def reference_case(name: str) -> Case:
    about = json.loads((FOLDER / "fixtures.json").read_text())[name]
    tensors = load_file(FOLDER / about["file"])
    return Case(about, {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()})


def reference_json(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text())


def encoder_arguments(ctor: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `VideoEncoder` from those of the reference's class."""
    positions = {True: "rope", False: "sincos_first", None: "sincos"}  # V-JEPA 1 does not know the argument
    mlp = {None: "gelu", True: "swiglu", False: "swiglu_full"}[ctor.get("wide_silu")]
    return {k: ctor[k] for k in ENCODER_ARGUMENTS} | {
        "position": positions[ctor.get("use_rope")],
        "mlp_ratio": float(ctor["mlp_ratio"]),
        "mlp": mlp,
    }


def load_strictly(network: torch.nn.Module, weights: dict[str, Tensor]) -> torch.nn.Module:
    """Fill `network`; only tables of positions may be missing."""
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"pos_embed"}, (missing, unexpected)
    return network.eval()
