"""Choosing tokens by id."""

import torch

from vjepa.layers import gather_tokens


def test_each_row_takes_its_own_ids_in_their_order():
    tokens = torch.arange(2 * 4 * 3).float().reshape(2, 4, 3)
    chosen = gather_tokens(tokens, torch.tensor([[3, 0], [1, 1]]))
    assert torch.equal(chosen, torch.stack([tokens[0, [3, 0]], tokens[1, [1, 1]]]))
