"""Selection of tokens by id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from vjepa.errors import SettingError
from vjepa.types import MaskPair


def check_ids(ids: Tensor, name: str, *, rows: int, length: int) -> None:
    """Check that token ids, the argument `name`, are integers of shape (rows, ids), each in [0, length).

    Raises:
        SettingError: If the dtype, the shape or an id is wrong.
    """
    if ids.is_floating_point() or ids.dtype in (torch.bool, torch.uint8):
        raise SettingError(f"{name} is {str(ids.dtype).removeprefix('torch.')}. Give ids of tokens in int64.")
    if ids.ndim != 2 or ids.shape[0] != rows:
        raise SettingError(
            f"{name} has shape {tuple(ids.shape)} for {rows} clips. Give (clips, ids): a row for each, such as "
            f"ids.expand({rows}, -1)."
        )
    # on another device reading the values would wait for it, and in a compiled graph it would break the graph
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= length:
            raise SettingError(f"{name} names tokens {low} to {high}. Give ids from 0 to {length - 1}.")


def gather_tokens(tokens: Float[Tensor, "b n d"], ids: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """Return the tokens that `ids`, each in [0, N), selects in each row, in the order of `ids`."""
    return tokens.gather(1, repeat(ids, "b k -> b k d", d=tokens.shape[-1]))


def cross_masks(contexts: Sequence[Int[Tensor, "b nc"]], targets: Sequence[Int[Tensor, "b nt"]]) -> MaskPair:
    """Combine every context mask with every target mask in one batch, in the row order of I-JEPA.

    The clip varies fastest, then the context mask, then the target mask: row r belongs to clip `r % B`. To bring
    a tensor x of shape (B, ...) or (len(contexts) * B, ...) into this order, use `x.repeat(rows // len(x), 1, 1)`.

    >>> seen, hidden = [torch.tensor([[0]]), torch.tensor([[1]])], [torch.tensor([[8]]), torch.tensor([[9]])]
    >>> cross_masks(seen, hidden).context.tolist(), cross_masks(seen, hidden).target.tolist()
    ([[0], [1], [0], [1]], [[8], [8], [9], [9]])
    """
    context = torch.cat([each for _ in targets for each in contexts])
    return MaskPair(context=context, target=torch.cat([each for each in targets for _ in contexts]))
