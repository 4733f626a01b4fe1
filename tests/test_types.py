"""Value objects: frozen, checked at their border, short to print."""

import dataclasses

import pytest
import torch

from vjepa.types import Clip, ClipBatch, ClipFailure, LossOutput, MaskPair, TokenGrid


def test_an_empty_axis_is_refused_and_the_advice_is_given():
    with pytest.raises(ValueError, match=r"got \(t, h, w\) = \(0, 2, 2\). Give a larger or longer clip"):
        TokenGrid(0, 2, 2)
    assert len(TokenGrid(1, 2, 2)) == 4


def test_values_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TokenGrid(1, 2, 2).t = 3


def test_a_batch_moves_whole():
    rows = torch.arange(2)
    failure = ClipFailure("a.mp4", "empty")
    extras = {"actions": torch.zeros(2, 3, 7), "states": torch.ones(2, 4, 7)}
    batch = ClipBatch(
        video=torch.zeros(2, 3, 1, 2, 2), label=rows, index=rows, failures=(failure,), extras=extras
    )
    moved = batch.to("meta")
    tensors = [moved.video, moved.label, moved.index, *moved.extras.values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"} and len(tensors) == 5
    assert len(moved) == 2 and moved.failures == (failure,)
    both = batch.map(lambda *parts: torch.cat(parts), batch)
    assert len(both) == 4 and torch.equal(both.extra("states"), torch.ones(4, 4, 7))
    assert both.index.tolist() == [0, 1, 0, 1] and both.failures == (failure,)


def test_printing_shows_shapes_not_numbers():
    pair = MaskPair(context=torch.zeros(2, 3).long(), target=torch.zeros(2, 5).long())
    assert repr(pair.to("meta")) == "MaskPair(context=(2, 3), target=(2, 5))"
    clip = Clip(
        frames=torch.zeros(1, 3, 2, 2, dtype=torch.uint8), timestamps=torch.zeros(1).double(), path="a"
    )
    assert repr(clip) == "Clip(frames=(1, 3, 2, 2), seconds=[0.0], path='a')"
    rows = torch.zeros(4, 2)
    assert repr(LossOutput(torch.ones(()))) == "LossOutput(loss=1.0000, tokens=None)"
    assert repr(LossOutput(torch.ones(()), rows, rows)) == "LossOutput(loss=1.0000, tokens=(4, 2))"
