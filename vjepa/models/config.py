"""What each network is built from: the constructor arguments that its checkpoint stores, checked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from vjepa.errors import SettingError
from vjepa.layers import Block, MlpKind, store_frequencies
from vjepa.models.positions import Position

MAX_DEPTH = 10_000  # blocks: a larger number is a slip of the pen, and would take hours to build
MAY_BE_ZERO = ("depth", "num_levels")


class NetworkConfig:
    """Base of the configs: checks each field by its type when the config is made.

    Raises:
        SettingError: If an `int` is not a positive whole number, a `float` is negative or not finite, or a `Literal`
            is not one of its values. The message names the argument, its value and what it may be.
    """

    embed_dim: int
    depth: int
    num_heads: int

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):  # type: ignore[arg-type]  # its children are dataclasses
            _check(field.name, getattr(self, field.name), hints[field.name])
        if self.depth > MAX_DEPTH:
            raise SettingError(f"depth is {self.depth}. Give at most {MAX_DEPTH}.")
        if self.embed_dim % self.num_heads:
            raise SettingError(
                f"embed_dim {self.embed_dim} must be divisible by num_heads {self.num_heads}. Give num_heads that "
                "divides it."
            )


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(NetworkConfig):
    """Arguments of `VideoEncoder`, which documents them."""

    img_size: int | tuple[int, int]
    patch_size: int
    num_frames: int
    tubelet_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    mlp: MlpKind
    position: Position
    drop_path: float
    levels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(NetworkConfig):
    """Arguments of `Predictor`, which documents them."""

    encoder_dim: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    mlp: MlpKind
    position: Position
    num_mask_tokens: int
    mask_token_std: float
    drop_path: float
    num_levels: int
    out_dim: int | None


@dataclass(frozen=True, kw_only=True)
class ActionPredictorConfig(NetworkConfig):
    """Arguments of `ActionPredictor`, which documents them."""

    encoder_dim: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    action_dim: int
    state_dim: int
    extrinsics_dim: int
    grid_size: int


class Network(nn.Module):
    """Base of encoders and predictors.

    Attributes:
        config: The constructor's arguments by name, as `config.json` holds them: `type(self)(**self.config)` builds
            the same network with other weights.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config: dict[str, Any] = asdict(config)  # type: ignore[call-overload]

    @property
    def num_parameters(self) -> int:
        """Number of weights; tables of positions do not count."""
        return sum(p.numel() for p in self.parameters())


def build_blocks(config: EncoderConfig | PredictorConfig) -> nn.ModuleList:
    """Build the blocks of a network; the probability of skipping a branch rises linearly from 0."""
    width, heads = config.embed_dim, config.num_heads
    blocks = nn.ModuleList(
        Block(embed_dim=width, num_heads=heads, mlp_ratio=config.mlp_ratio, mlp=config.mlp, drop_path=rate)
        for rate in torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
    )
    if config.position == "rope_stored":
        store_frequencies(blocks, width // heads)
    return blocks


def height_and_width(size: Any) -> tuple[int, int]:
    """Return the height and width of a native clip in pixels, from one number or two.

    >>> height_and_width(224), height_and_width((48, 64))
    ((224, 224), (48, 64))

    Raises:
        SettingError: If it is something else.
    """
    sides = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != 2
        or any(type(s) is not int or s < 1 for s in sides)
    ):
        raise SettingError(
            f"img_size is {size!r}. Give height and width in pixels, or one number for a square."
        )
    return sides[0], sides[1]


def _check(name: str, value: Any, kind: Any) -> None:
    least = 0 if name in MAY_BE_ZERO else 1
    if kind is int and (type(value) is not int or value < least):
        raise SettingError(f"{name} is {value!r}. Give a whole number of at least {least}.")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and not (number and 0 <= value < math.inf):
        raise SettingError(f"{name} is {value!r}. Give a number of at least 0.")
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise SettingError(f"{name} is {value!r}. Give one of {', '.join(get_args(kind))}.")
