"""What plain pixels tell of a label: ridge classifiers on one frame, on frame differences, on random convolutions.

python tools/pixel_baselines.py --train MANIFEST --val MANIFEST [--root DIR] [--label NAME] [--seeds 3]

A frame is turned grey and averaged to at most 24 pixels a side. "one frame" is the middle one of a clip; "frame
differences" are those of every second frame; "random convolutions" are two random layers on the middle frame at full
size, which see more of its shapes than pooled pixels do. The ridge penalty is chosen on a held-out fifth of the
training clips, in whole groups.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa.data import ClipSampler, VideoClips, read_manifest
from vjepa.probes.fitting.splits import held_out_split

PENALTIES = tuple(10.0**power for power in range(0, 7))
POOLED = 24  # pixels of the longer side
BATCH = 100  # frames through the random convolutions at a time


@dataclass(frozen=True)
class Clips:
    """Grey `frames` (N, T, H, W) of all labelled clips, their `labels` (N,) and `groups`."""

    frames: Float[Tensor, "n t h w"]
    labels: Int[Tensor, "n"]
    groups: tuple[str, ...]


def grey(frames: UInt8[Tensor, "t 3 h w"], generator: np.random.Generator) -> Float[Tensor, "3 t h w"]:
    """Luminance 0 to 1, thrice: the clip transform of this tool."""
    return (frames.float() / 255).mean(dim=1).expand(3, -1, -1, -1)


def read(
    source: str, given: argparse.Namespace, names: tuple[str, ...] = ()
) -> tuple[Clips, tuple[str, ...]]:
    """All labelled clips of a manifest, and the names of their classes."""
    manifest = read_manifest(source, root=given.root, label_column=given.label, label_names=names)
    clips = VideoClips(
        manifest, sampler=ClipSampler(num_frames=16, fps=None, position="centre"), transform=grey
    )
    samples = [clips[row] for row in range(len(clips)) if manifest.rows[row].label >= 0]
    good = [sample for sample in samples if sample.video is not None]
    print(
        f"{source}: {len(good)} labelled clips of {len(manifest)} rows, {len(samples) - len(good)} unreadable"
    )
    return (
        Clips(
            frames=torch.stack([s.video[0] for s in good if s.video is not None]),
            labels=torch.tensor([s.label for s in good]),
            groups=tuple(manifest.rows[s.index].group or "" for s in good),
        ),
        manifest.label_names,
    )


def pooled(frames: Float[Tensor, "n t h w"]) -> Float[Tensor, "n t h2 w2"]:
    """Means over square areas, at most `POOLED` of them a side."""
    side = max(1, -(-max(frames.shape[-2:]) // POOLED))
    return F.avg_pool2d(frames, side, ceil_mode=True, count_include_pad=False)


def one_frame(frames: Float[Tensor, "n t h w"], seed: int) -> Float[Tensor, "n d"]:
    """Pooled pixels of the middle frame."""
    return pooled(frames)[:, frames.shape[1] // 2].flatten(1)


def frame_differences(frames: Float[Tensor, "n t h w"], seed: int) -> Float[Tensor, "n d"]:
    """Pooled pixels of each second frame less those of the one before it."""
    return pooled(frames)[:, ::2].diff(dim=1).flatten(1)


@torch.inference_mode()
def random_convolutions(frames: Float[Tensor, "n t h w"], seed: int) -> Float[Tensor, "n d"]:
    """The largest answers in a 3 x 3 grid of two random convolutional layers to the middle frame."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(1, 96, 7, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(96, 256, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(3),
    )
    middle = frames[:, frames.shape[1] // 2, None]
    middle = (middle - middle.mean()) / middle.std()
    return torch.cat([layers(part).flatten(1) for part in middle.split(BATCH)])


def ridge(
    train: Float[Tensor, "n d"], labels: Int[Tensor, "n"], test: Float[Tensor, "m d"], penalty: float
) -> Int[Tensor, "m"]:
    """Classes of `test` by least squares on one-hot labels, features standardised."""
    mean, std = train.mean(dim=0), train.std(dim=0) + 1e-6
    fitted, tested = ((part.double() - mean) / std for part in (train, test))
    kernel = fitted @ fitted.T
    kernel.diagonal().add_(penalty)
    targets = F.one_hot(labels).double()
    middle = targets.mean(dim=0)
    return (tested @ (fitted.T @ torch.linalg.solve(kernel, targets - middle)) + middle).argmax(dim=1)


def accuracy(train: Clips, val: Clips, seen: Tensor, unseen: Tensor, seed: int) -> Float[Tensor, "classes"]:
    """Share of right answers, all and by class, with the penalty that is best on held-out training clips."""
    fit, held = held_out_split(train.labels, train.groups, torch.Generator().manual_seed(seed))
    tried = {
        p: float((ridge(seen[fit], train.labels[fit], seen[held], p) == train.labels[held]).float().mean())
        for p in PENALTIES
    }
    right = (ridge(seen, train.labels, unseen, max(tried, key=tried.__getitem__)) == val.labels).float()
    by_class = [right[val.labels == label].mean() for label in range(int(train.labels.max()) + 1)]
    return torch.stack([right.mean(), *by_class])


def main() -> None:
    """Print a table: mean and deviation over seeds, and the recall of each class."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--label", default="label", help="column of the manifests")
    parser.add_argument("--seeds", type=int, default=3, help="of the held-out fifth and the convolutions")
    given = parser.parse_args()
    train, names = read(given.train, given)
    val, _ = read(given.val, given, names)
    print(
        f"chance {100 / len(names):.1f} %, commonest class {100 * val.labels.bincount().max() / len(val.labels):.1f} %"
    )
    for features in (one_frame, frame_differences, random_convolutions):
        runs = torch.stack(
            [
                100 * accuracy(train, val, features(train.frames, s), features(val.frames, s), s)
                for s in range(given.seeds)
            ]
        )
        overall = runs[:, 0].tolist()
        spread = statistics.stdev(overall) if len(overall) > 1 else 0.0
        recall = ", ".join(f"{n} {r:.0f}" for n, r in zip(names, runs.mean(dim=0)[1:].tolist(), strict=True))
        label = features.__name__.replace("_", " ")
        print(f"{label}: {statistics.mean(overall):.1f} ± {spread:.1f} %; recall {recall}")


if __name__ == "__main__":
    main()
