"""Choosing tokens by id, and pairing masks."""

import pytest
import torch

from vjepa.layers import check_ids, cross_masks, gather_tokens


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


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (torch.zeros(2, 3), "keep is float32. Give ids of tokens in int64"),
        (torch.zeros(2, 8, dtype=torch.bool), "keep is bool"),
        (torch.zeros(1, 3, dtype=torch.int64), r"shape \(1, 3\) for 2 clips. Give .*ids.expand\(2, -1\)"),
        (torch.tensor([[0, 1], [7, 8]]), "names tokens 0 to 8. Give ids from 0 to 7"),
        (torch.tensor([[0, -1], [7, 7]]), "names tokens -1 to 7"),
    ],
)
def test_ids_of_no_tokens(ids, told):
    with pytest.raises(ValueError, match=told):
        check_ids(ids, "keep", rows=2, length=8)
    check_ids(torch.tensor([[0, 1], [7, 7]]), "keep", rows=2, length=8)
