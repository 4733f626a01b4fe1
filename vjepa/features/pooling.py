"""From a clip to its feature: which blocks of the encoder, how their tokens are pooled, in which precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from einops import reduce
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vjepa.checkpoints.strict import nonfinite
from vjepa.features.encode import DType, Precision, autocast
from vjepa.features.errors import FeaturesError
from vjepa.features.reader import STORED
from vjepa.layers.pooling import AttentivePooler
from vjepa.models import VideoEncoder
from vjepa.models.files import CONFIG, weights_digest
from vjepa.readers import UNEXPECTED, content_of, read_json
from vjepa.types import TokenGrid

Pool = Literal["mean", "none", "frame", "attentive"]


class TrainedPooler(nn.Module):
    """The part of a trained attentive probe before its classes: standardisation, then one vector per clip."""

    mean: Tensor
    std: Tensor

    def __init__(self, pooler: AttentivePooler, *, mean: Float[Tensor, "d"], std: Float[Tensor, "d"]) -> None:
        super().__init__()
        self.pooler = pooler
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Pool tokens (B, N, D) to vectors (B, D)."""
        return self.pooler((tokens.float() - self.mean) / self.std)[:, 0]


def load_pooler(folder: Path, encoder: VideoEncoder) -> TrainedPooler:
    """Return the pooler of an attentive probe in a folder written by `vjepa probe`.

    Raises:
        FeaturesError: If there is no attentive probe in it, or it was trained on another encoder.
    """
    try:
        card = _read_card(folder)
        stored = load_file(folder / "probe.safetensors")
    except (OSError, *UNEXPECTED, SafetensorError) as error:
        raise FeaturesError(
            f"--probe {folder} holds no readable probe ({error}). Give a folder written by `vjepa probe`."
        ) from error
    if card["kind"] != "attentive":
        raise FeaturesError(
            f"--probe {folder}: a probe of kind {card['kind']}. Give an attentive one, or --pool mean."
        )
    if card["encoder_digest"] != weights_digest(encoder):
        raise FeaturesError(
            f"--probe {folder} was trained on another encoder: {card['encoder']}. Give that one with --encoder."
        )
    if bad := nonfinite(stored):
        raise FeaturesError(
            f"--probe {folder}: NaN or infinite numbers in {', '.join(bad[:4])}. Train it again."
        )
    with content_of(folder / CONFIG, "an attentive probe"):
        return _filled_pooler(card, stored)


def _filled_pooler(card: dict[str, Any], stored: dict[str, Tensor]) -> TrainedPooler:
    pooler = AttentivePooler(
        embed_dim=card["embed_dim"],
        num_heads=card["num_heads"],
        depth=card["depth"] or 1,
        blocks_on=card.get("blocks_on", "tokens"),
    )
    prefix = "probe.pooler."
    pooler.load_state_dict(
        {
            k.removeprefix(prefix): v
            for k, v in stored.items()
            if k.startswith(prefix) and ".xattn.proj." not in k
        }
    )
    return TrainedPooler(pooler, mean=stored["standardize.mean"], std=stored["standardize.std"]).eval()


def _read_card(folder: Path) -> dict[str, Any]:
    """Return what the pooler needs of a probe's `config.json`, or of the `probe.json` of an old one."""
    if (folder / "probe.json").is_file():
        return read_json(folder / "probe.json")
    content = read_json(folder / CONFIG)
    encoder, sizes = content["reads_encoder"], content["probe"]
    return {
        "kind": content["kind"],
        "encoder": encoder["path"],
        "encoder_digest": encoder["digest"],
        **{name: sizes[name] for name in ("embed_dim", "num_heads", "depth", "blocks_on") if name in sizes},
    }


class FeatureMaker:
    """What turns clips into features.

    Args:
        encoder: The frozen encoder.
        layers: Blocks whose tokens are read, negative from the end. Of more than one, the features get an axis
            for them in front.
        pool: "mean" over all tokens (D), over those of each tubelet ("frame": (T, D)), a trained probe's pooling
            ("attentive": (D)), or "none": (N, D).
        pooler: The pooler of a trained probe, for "attentive".
        precision: "bf16" runs the encoder in autocast.
        dtype: What the features are kept in.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        *,
        layers: tuple[int, ...] = (-1,),
        pool: Pool = "mean",
        pooler: TrainedPooler | None = None,
        precision: Precision = "fp32",
        dtype: DType = "fp32",
    ) -> None:
        if (pool == "attentive") != (pooler is not None):
            raise FeaturesError(
                f"pool {pool!r} {'with' if pooler else 'without'} a probe: attentive pooling, and no other, "
                "needs --probe DIR, a folder written by `vjepa probe`."
            )
        depth = len(encoder.blocks)
        if pool == "attentive" and tuple(i % depth for i in layers) != (depth - 1,):
            raise FeaturesError(
                f"layers {list(layers)} with attentive pooling: its probe reads the last. Leave --layers out."
            )
        self.encoder, self.layers, self.pool, self.precision = encoder, layers, pool, precision
        self.device = next(encoder.parameters()).device
        self.pooler = pooler.to(self.device) if pooler is not None else None
        self.dtype = STORED[dtype]
        ascending = sorted(layers, key=lambda i: i % depth)
        self._order = [ascending.index(i) for i in layers]  # of each, in the order asked for

    def __call__(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b *feature"]:
        """Return the features (B, ...) of clips (B, 3, T, H, W) on the encoder's device."""
        with autocast(self.device, self.precision):
            levels = self.encoder.forward_intermediates(video, indices=self.layers)
        grid = self.encoder.grid_of(video)
        made = [self._pooled(levels[i].float(), grid) for i in self._order]
        return torch.stack(made, dim=1) if len(made) > 1 else made[0]

    def _pooled(self, tokens: Float[Tensor, "b n d"], grid: TokenGrid) -> Tensor:
        if self.pooler is not None:
            return self.pooler(tokens)
        if self.pool == "mean":
            return tokens.mean(dim=1)
        if self.pool == "frame":
            return reduce(tokens, "b (t n) d -> b t d", "mean", t=grid.t)
        return tokens
