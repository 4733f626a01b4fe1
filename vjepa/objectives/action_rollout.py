"""Prediction of future frames from actions: the losses of V-JEPA 2-AC (arXiv 2506.09985), on given features.

An episode has T frames and T states, and an action after each frame but the last.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.models import ActionPredictor, VideoEncoder
from vjepa.objectives.base import layer_normed, mean_distance
from vjepa.types import TokenGrid


@torch.no_grad()
def frame_features(encoder: VideoEncoder, video: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b n d"]:
    """Return layer-normed tokens (B, T * H * W, D) of all frames, each repeated to one tubelet and encoded alone."""
    tubelet = encoder.patch_embed.proj.kernel_size[0]
    still = repeat(video, "b c t h w -> (b t) c p h w", p=tubelet)
    return rearrange(layer_normed(encoder(still)), "(b t) n d -> b (t n) d", t=video.shape[2])


def teacher_forced(
    predictor: ActionPredictor,
    features: Float[Tensor, "b n d"],
    actions: Float[Tensor, "b t1 action"],
    states: Float[Tensor, "b t state"],
    extrinsics: Float[Tensor, "b t camera"] | None = None,
    *,
    grid: TokenGrid,
) -> Float[Tensor, "b n1 d"]:
    """Return layer-normed predictions (B, (T - 1) * H * W, D) of frames 1 to T - 1, from the true frames before each.

    `features` (B, T * H * W, D) come from `frame_features`; those of the last frame are not read. Actions, states and
    camera poses are those at frames 0 to T - 2, or more. `grid` has the frames T, and height and width of a frame.
    """
    seen = TokenGrid(grid.t - 1, grid.h, grid.w)
    given = [None if x is None else x[:, : seen.t] for x in (actions, states, extrinsics)]
    return layer_normed(predictor(features[:, : len(seen)], *given, grid=seen))


def rolled_out(
    predictor: ActionPredictor,
    first: Float[Tensor, "b n d"],
    actions: Float[Tensor, "b t1 action"],
    states: Float[Tensor, "b t state"],
    extrinsics: Float[Tensor, "b t camera"] | None = None,
    *,
    grid: TokenGrid,
    num_steps: int,
) -> Float[Tensor, "b m d"]:
    """Return layer-normed predictions (B, num_steps * H * W, D) of the frames after the first ones.

    Each is made from the predictor's own predictions before it, with the true states. `first` are layer-normed tokens
    (B, T * H * W, D) of the frames to start from, true or predicted, and `grid` is their extent. Actions, states and
    camera poses are those from the first frame on, at least T - 1 + num_steps.
    """
    frames, per_frame = first, grid.h * grid.w
    for step in range(num_steps):
        reach = TokenGrid(grid.t + step + 1, grid.h, grid.w)
        predicted = teacher_forced(predictor, frames, actions, states, extrinsics, grid=reach)
        frames = torch.cat([frames, predicted[:, -per_frame:]], dim=1)
    return frames[:, first.shape[1] :]


def action_losses(
    predictor: ActionPredictor,
    features: Float[Tensor, "b n d"],
    actions: Float[Tensor, "b t1 action"],
    states: Float[Tensor, "b t state"],
    extrinsics: Float[Tensor, "b t camera"] | None = None,
    *,
    grid: TokenGrid,
    num_steps: int = 2,
    loss_exp: float = 1.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the loss of predictions from true frames, and of a roll-out from the first; training takes their sum.

    The gradient goes through all steps of the roll-out; its first frame is also that of the teacher-forced
    predictions, whose arguments these are. `loss_exp` is the exponent p of `mean(|z - h| ** p) / p`.
    """
    if not 1 <= num_steps < grid.t:
        raise SettingError(
            f"num_steps {num_steps}: an episode of {grid.t} frames has 1 to {grid.t - 1} to roll out. "
            "Lower num_steps or take longer episodes."
        )
    per_frame, given = grid.h * grid.w, (actions, states, extrinsics)
    forced = teacher_forced(predictor, features, *given, grid=grid)
    start = torch.cat([features[:, :per_frame], forced[:, :per_frame]], dim=1)
    two = TokenGrid(2, grid.h, grid.w)
    later = rolled_out(predictor, start, *given, grid=two, num_steps=num_steps - 1)
    rollout = torch.cat([forced[:, :per_frame], later], dim=1)
    targets = features[:, per_frame:]
    return (
        mean_distance(forced, targets, loss_exp),
        mean_distance(rollout, targets[:, : rollout.shape[1]], loss_exp),
    )
