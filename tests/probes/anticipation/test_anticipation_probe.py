"""Anticipation of actions: the published probe and wrapper to their tolerance, and what each argument does."""

import pytest
import torch

from tests.reference import encoder_arguments, load_strictly, reference_case
from vjepa.models import Predictor, VideoEncoder
from vjepa.probes import (
    ActionScores,
    AnticipationProbe,
    anticipate,
    anticipation_loss,
    sigmoid_focal_loss,
)


def tiny(position="rope"):
    torch.manual_seed(0)
    encoder = VideoEncoder(
        img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=1, num_heads=2, position=position
    )
    predictor = Predictor(24, embed_dim=24, depth=1, num_heads=2, mask_token_std=0.5, position=position)
    predictor.predictor_blocks[0].attn.qkv.weight.data *= 20  # at init all tokens attend alike
    return encoder.eval(), predictor.eval()


def clip() -> torch.Tensor:
    return torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_published_probe():
    case = reference_case("anticipation_probe")
    sizes = {k: case.about["ctor"][k] for k in ("embed_dim", "num_heads", "depth")}
    probe = AnticipationProbe(num_verbs=5, num_nouns=8, num_actions=13, **sizes).eval()
    probe.load_state_dict(case.weights())
    scores = probe(case.tensors["in.x"])
    for name in ("verb", "noun", "action"):
        case.assert_close(getattr(scores, name), f"out.{name}")
    loss = sigmoid_focal_loss(scores.action, case.tensors["in.action_labels"])
    case.assert_close(loss[None], "out.focal_loss_action")


def test_published_tokens_of_the_future():
    case = reference_case("anticipation_wrapper")
    about = case.about["ctor"]
    encoder = VideoEncoder(**encoder_arguments(about["encoder"]))
    load_strictly(encoder, case.weights("w.encoder."))
    predictor = Predictor(40, embed_dim=36, depth=1, num_heads=3, num_mask_tokens=4)
    load_strictly(predictor, case.weights("w.predictor."))
    tokens = anticipate(
        encoder, predictor, case.tensors["in.x"], case.tensors["in.anticipation_times"],
        fps=float(about["frames_per_second"]), num_steps=about["num_steps"],
    )  # fmt: skip
    case.assert_close(tokens, "out.tokens")


@pytest.mark.parametrize("position", ["rope", "sincos"])
def test_ids_of_the_future(position):
    encoder, predictor = tiny(position)
    video, seconds = (
        clip(),
        torch.tensor([1.0, 2.6]),
    )  # 4 frames a second, 2 a tubelet: 2 and 5 tubelets ahead
    tokens = anticipate(encoder, predictor, video, seconds, fps=4.0)
    context, grid = encoder(video), encoder.grid_of(video)
    ids = torch.arange(8).expand(2, -1)
    targets = torch.tensor([[8 + 4 * 2], [8 + 4 * 5]]) + torch.arange(4)
    reach = type(grid)(t=8, h=2, w=2)
    with torch.no_grad():
        expected = predictor(context, ids, targets, grid=reach, mask_token=1)
        torch.testing.assert_close(tokens, torch.cat([context, expected], dim=1))
    assert not tokens.requires_grad


def test_each_argument_changes_the_future():
    encoder, predictor = tiny()
    video, seconds = clip(), torch.tensor([1.0, 1.0])
    base = anticipate(encoder, predictor, video, seconds, fps=4.0)
    assert torch.equal(anticipate(encoder, predictor, video, seconds + 0.4, fps=4.0), base)  # rounded down
    others = {
        "seconds": anticipate(encoder, predictor, video, 3 * seconds, fps=4.0),
        "fps": anticipate(encoder, predictor, video, seconds, fps=12.0),
        "mask_token": anticipate(encoder, predictor, video, seconds, fps=4.0, mask_token=0),
    }
    for other in others.values():
        assert torch.equal(other[:, :8], base[:, :8])
        assert not torch.allclose(other[:, 8:], base[:, 8:], atol=1e-4)
    torch.testing.assert_close(others["seconds"], others["fps"])
    wide = anticipate(encoder, predictor, video, seconds, fps=4.0, num_tubelets=2)
    long = anticipate(encoder, predictor, video, seconds, fps=4.0, num_steps=2)
    assert wide.shape == long.shape == (2, 16, 24)
    assert torch.equal(long[:, :12], base)
    assert not torch.allclose(wide[:, 12:], long[:, 12:], atol=1e-4)


def test_three_queries_three_answers():
    torch.manual_seed(0)
    probe = AnticipationProbe(embed_dim=32, num_verbs=2, num_nouns=3, num_actions=4)
    assert len(probe.pooler.blocks) == 3 and probe.pooler.cross_attention_block.xattn.num_heads == 16
    tokens = torch.randn(2, 6, 32)
    before = probe(tokens)
    with torch.no_grad():
        probe.pooler.query_tokens[:, 1] += 1
        after = probe(tokens)
    assert torch.equal(before.verb, after.verb) and torch.equal(before.action, after.action)
    assert not torch.allclose(before.noun, after.noun)
    assert repr(before) == "ActionScores(verb=(2, 2), noun=(2, 3), action=(2, 4))"


def test_loss_is_the_sum_of_three():
    torch.manual_seed(0)
    scores = ActionScores(torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 5))
    labels = {"verb": torch.tensor([0, 2]), "noun": torch.tensor([1, 3]), "action": torch.tensor([4, 0])}
    parts = [sigmoid_focal_loss(getattr(scores, k), v) for k, v in labels.items()]
    torch.testing.assert_close(anticipation_loss(scores, **labels), sum(parts))
    # by hand: one class, right with probability 1/2: alpha (1/2)^2 log 2
    by_hand = 0.25 * 0.25 * torch.tensor(2.0).log()
    torch.testing.assert_close(sigmoid_focal_loss(torch.zeros(1, 1), torch.tensor([0])), by_hand)
