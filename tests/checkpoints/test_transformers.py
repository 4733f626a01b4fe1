"""transformers as a live peer: what it saves we compute, what we save it computes."""

import pytest
import torch

import vjepa
from tests.checkpoints.given import random_, tiny_encoder, tiny_predictor, tiny_probe
from vjepa.checkpoints import save_huggingface

transformers = pytest.importorskip("transformers", reason="the live peer of Hugging Face folders")

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SIZES = [
    {"hidden_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2, "crop_size": 32, "patch_size": 8,
     "frames_per_clip": 4, "pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
    {"hidden_size": 60, "num_attention_heads": 3, "num_hidden_layers": 1, "crop_size": 48, "patch_size": 16,
     "frames_per_clip": 8, "tubelet_size": 4, "mlp_ratio": 3.0, "pred_hidden_size": 48, "pred_mlp_ratio": 2.0,
     "pred_num_attention_heads": 3, "pred_num_hidden_layers": 2, "pred_num_mask_tokens": 3},
    {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3, "crop_size": 64, "patch_size": 16,
     "frames_per_clip": 6, "pred_hidden_size": 32, "pred_num_attention_heads": 1, "pred_num_hidden_layers": 2},
]  # fmt: skip


def clip_of(config) -> torch.Tensor:
    """A clip as transformers takes it, (B, T, C, H, W)."""
    size, generator = config.crop_size, torch.Generator().manual_seed(1)
    return torch.randn(2, config.frames_per_clip, 3, size, size, generator=generator)


@torch.no_grad()
def compare(model, folder) -> None:
    """Encoder and predictor, with tokens hidden from the predictor, against ours loaded from `folder`."""
    encoder, predictor = vjepa.load_encoder(folder), vjepa.load_predictor(folder)
    clip = clip_of(model.config)
    grid = encoder.grid_of(clip.transpose(1, 2))
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(2))
    context, target = (ids.sort().values.expand(2, -1) for ids in order.split([len(grid) - 5, 5]))
    theirs = model(pixel_values_videos=clip, context_mask=[context], target_mask=[target])
    tokens = encoder(clip.transpose(1, 2))
    torch.testing.assert_close(tokens, theirs.last_hidden_state, **CLOSE)
    seen = tokens.gather(1, context[..., None].expand(-1, -1, tokens.shape[-1]))
    predicted = predictor(seen, context, target, grid=grid, mask_token=1)
    torch.testing.assert_close(predicted, theirs.predictor_output.last_hidden_state, **CLOSE)


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: str(sizes["hidden_size"]))
def test_what_it_saves_we_compute(tmp_path, sizes):
    model = random_(transformers.VJEPA2Model(transformers.VJEPA2Config(**sizes)))
    model.save_pretrained(tmp_path / "hf")
    compare(model, tmp_path / "hf")


def test_what_it_saves_in_shards_we_compute(tmp_path):
    model = random_(transformers.VJEPA2Model(transformers.VJEPA2Config(**SIZES[0])))
    model.save_pretrained(tmp_path / "hf", max_shard_size="50KB")
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 1
    compare(model, tmp_path / "hf")


@torch.no_grad()
def test_its_classifier_we_compute(tmp_path):
    config = transformers.VJEPA2Config(**SIZES[0], num_labels=7, num_pooler_layers=2)
    model = random_(transformers.VJEPA2ForVideoClassification(config))
    model.save_pretrained(tmp_path / "hf")
    clip = clip_of(config)
    encoder, probe = vjepa.load_encoder(tmp_path / "hf"), vjepa.load_probe(tmp_path / "hf")
    torch.testing.assert_close(probe(encoder(clip.transpose(1, 2))), model(clip).logits, **CLOSE)


@pytest.mark.parametrize("size", [{}, {"embed_dim": 24, "depth": 3, "mlp_ratio": 3.0, "num_frames": 6}])
def test_what_we_save_it_computes(tmp_path, size):
    folder = save_huggingface(tmp_path / "hf", tiny_encoder(**size), predictor=tiny_predictor())
    model, told = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    compare(model.eval(), folder)


@torch.no_grad()
def test_our_classifier_it_computes(tmp_path):
    encoder, probe = tiny_encoder(), tiny_probe(num_heads=2)  # with the encoder's heads: theirs has no others
    folder = save_huggingface(tmp_path / "hf", encoder, predictor=tiny_predictor(), probe=probe)
    model = transformers.AutoModelForVideoClassification.from_pretrained(folder).eval()
    clip = clip_of(model.config)
    torch.testing.assert_close(probe(encoder(clip.transpose(1, 2))), model(clip).logits, **CLOSE)
