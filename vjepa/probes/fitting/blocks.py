"""Fine-tuning: the blocks of an encoder that stay frozen, and its last blocks, which train together with a probe."""

from __future__ import annotations

import copy
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.layers import RotaryTables
from vjepa.models import VideoEncoder
from vjepa.probes.base import Probe, ProbeError, StandardizedProbe
from vjepa.types import TokenGrid


class FrozenBlocks(nn.Module):
    """All blocks of an encoder except the last `num_blocks`: from a clip to the tokens that those take.

    These tokens are computed once, like those of a frozen encoder.
    """

    def __init__(self, encoder: VideoEncoder, *, num_blocks: int) -> None:
        super().__init__()
        if not 1 <= num_blocks <= len(encoder.blocks):
            raise ProbeError(
                f"{num_blocks} blocks to fine-tune of {len(encoder.blocks)}: give 1 to {len(encoder.blocks)}."
            )
        self.encoder, self.num_blocks = encoder, num_blocks
        self.config = encoder.config | {"without_last_blocks": num_blocks}

    @torch.no_grad()
    def forward(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Map clips (B, C, T, H, W) to the tokens (B, N, D) before the last blocks, without a norm."""
        tokens, grid = self.encoder.embed(video), self.encoder.grid_of(video)
        return self.encoder.forward_blocks(tokens, 0, len(self.encoder.blocks) - self.num_blocks, grid=grid)

    def tuned_blocks(self, *, num_frames: int, size: tuple[int, int]) -> TunedBlocks:
        """Return copies of the last blocks and the norm, for clips of `num_frames` frames of `size` (height, width)."""
        clip = torch.empty(1, 3, num_frames, *size, device="meta")
        return TunedBlocks(self.encoder, grid=self.encoder.grid_of(clip), num_blocks=self.num_blocks)


class TunedBlocks(nn.Module):
    """Copies of the last blocks of an encoder and of its last norm."""

    def __init__(self, encoder: VideoEncoder, *, grid: TokenGrid, num_blocks: int) -> None:
        super().__init__()
        self.blocks = copy.deepcopy(encoder.blocks[-num_blocks:])
        self.norm = copy.deepcopy(encoder.norms_block[-1] if encoder.levels else encoder.norm)
        self.rotary: list[RotaryTables | None] = encoder.rotary(grid)[-num_blocks:]
        self.num_tokens = len(grid)

    def forward(self, tokens: Float[Tensor, "b m d"]) -> Float[Tensor, "b m d"]:
        """Map the tokens of one clip, or of several in a row, each clip by itself."""
        clips = rearrange(tokens.float(), "b (c n) d -> (b c) n d", n=self.num_tokens)
        for block, rotary in zip(self.blocks, self.rotary, strict=True):
            clips = block(clips, rotary)
        return rearrange(self.norm(clips), "(b c) n d -> b (c n) d", b=len(tokens))

    def put_back(self, encoder: VideoEncoder) -> VideoEncoder:
        """Return a copy of `encoder` with these blocks and this norm at its end."""
        tuned = copy.deepcopy(encoder).cpu()
        tuned.blocks[-len(self.blocks) :].load_state_dict(self.blocks.state_dict())
        (tuned.norms_block[-1] if tuned.levels else tuned.norm).load_state_dict(self.norm.state_dict())
        return tuned


class FinetunedProbe(Probe):
    """The last blocks of an encoder and a probe of their output."""

    def __init__(self, tuned_blocks: TunedBlocks, head: StandardizedProbe) -> None:
        super().__init__()
        self.tuned_blocks, self.head = tuned_blocks, head

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Map tokens (B, N, D) of `FrozenBlocks` to logits (B, classes)."""
        return cast("Tensor", self.head(self.tuned_blocks(tokens)))
