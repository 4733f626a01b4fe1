"""From pixels to tokens: a clip is cut into tubelets, and each tubelet is projected to one vector."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.errors import SettingError
from vjepa.layers.tokens import gather_tokens
from vjepa.types import TokenGrid

CHANNELS = 3  # red, green, blue


class TubeletEmbed(nn.Module):
    """Linear projection of tubelets: boxes of `tubelet_size` frames and `patch_size` x `patch_size` pixels.

    The weight has the shape of a 3-D convolution, as in the released checkpoints. It multiplies gathered tubelets, so
    tokens that are not kept are not multiplied.
    """

    def __init__(self, *, patch_size: int, tubelet_size: int, embed_dim: int) -> None:
        super().__init__()
        size = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(CHANNELS, embed_dim, kernel_size=size, stride=size)

    def grid_of(self, video: Float[Tensor, "b c t h w"]) -> TokenGrid:
        """Return the extent of a clip in tokens; frames and pixels beyond the last complete tubelet are ignored."""
        if video.ndim != 5 or video.shape[1] != CHANNELS or not video.is_floating_point():
            raise SettingError(
                f"a clip of shape {tuple(video.shape)} in {str(video.dtype).removeprefix('torch.')}. Give (clips, "
                f"{CHANNELS}, frames, height, width), normalised floats: vjepa.default_transform makes them."
            )
        frames, height, width = video.shape[2:]
        tubelet, patch, _ = self.proj.kernel_size
        steps = 1 if frames < tubelet else frames // tubelet  # not max(): torch.export cannot resolve it
        return TokenGrid(t=steps, h=height // patch, w=width // patch)

    def forward(
        self, video: Float[Tensor, "b c t h w"], keep: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Embed a clip (B, C, T, H, W) as tokens (B, N, D), or those in `keep` as (B, K, D), in the weights' dtype."""
        tubelets = self.cut(video).flatten(2)
        if keep is not None:
            tubelets = gather_tokens(tubelets, keep)
        weight = self.proj.weight.flatten(1)
        return F.linear(tubelets.to(weight.dtype), weight, self.proj.bias)

    def cut(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n c p"]:
        """Return the pixels of all tubelets of a clip, each colour as (frame, row, column)."""
        tubelet, patch, _ = self.proj.kernel_size
        missing = tubelet - video.shape[2]
        if missing > 0:  # an image is a clip of one frame: repeat its last frame to fill a tubelet
            video = F.pad(video, (0, 0, 0, 0, 0, missing), mode="replicate")
        grid = self.grid_of(video)
        video = video[:, :, : grid.t * tubelet, : grid.h * patch, : grid.w * patch]
        return rearrange(video, "b c (t p) (h q) (w r) -> b (t h w) c (p q r)", p=tubelet, q=patch, r=patch)
