"""Value objects that travel between the rooms of the house: frozen, with their shapes stated."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Float64, Int, Num, UInt8
from torch import Tensor

from vjepa.errors import SettingError

WHITE = 255.0


@dataclass(frozen=True)
class TokenGrid:
    """Extent of a clip in tokens: `t` tubelets of `h` x `w` patches, numbered with time slowest.

    >>> len(TokenGrid(t=8, h=14, w=14))
    1568
    """

    t: int
    h: int
    w: int

    def __post_init__(self) -> None:
        if min(self.t, self.h, self.w) < 1:
            raise SettingError(
                f"a token grid needs a token on every axis, got (t, h, w) = ({self.t}, {self.h}, {self.w}). "
                "Give a larger or longer clip, or a smaller patch_size or tubelet_size."
            )

    def __len__(self) -> int:
        return self.t * self.h * self.w


@dataclass(frozen=True)
class Clip:
    """Frames of one video, as decoded: `frames` uint8 RGB (T, C, H, W), `timestamps` (T,) in seconds."""

    frames: UInt8[Tensor, "t c h w"]
    timestamps: Float64[Tensor, "t"]
    path: str = ""

    def __repr__(self) -> str:
        return (
            f"Clip(frames={tuple(self.frames.shape)}, seconds={self.timestamps.tolist()}, path={self.path!r})"
        )


@dataclass(frozen=True)
class ClipFailure:
    """A clip that could not be read: its file, and the reason in one line."""

    path: str
    reason: str


@dataclass(frozen=True)
class PixelScale:
    """How pixels become network input: (x - 255 mean) / (255 std) by channel, mean and std of 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalised(self, pixels: Num[Tensor, "*b 3 t h w"]) -> Float[Tensor, "*b 3 t h w"]:
        """Pixels (..., 3, T, H, W) of 0 to 255 as network input, on their device."""
        mean, std = (
            torch.tensor(x, device=pixels.device)[:, None, None, None] for x in (self.mean, self.std)
        )
        return torch.addcmul(-mean / std, pixels.float(), 1 / (WHITE * std))


@dataclass(frozen=True)
class ClipBatch:
    """A batch of transformed clips.

    `video` is (B, C, T, H, W) float, normalised; or, on its way to the device, uint8 with the `scale` that makes
    it so. `label` (B,) class ids, -1 where a clip has none;
    `index` (B,) rows of the manifest, which is that of data set number `part`. `failures` lists the clips
    that could not be read: they are not in `video`, so B of a batch to evaluate on may be smaller than the batch
    size asked for, and even 0; in training other clips take their place. `turn` says which training batch
    it is: its data set's epoch and its number in it; with several data sets 0 and its number in the run.
    """

    video: Float[Tensor, "b c t h w"] | UInt8[Tensor, "b c t h w"]
    label: Int[Tensor, "b"]
    index: Int[Tensor, "b"]
    failures: tuple[ClipFailure, ...] = field(default=())
    part: int = 0
    turn: tuple[int, int] | None = None
    scale: PixelScale | None = None

    def __len__(self) -> int:
        return self.video.shape[0]

    def normalised(self) -> ClipBatch:
        """The same batch with normalised floats for pixels."""
        if self.scale is None:
            return self
        return replace(self, video=self.scale.normalised(self.video), scale=None)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ClipBatch:
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            video=self.video.to(device, non_blocking=non_blocking),
            label=self.label.to(device, non_blocking=non_blocking),
            index=self.index.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> ClipBatch:
        """The same batch in page-locked memory (called by `torch.utils.data.DataLoader`)."""
        return replace(
            self, video=self.video.pin_memory(), label=self.label.pin_memory(), index=self.index.pin_memory()
        )

    def __repr__(self) -> str:
        return f"ClipBatch(video={tuple(self.video.shape)}, failures={len(self.failures)})"


@dataclass(frozen=True)
class MaskPair:
    """Token ids of one mask strategy for a batch: `context` (B, Nc) is seen, `target` (B, Nt) is hidden.

    Both hold int64 ids of a `TokenGrid`, ascending in each row, and share no id.
    """

    context: Int[Tensor, "b nc"]
    target: Int[Tensor, "b nt"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MaskPair:
        """The same pair with its ids on `device`."""
        return MaskPair(
            context=self.context.to(device, non_blocking=non_blocking),
            target=self.target.to(device, non_blocking=non_blocking),
        )

    def __repr__(self) -> str:
        return f"MaskPair(context={tuple(self.context.shape)}, target={tuple(self.target.shape)})"


@dataclass(frozen=True)
class LossOutput:
    """What an objective returns.

    `loss` is a scalar with gradient, `metrics` are detached scalars to log by name; `predictions` and
    `targets` (N, D) are the detached tokens of the batch, row against row, by which a run's health is judged;
    `masks` are the pairs of token ids on `grid` that were drawn, where there are any.
    """

    loss: Float[Tensor, ""]
    predictions: Float[Tensor, "n d"]
    targets: Float[Tensor, "n d"]
    metrics: dict[str, Tensor] = field(default_factory=dict)
    masks: tuple[MaskPair, ...] = ()
    grid: TokenGrid | None = None

    def __repr__(self) -> str:
        return f"LossOutput(loss={self.loss.item():.4f}, tokens={tuple(self.targets.shape)})"
