"""Test whether predictions depend on the hidden frames: transformers' V-JEPA 2 and ours, with the same weights.

`python tools/hf_leak.py` (needs transformers). The script changes the frames that are hidden from the predictor; a
prediction that changes depends on them.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import VJEPA2Config, VJEPA2Model

import vjepa

CONFIG = {
    "crop_size": 64, "patch_size": 16, "frames_per_clip": 8, "hidden_size": 96, "num_attention_heads": 3,
    "num_hidden_layers": 4, "pred_hidden_size": 48, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 2,
    "initializer_range": 0.2,
}  # fmt: skip


@torch.no_grad()
def main() -> None:
    """Print by how much each prediction changes if the second half of the clip changes."""
    torch.manual_seed(0)
    model = VJEPA2Model(VJEPA2Config(**CONFIG)).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        encoder, predictor = vjepa.load_encoder(folder), vjepa.load_predictor(folder)
        clip = torch.randn(1, 8, 3, 64, 64)
        changed = clip.clone()
        changed[:, 4:] = torch.randn(1, 4, 3, 64, 64)
        grid = encoder.grid_of(clip.transpose(1, 2))
        seen, hidden = torch.arange(len(grid))[None].chunk(2, dim=1)

        def theirs(video: torch.Tensor) -> torch.Tensor:
            found = model(pixel_values_videos=video, context_mask=[seen], target_mask=[hidden])
            return found.predictor_output.last_hidden_state

        def ours(video: torch.Tensor) -> torch.Tensor:
            context = encoder(video.transpose(1, 2), keep=seen)
            return predictor(context, seen, hidden, grid=grid, mask_token=1)

        for name, predict in (("transformers", theirs), ("vjepa", ours)):
            before, after = predict(clip), predict(changed)
            moved = float((before - after).abs().max())
            same = "bit-identical" if torch.equal(before, after) else "moved"
            print(
                f"{name:12} largest change of a prediction {moved:.3g} of {float(before.abs().max()):.3g}: {same}"
            )


if __name__ == "__main__":
    main()
