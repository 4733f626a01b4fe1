"""The action-conditioned predictor: from frames, actions and states to the frames that follow."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from vjepa.errors import SettingError
from vjepa.layers import LAYER_NORM_EPS, RotaryTables, init_weights, rescale_blocks, rotary_of_axes
from vjepa.layers.position import token_coordinates
from vjepa.models.config import Network, build_blocks
from vjepa.types import TokenGrid


def block_causal(num_steps: int, tokens_per_step: int) -> Bool[Tensor, "n n"]:
    """Return which tokens see which: all tokens of their own step and of earlier steps.

    >>> block_causal(2, 1).tolist()
    [[True, False], [True, True]]
    """
    step = torch.arange(num_steps).repeat_interleave(tokens_per_step)
    return step[:, None] >= step


class ActionPredictor(Network):
    """Causal transformer over the frames of an episode and its actions (V-JEPA 2-AC, arXiv 2506.09985).

    A step is one frame of `h * w` patch tokens, preceded by one token each for the action, the robot's state and, if
    given, the camera pose. The output at step t predicts the frame of step t + 1.

    Args:
        encoder_dim: Width of the encoder's tokens, which are input and output.
        embed_dim: Width inside the predictor.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `embed_dim`.
        action_dim: Numbers of an action; 7 for a robot arm: changes of position, of angles and of the gripper.
        state_dim: Numbers of a state.
        extrinsics_dim: Numbers of a camera pose; its layer exists even if no pose is ever given.
        grid_size: Height in tokens of the frames of training; positions in frames of another size are scaled to it.

    Raises:
        SettingError: If an argument is not allowed.
    """

    def __init__(
        self,
        encoder_dim: int,
        *,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        action_dim: int = 7,
        state_dim: int = 7,
        extrinsics_dim: int = 6,
        grid_size: int = 16,
    ) -> None:
        super().__init__(
            encoder_dim=encoder_dim, embed_dim=embed_dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio,
            action_dim=action_dim, state_dim=state_dim, extrinsics_dim=extrinsics_dim, grid_size=grid_size,
        )  # fmt: skip
        self.encoder_dim, self.embed_dim, self.num_heads = encoder_dim, embed_dim, num_heads
        self.grid_size = grid_size
        self.predictor_embed = nn.Linear(encoder_dim, embed_dim)
        self.action_encoder = nn.Linear(action_dim, embed_dim)
        self.state_encoder = nn.Linear(state_dim, embed_dim)
        self.extrinsics_encoder = nn.Linear(extrinsics_dim, embed_dim)
        plain = {"mlp": "gelu", "drop_path": 0.0, "position": "rope"}
        self.predictor_blocks = build_blocks(self.config | plain)
        self.predictor_norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.predictor_proj = nn.Linear(embed_dim, encoder_dim)
        self.apply(init_weights)
        rescale_blocks(self.predictor_blocks)

    def forward(
        self,
        frames: Float[Tensor, "b n d"],
        actions: Float[Tensor, "b t action"],
        states: Float[Tensor, "b t state"],
        extrinsics: Float[Tensor, "b t camera"] | None = None,
        *,
        grid: TokenGrid,
    ) -> Float[Tensor, "b n d"]:
        """Predict the frame after each step.

        `frames` are tokens (B, T * H * W, D) of frames that were encoded separately; `actions`, `states` and camera
        poses are those at each frame. The predictions of step t, for frame t + 1, depend only on steps 0 to t.

        Raises:
            SettingError: If the numbers of tokens or actions do not match `grid`.
        """
        if frames.shape[1] != len(grid) or actions.shape[1] != grid.t:
            raise SettingError(
                f"got {frames.shape[1]} tokens and {actions.shape[1]} actions for {grid}. Give "
                f"{len(grid)} tokens and {grid.t} actions: one per frame, including the last."
            )
        conditions = [self.action_encoder(actions), self.state_encoder(states)]
        if extrinsics is not None:
            conditions.append(self.extrinsics_encoder(extrinsics))
        given = torch.stack(conditions, dim=2)
        patches = rearrange(self.predictor_embed(frames), "b (t p) d -> b t p d", t=grid.t)
        tokens = rearrange(torch.cat([given, patches], dim=2), "b t n d -> b (t n) d")
        rotary = self._rotary(grid, given.shape[2], tokens.device)
        visible = block_causal(grid.t, tokens.shape[1] // grid.t).to(tokens.device)
        for block in self.predictor_blocks:
            tokens = block(tokens, rotary, visible)
        patches = rearrange(tokens, "b (t n) d -> b t n d", t=grid.t)[:, :, given.shape[2] :]
        return self.predictor_proj(self.predictor_norm(rearrange(patches, "b t p d -> b (t p) d")))

    def _rotary(self, grid: TokenGrid, num_given: int, device: torch.device) -> RotaryTables:
        """Return the rotary tables: patches turn by t, h and w, the other tokens by t only."""
        _, h, w = token_coordinates(torch.arange(len(grid), device=device), grid)
        t = torch.arange(grid.t, device=device).repeat_interleave(num_given + grid.h * grid.w)
        # one size for both axes, as released: the training frames are square
        scaled = (h * (self.grid_size / grid.h), w * (self.grid_size / grid.w))
        h, w = (pad(x.unflatten(0, (grid.t, -1)), (num_given, 0)).flatten() for x in scaled)
        return rotary_of_axes((t[None], h[None], w[None]), self.embed_dim // self.num_heads)
