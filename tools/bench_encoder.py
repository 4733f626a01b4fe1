"""Forward of our encoder against that of transformers' VJEPA2Model, same weights, same clips, in one run.

python tools/bench_encoder.py [--threads 2] [--pairs 9] [--compile]      (needs pip install "vjepa-toolkit[hf]")

ViT-S, 16 frames of 224 x 224, rotary positions, without gradient; eager, or both by torch.compile with --compile.
Both run in turn; a line gives the
median milliseconds of both, the median of their ratios and the largest difference of their outputs. Then what each
part of our forward takes, measured by itself at batch 2.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from vjepa.checkpoints import save_huggingface
from vjepa.layers import rotate
from vjepa.layers.attention import attend
from vjepa.models import VideoEncoder, create_model

CASES = ((2, 16), (1, 16), (4, 16), (1, 64))  # batch, frames
DTYPES = (torch.bfloat16, torch.float32)


def milliseconds(run: Callable[[], object]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def compare(ours: VideoEncoder, theirs: nn.Module, video: Tensor, pairs: int) -> str:
    """Medians of both, of their ratios, and how far the outputs are apart."""

    def run_theirs() -> Tensor:
        found = theirs(pixel_values_videos=video.transpose(1, 2), skip_predictor=True)
        return found.last_hidden_state

    apart = (ours(video).float() - run_theirs().float()).abs().max()  # and a first, slow run of each
    times = [(milliseconds(lambda: ours(video)), milliseconds(run_theirs)) for _ in range(pairs)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    return f"{mine:9.0f} {other:9.0f} {ratio:8.2f}   {float(apart):.1e}"


def parts(encoder: VideoEncoder, video: Tensor, repeats: int) -> dict[str, float]:
    """Median milliseconds of each part of a forward, all blocks together."""
    block, grid = encoder.blocks[0], encoder.grid_of(video)
    tokens = encoder.patch_embed(video)
    ids = torch.arange(len(grid))[None]
    rotary = encoder._rotary(grid, None, video.device)[0]
    heads = block.attn.qkv(tokens).unflatten(2, (3, encoder.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = heads.unbind(0)
    turned = rotate(query, rotary), rotate(key, rotary)
    steps: dict[str, tuple[int, Callable[[], object]]] = {
        "patches": (1, lambda: encoder.patch_embed(video)),
        "rotary tables": (1, lambda: encoder._rotary(grid, ids, video.device)),
        "norms": (len(encoder.blocks), lambda: (block.norm1(tokens), block.norm2(tokens))),
        "qkv and projection": (
            len(encoder.blocks),
            lambda: (block.attn.qkv(tokens), block.attn.proj(tokens)),
        ),
        "rotation": (len(encoder.blocks), lambda: (rotate(query, rotary), rotate(key, rotary))),
        "attention": (len(encoder.blocks), lambda: attend(*turned, value)),
        "MLP": (len(encoder.blocks), lambda: block.mlp(tokens)),
    }
    return {
        name: count * statistics.median(milliseconds(run) for _ in range(repeats))
        for name, (count, run) in steps.items()
    }


@torch.inference_mode()
def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="both by torch.compile, block by block")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    encoder = create_model("vit_small_patch16_224", num_frames=16, position="rope").eval()
    with tempfile.TemporaryDirectory() as folder:
        save_huggingface(Path(folder), encoder)
        theirs = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    if given.compile:
        for block in (*encoder.blocks, *theirs.encoder.layer):
            block.compile(dynamic=False)
        torch._dynamo.config.cache_size_limit = 64  # a shape and dtype each
    print("dtype    batch frames  ours ms  theirs ms  theirs/ours  largest difference")
    for dtype in DTYPES:
        encoder, theirs = encoder.to(dtype), theirs.to(dtype)
        for batch, frames in CASES:
            video = torch.randn(batch, 3, frames, 224, 224).to(dtype)
            print(
                f"{str(dtype)[6:]:9} {batch:4} {frames:6}",
                compare(encoder, theirs, video, given.pairs),
                flush=True,
            )
    for dtype in DTYPES:
        found = parts(encoder.to(dtype), torch.randn(2, 3, 16, 224, 224).to(dtype), given.pairs)
        print(f"{str(dtype)[6:]}: " + ", ".join(f"{name} {value:.0f} ms" for name, value in found.items()))


if __name__ == "__main__":
    main()
