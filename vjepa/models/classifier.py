"""An encoder with a linear head and timm's method names, for a plain fine-tuning loop."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vjepa.errors import SettingError
from vjepa.layers import init_weights
from vjepa.models.encoder import VideoEncoder


class EncoderClassifier(nn.Module):
    """Encoder, mean over its tokens, layer norm and one linear map.

    >>> import torch
    >>> model = EncoderClassifier(VideoEncoder(img_size=32, num_frames=4, depth=1), num_classes=5)
    >>> model(torch.zeros(2, 3, 4, 32, 32)).shape
    torch.Size([2, 5])

    Args:
        encoder: The encoder; it is not copied, and is trained with the head unless it is frozen.
        num_classes: Number of outputs; 0 returns the pooled feature.
        pool: "mean" over the tokens, or "none" for one score per token.
    """

    def __init__(
        self, encoder: VideoEncoder, *, num_classes: int, pool: Literal["mean", "none"] = "mean"
    ) -> None:
        super().__init__()
        self.encoder, self.pool = encoder, pool
        self.num_features = encoder.embed_dim
        self.fc_norm = nn.LayerNorm(encoder.embed_dim)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one with `num_classes` outputs, or by none if that is 0.

        Raises:
            SettingError: If `num_classes` is below 0.
        """
        if num_classes < 0:
            raise SettingError(f"num_classes {num_classes}: give the number of classes, or 0 for no head.")
        self.num_classes = num_classes
        self.head: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        init_weights(self.head)
        self.head.to(self.fc_norm.weight.device)

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def forward_features(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
        """Encode clips (B, C, T, H, W) to tokens (B, N, D)."""
        return self.encoder(video)

    def forward_head(
        self, tokens: Float[Tensor, "b n d"], pre_logits: bool = False
    ) -> Float[Tensor, "b *out"]:
        """Map tokens (B, N, D) to logits (B, classes), or with `pre_logits` to the pooled feature (B, D)."""
        pooled = self.fc_norm(tokens.mean(dim=1) if self.pool == "mean" else tokens)
        return pooled if pre_logits else self.head(pooled)

    def forward(self, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b *out"]:
        """Map clips (B, C, T, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(video))
