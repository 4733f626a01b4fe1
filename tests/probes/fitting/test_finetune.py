import pytest
import torch

from tests.probes.test_commands import run, write_split
from tests.probes.verbs import classify
from vjepa.checkpoints import load_encoder
from vjepa.features import ClipSpec
from vjepa.features.encode import clip_tokens
from vjepa.models import VideoEncoder
from vjepa.models.files import save_folder
from vjepa.probes import ProbeError, ProbeSettings, random_init_like
from vjepa.probes.fitting.blocks import FrozenBlocks


def two_blocks(**options) -> VideoEncoder:
    config = {"img_size": 32, "patch_size": 8, "num_frames": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return random_init_like(VideoEncoder(**config | options), seed=0)


@pytest.mark.parametrize("options", [{}, {"position": "sincos"}, {"levels": (0, 1)}])
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_trunk_and_tail_are_the_encoder(options, num_blocks):
    encoder = two_blocks(**options)
    frozen_blocks = FrozenBlocks(encoder, num_blocks=num_blocks)
    tuned_blocks = frozen_blocks.tuned_blocks(num_frames=4, size=(32, 32))
    video = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        spec = ClipSpec(segments=2)
        tokens = tuned_blocks(clip_tokens(frozen_blocks, video, spec))
        torch.testing.assert_close(tokens, clip_tokens(encoder, video, spec))
        for weight in tuned_blocks.parameters():
            weight.add_(0.1)
        tuned = tuned_blocks.put_back(encoder)
        expected = tuned_blocks(frozen_blocks(video[:, :, :4]))
        torch.testing.assert_close(tuned(video[:, :, :4]), expected)
        assert not torch.equal(encoder(video[:, :, :4]), expected)
    with pytest.raises(ProbeError, match="give 1 to 2"):
        FrozenBlocks(encoder, num_blocks=3)


def test_a_finetuned_encoder_travels_with_its_probe(tmp_path):
    write_split(tmp_path, "train", 12, 0)
    write_split(tmp_path, "val", 6, 100)
    save_folder(tmp_path / "encoder", two_blocks())
    for scale in (0.1, 0.0):
        grid = ProbeSettings(lr=(1e-3, 3e-3), num_steps=20, num_blocks=1, tail_scale=scale, batch_size=8)
        out = tmp_path / f"p{scale}"
        options = {"random_init": False, "cache": tmp_path / "c", "report": scale > 0}
        figures = run(tmp_path, out=out, probe="finetune", grid=grid, **options).figures
        assert (out / "report.html").exists() == (scale > 0)
        assert figures["top1"] == 1.0 and len(list((tmp_path / "c").iterdir())) == 2
        tuned, before = load_encoder(out / "encoder"), two_blocks()
        assert torch.equal(tuned.blocks[0].mlp.fc1.weight, before.blocks[0].mlp.fc1.weight)
        moved = not torch.equal(tuned.blocks[1].mlp.fc1.weight, before.blocks[1].mlp.fc1.weight)
        assert moved == (scale > 0)
        found = classify(probe=out, videos=[str(tmp_path / "val/1.mp4")]).figures["predictions"]
        assert next(iter(found.values()))[0]["label"] == "dark"
    with pytest.raises(ProbeError, match="drop --layers"):
        run(tmp_path, out=out, probe="finetune", layers=(0,))
