"""Values that travel between packages: frozen dataclasses with their shapes stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Float64, Int, Num, Shaped, UInt8
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.names import redacted

WHITE = 255.0


@dataclass(frozen=True)
class TokenGrid:
    """The extent of a clip in tokens: `t` tubelets of `h` x `w` patches, numbered with time slowest.

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
    """Decoded frames of one video: `frames` (T, C, H, W) uint8 RGB, `timestamps` (T,) in seconds."""

    frames: UInt8[Tensor, "t c h w"]
    timestamps: Float64[Tensor, "t"]
    path: str = ""

    def __repr__(self) -> str:
        return (
            f"Clip(frames={tuple(self.frames.shape)}, seconds={self.timestamps.tolist()}, path={self.path!r})"
        )


@dataclass(frozen=True)
class ClipFailure:
    """The file of a clip that could not be read, and the reason in one line; without credentials of URLs."""

    path: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("path", "reason"):
            object.__setattr__(self, name, redacted(getattr(self, name)))


def check_bytes(frames: Tensor) -> None:
    """Check that decoded frames are bytes; float frames, such as of 0 to 1, would become wrong pixels silently.

    Raises:
        SettingError: If they are of another type.
    """
    if frames.dtype != torch.uint8:
        kind = str(frames.dtype).removeprefix("torch.")
        raise SettingError(
            f"frames are {kind}; a transform takes decoded frames, uint8 of 0 to 255. Convert frames of 0 to 1 with "
            "(255 * frames).round().to(torch.uint8)."
        )


@dataclass(frozen=True)
class PixelScale:
    """The normalisation of pixels, (x - 255 mean) / (255 std), with `mean` and `std` per channel on a scale of 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalised(self, pixels: Num[Tensor, "*b 3 t h w"]) -> Float[Tensor, "*b 3 t h w"]:
        """Return pixels (..., 3, T, H, W) of 0 to 255 as network input, on their device."""
        scale = torch.tensor([self.mean, self.std], device=pixels.device)
        mean, std = scale[..., None, None, None]
        return torch.addcmul(-mean / std, pixels.float(), 1 / (WHITE * std))


@dataclass(frozen=True)
class ClipBatch:
    """A batch of transformed clips.

    `video` (B, C, T, H, W) is float and normalised, or uint8 with the `scale` that normalises it on the device.
    `label` (B,) holds class ids, -1 where a clip has none. `index` (B,) holds rows of the manifest of data set
    number `part`. `extras` holds what else belongs to the clips, by name, each (B, ...): by convention "actions"
    (B, T - 1, A) and "states" (B, T, S).

    `failures` lists the clips that could not be read. They are not in `video`: an evaluation batch may be
    smaller than the batch size, and even empty; in training other clips take their place. `num_padded` counts
    the videos that are shorter than a clip. `turn` identifies a training batch: (epoch of
    its data set, number of the batch in that epoch), or (0, number in the run) with several data sets.
    """

    video: Float[Tensor, "b c t h w"] | UInt8[Tensor, "b c t h w"]
    label: Int[Tensor, "b"]
    index: Int[Tensor, "b"]
    failures: tuple[ClipFailure, ...] = field(default=())
    part: int = 0
    turn: tuple[int, int] | None = None
    scale: PixelScale | None = None
    extras: dict[str, Shaped[Tensor, "b ..."]] = field(default_factory=dict)
    num_padded: int = 0

    def __len__(self) -> int:
        return self.video.shape[0]

    def extra(self, name: str) -> Shaped[Tensor, "b ..."]:
        """Return an entry of `extras`, or say how to provide it."""
        if name not in self.extras:
            held = ", ".join(self.extras) or "nothing"
            raise SettingError(
                f"the clips come without {name!r}; beside video and label they have {held}. Give "
                f"--data.reading.extras a reader that returns {name!r} (docs/howto/objective.md)."
            )
        return self.extras[name]

    def map(self, change: Callable[..., Tensor], *others: ClipBatch) -> ClipBatch:
        """Return the batch with `change` applied to each of its tensors; to those of `others` too, as more arguments.

        Everything else is that of this batch.
        """
        batches = (self, *others)
        return replace(
            self,
            video=change(*(batch.video for batch in batches)),
            label=change(*(batch.label for batch in batches)),
            index=change(*(batch.index for batch in batches)),
            extras={name: change(*(batch.extras[name] for batch in batches)) for name in self.extras},
        )

    def normalised(self) -> ClipBatch:
        """Return the batch with float, normalised pixels."""
        if self.scale is None:
            return self
        return replace(self, video=self.scale.normalised(self.video), scale=None)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ClipBatch:
        """Return the batch with its tensors on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> ClipBatch:
        """Return the batch in page-locked memory. Called by `torch.utils.data.DataLoader`."""
        return self.map(Tensor.pin_memory)

    def __repr__(self) -> str:
        return f"ClipBatch(video={tuple(self.video.shape)}, failures={len(self.failures)})"


@dataclass(frozen=True)
class MaskPair:
    """The token ids of one mask strategy for a batch: `context` (B, Nc) is visible, `target` (B, Nt) is hidden.

    Both hold int64 ids of a `TokenGrid`, ascending in each row, and share no id.
    """

    context: Int[Tensor, "b nc"]
    target: Int[Tensor, "b nt"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MaskPair:
        """Return the pair with its ids on `device`."""
        return MaskPair(
            context=self.context.to(device, non_blocking=non_blocking),
            target=self.target.to(device, non_blocking=non_blocking),
        )

    def __repr__(self) -> str:
        return f"MaskPair(context={tuple(self.context.shape)}, target={tuple(self.target.shape)})"


@dataclass(frozen=True)
class LossOutput:
    """The result of an objective for one batch; only the loss is required.

    `loss` is a scalar with gradient, `metrics` are detached scalars to log by name. `predictions` and `targets`
    (N, D) are detached tokens, row against row, from which the health of the run is measured. `masks` are the
    pairs of token ids that were drawn on `grid`.
    """

    loss: Float[Tensor, ""]
    predictions: Float[Tensor, "n d"] | None = None
    targets: Float[Tensor, "n d"] | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    masks: tuple[MaskPair, ...] = ()
    grid: TokenGrid | None = None

    def __repr__(self) -> str:
        tokens = None if self.targets is None else tuple(self.targets.shape)
        return f"LossOutput(loss={self.loss.item():.4f}, tokens={tokens})"
