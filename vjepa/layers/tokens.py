"""Choosing tokens by id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.types import MaskPair


def check_ids(ids: Tensor, name: str, *, rows: int, length: int) -> None:
    """See that ids name tokens of every clip.

    Args:
        ids: What was given.
        name: What it is called, for the message.
        rows: Clips.
        length: Tokens of a clip.

    Raises:
        ValueError: If they are no integers, have not a row for every clip, or name tokens that are not there.
    """
    if ids.is_floating_point() or ids.dtype in (torch.bool, torch.uint8):
        raise SettingError(f"{name} is {str(ids.dtype).removeprefix('torch.')}. Give ids of tokens in int64.")
    if ids.ndim != 2 or ids.shape[0] != rows:
        raise SettingError(
            f"{name} has shape {tuple(ids.shape)} for {rows} clips. Give (clips, ids): a row for each, such as "
            f"ids.expand({rows}, -1)."
        )
    # elsewhere looking at the values would wait for the device, and a compiled graph would break
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= length:
            raise SettingError(f"{name} names tokens {low} to {high}. Give ids from 0 to {length - 1}.")


def gather_tokens(tokens: Float[Tensor, "b n d"], ids: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """The tokens named by `ids`, row by row, in the order of `ids`.

    Args:
        tokens: Tokens (B, N, D).
        ids: Token ids (B, K), each in [0, N).

    Returns:
        Chosen tokens (B, K, D).
    """
    return tokens.gather(1, repeat(ids, "b k -> b k d", d=tokens.shape[-1]))


def cross_masks(contexts: Sequence[Int[Tensor, "b nc"]], targets: Sequence[Int[Tensor, "b nt"]]) -> MaskPair:
    """Every context mask with every target mask, in one batch, in the row order of I-JEPA.

    Rows run over the clips fastest, then over `contexts`, then over `targets`: row r belongs to clip
    `r % B`, and `x.repeat(rows // len(x), 1, 1)` brings whatever was made of the clips (B, ...), or of the clips under
    each context mask (len(contexts) * B, ...), into the same order.

    >>> seen, hidden = [torch.tensor([[0]]), torch.tensor([[1]])], [torch.tensor([[8]]), torch.tensor([[9]])]
    >>> cross_masks(seen, hidden).context.tolist(), cross_masks(seen, hidden).target.tolist()
    ([[0], [1], [0], [1]], [[8], [8], [9], [9]])

    Args:
        contexts: Ids of what is seen, one (B, Nc) a mask.
        targets: Ids of what is hidden, one (B, Nt) a mask.
    """
    context = torch.cat([each for _ in targets for each in contexts])
    return MaskPair(context=context, target=torch.cat([each for each in targets for _ in contexts]))
