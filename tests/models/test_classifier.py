"""The encoder with a head that a plain loop fine-tunes."""

import pytest
import torch

from vjepa.models import EncoderClassifier, VideoEncoder


def encoder():
    return VideoEncoder(img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=1, num_heads=2)


def test_forward_is_features_then_head():
    model, video = EncoderClassifier(encoder(), num_classes=5), torch.randn(2, 3, 4, 16, 16)
    tokens = model.forward_features(video)
    assert torch.equal(tokens, model.encoder(video))
    pooled = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(pooled, model.fc_norm(tokens.mean(1)))
    assert torch.equal(model(video), model.get_classifier()(pooled))
    each = EncoderClassifier(encoder(), num_classes=5, pool="none")(video)
    assert each.shape == (2, 8, 5)


def test_reset_classifier_changes_the_number_of_classes():
    model, video = EncoderClassifier(encoder(), num_classes=5), torch.randn(2, 3, 4, 16, 16)
    model.reset_classifier(3)
    assert model(video).shape == (2, 3) and model.num_classes == 3
    model.reset_classifier(0)
    assert model(video).shape == (2, model.num_features)
    with pytest.raises(ValueError, match="or 0 for no head"):
        model.reset_classifier(-1)


def test_training_reaches_the_encoder_and_lowers_the_loss():
    torch.manual_seed(0)
    model, video, label = (
        EncoderClassifier(encoder(), num_classes=2), torch.randn(4, 3, 4, 16, 16), torch.tensor([0, 1, 0, 1])
    )  # fmt: skip
    before = model.encoder.blocks[0].mlp.fc1.weight.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(video), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < losses[0]
    assert not torch.equal(before, model.encoder.blocks[0].mlp.fc1.weight)
