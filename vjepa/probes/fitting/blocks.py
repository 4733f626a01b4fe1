"""An encoder in two: the blocks that stay frozen, and the last ones, to be trained on what those give."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError


class FrozenBlocks(nn.Module):
    """The blocks of an encoder that stay frozen: a clip to the tokens that its last `num_blocks` blocks take.

    Those tokens are computed once, as those of a frozen encoder are.

    Args:
        encoder: The encoder; it is not changed.
        num_blocks: Blocks that are not part of the frozen_blocks.
    """

    def __init__(self, encoder: VideoEncoder, *, num_blocks: int) -> None:
        super().__init__()
        if not 1 <= num_blocks <= len(encoder.blocks):
            raise ProbeError(
                f"{num_blocks} blocks to fine-tune of {len(encoder.blocks)}: give 1 to {len(encoder.blocks)}."
            )
        self.encoder, self.num_blocks = encoder, num_blocks
        self.config = encoder.config | {"without_last_blocks": num_blocks}
        self._given: list[tuple[Any, ...]] = []

    @torch.no_grad()
    def forward(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Clips (B, C, T, H, W) to tokens (B, N, D) in front of the last blocks, without a norm."""
        self._given = []
        last = self.encoder.blocks[-self.num_blocks :]
        hooks = [
            block.register_forward_pre_hook(lambda _, given: self._given.append(given)) for block in last
        ]
        try:
            self.encoder(video)
        finally:
            for hook in hooks:
                hook.remove()
        return cast("Tensor", self._given[0][0])

    def tuned_blocks(self, *, num_frames: int) -> TunedBlocks:
        """Copies of the last blocks and the norm, for native clips of `num_frames` frames."""
        size = self.encoder.config["img_size"]
        height, width = (size, size) if isinstance(size, int) else size
        weight = next(self.encoder.parameters())
        tokens = self(weight.new_zeros(1, 3, num_frames, height, width))
        return TunedBlocks(self.encoder, [given[1] for given in self._given], num_tokens=tokens.shape[1])


class TunedBlocks(nn.Module):
    """The last blocks of an encoder and its last norm.

    Args:
        encoder: The encoder whose blocks are copied.
        rotary: What each block takes beside the tokens.
        num_tokens: Tokens of one clip.
    """

    def __init__(self, encoder: VideoEncoder, rotary: list[Any], *, num_tokens: int) -> None:
        super().__init__()
        self.blocks = copy.deepcopy(encoder.blocks[-len(rotary) :])
        self.norm = copy.deepcopy(encoder.norms_block[-1] if encoder.levels else encoder.norm)
        self.rotary, self.num_tokens = rotary, num_tokens

    def forward(self, tokens: Float[Tensor, "b m d"]) -> Float[Tensor, "b m d"]:
        """Tokens of one clip or of several after each other, each clip by itself."""
        clips = rearrange(tokens.float(), "b (c n) d -> (b c) n d", n=self.num_tokens)
        for block, rotary in zip(self.blocks, self.rotary, strict=True):
            clips = block(clips, rotary)
        return rearrange(self.norm(clips), "(b c) n d -> b (c n) d", b=len(tokens))

    def put_back(self, encoder: VideoEncoder) -> VideoEncoder:
        """A copy of `encoder` that ends with these blocks and this norm."""
        tuned = copy.deepcopy(encoder).cpu()
        tuned.blocks[-len(self.blocks) :].load_state_dict(self.blocks.state_dict())
        (tuned.norms_block[-1] if tuned.levels else tuned.norm).load_state_dict(self.norm.state_dict())
        return tuned
