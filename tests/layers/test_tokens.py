"""Choosing tokens by id, and pairing masks."""

import torch

from vjepa.layers import cross_masks, gather_tokens


def test_each_row_takes_its_own_ids_in_their_order():
    tokens = torch.arange(2 * 4 * 3).float().reshape(2, 4, 3)
    chosen = gather_tokens(tokens, torch.tensor([[3, 0], [1, 1]]))
    assert torch.equal(chosen, torch.stack([tokens[0, [3, 0]], tokens[1, [1, 1]]]))


def test_crossed_masks_run_over_clips_then_contexts_then_targets():
    contexts = [torch.full((2, 5), 10 * e) + torch.tensor([[0], [1]]) for e in range(2)]
    targets = [torch.full((2, 3), 100 * p) + torch.tensor([[0], [1]]) for p in range(3)]
    pairs = cross_masks(contexts, targets)
    rows = range(3 * 2 * 2)
    assert pairs.context[:, 0].tolist() == [10 * (r // 2 % 2) + r % 2 for r in rows]
    assert pairs.target[:, 0].tolist() == [100 * (r // 4) + r % 2 for r in rows]
    assert pairs.context.shape == (12, 5) and pairs.target.shape == (12, 3)
