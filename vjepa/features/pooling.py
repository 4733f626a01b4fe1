"""From a clip to its feature: which blocks of the encoder, how their tokens are pooled, in which precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from einops import reduce
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vjepa.extraction.errors import ExtractionError
from vjepa.layers.pooling import AttentivePooler
from vjepa.models import VideoEncoder
from vjepa.models.files import digest
from vjepa.types import TokenGrid

Pool = Literal["mean", "none", "frame", "attentive"]
Precision = Literal["fp32", "bf16"]
DType = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainedPooler(nn.Module):
    """The part of a trained attentive probe before its classes: standardisation, then one vector a clip.

    Args:
        pooler: The probe's pooler.
        mean: Of each channel, in the probe's training.
        std: Of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, pooler: AttentivePooler, *, mean: Float[Tensor, "d"], std: Float[Tensor, "d"]) -> None:
        super().__init__()
        self.pooler = pooler
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """Tokens (B, N, D) to vectors (B, D)."""
        return self.pooler((tokens.float() - self.mean) / self.std)[:, 0]


def load_pooler(folder: Path, encoder: VideoEncoder) -> TrainedPooler:
    """The pooler of an attentive probe in a folder written by `vjepa probe`.

    Args:
        folder: That folder.
        encoder: Whose tokens it shall pool.

    Raises:
        ExtractionError: If there is no attentive probe in it, or it was trained on another encoder.
    """
    try:
        card = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
        stored = load_file(folder / "probe.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ExtractionError(
            f"--probe {folder} holds no readable probe ({error}). Give a folder written by `vjepa probe`."
        ) from error
    if card["kind"] != "attentive":
        raise ExtractionError(
            f"--probe {folder}: a probe of kind {card['kind']}. Give an attentive one, or --pool mean."
        )
    if card["encoder_digest"] != digest(encoder):
        raise ExtractionError(
            f"--probe {folder} was trained on another encoder: {card['encoder']}. Give that one with --encoder."
        )
    pooler = AttentivePooler(
        embed_dim=card["embed_dim"], num_heads=card["num_heads"], depth=card["depth"] or 1
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


class FeatureMaker:
    """Clips to features, on the encoder's device.

    Args:
        encoder: The frozen encoder, in eval mode.
        layers: Blocks whose tokens are taken, negative from the end. Of more than one, the features get an axis
            for them in front.
        pool: "mean" over all tokens (D), over those of a tubelet ("frame": (T, D)), a trained probe's pooling
            ("attentive": (D)), or "none": (N, D).
        pooler: Of a trained probe, for "attentive".
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
            raise ExtractionError(
                f"pool {pool!r} {'with' if pooler else 'without'} a probe: attentive pooling, and no other, "
                "needs --probe DIR, a folder written by `vjepa probe`."
            )
        if pool == "attentive" and tuple(i % len(encoder.blocks) for i in layers) != (
            len(encoder.blocks) - 1,
        ):
            raise ExtractionError(
                f"layers {list(layers)} with attentive pooling: its probe reads the last. Leave --layers out."
            )
        self.encoder, self.layers, self.pool, self.precision = encoder, layers, pool, precision
        self.device = next(encoder.parameters()).device
        self.pooler = pooler.to(self.device) if pooler is not None else None
        self.dtype = DTYPES[dtype]
        depth = len(encoder.blocks)
        ascending = sorted(range(len(layers)), key=lambda i: layers[i] % depth)
        self._place = sorted(range(len(layers)), key=lambda i: ascending[i])  # of each, as it was asked for

    @torch.no_grad()
    def __call__(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b *feature"]:
        """Clips (B, 3, T, H, W) to features (B, ...) in RAM.

        Raises:
            ExtractionError: If they are not finite.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            levels = self.encoder.forward_intermediates(video.to(self.device), indices=self.layers)
        grid = self.encoder.grid_of(video)
        made = [self._pooled(levels[i].float(), grid) for i in self._place]
        features = torch.stack(made, dim=1) if len(made) > 1 else made[0]
        if not features.isfinite().all():
            raise ExtractionError(
                "the encoder gives tokens that are not finite: it diverged. Use an earlier checkpoint."
            )
        kept = features.to(self.dtype).cpu()
        if not kept.isfinite().all():
            raise ExtractionError("features are too large for fp16. Use --dtype bf16 or fp32.")
        return kept

    def _pooled(self, tokens: Float[Tensor, "b n d"], grid: TokenGrid) -> Tensor:
        if self.pooler is not None:
            return self.pooler(tokens)
        if self.pool == "mean":
            return tokens.mean(dim=1)
        if self.pool == "frame":
            return reduce(tokens, "b (t n) d -> b t d", "mean", t=grid.t)
        return tokens
