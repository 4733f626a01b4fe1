"""The test of a probe as one HTML file: confusion, classes, the worst clips and the attention of the probe."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from vjepa.data.manifests.rows import Manifest
from vjepa.features.encode import clip_tokens
from vjepa.files import write_text
from vjepa.probes.attention import attention_of, overlay
from vjepa.probes.classifier import Classifier
from vjepa.probes.results import bootstrap_interval
from vjepa.types import ClipBatch, TokenGrid
from vjepa.visualize.strips import pixels_of, shown_tubelets

MOST_WORST = 24  # clips shown; a strip of each is about 30 kB
FRAME_HEIGHT, QUALITY = 96, 80
MOST_CONFUSED = 40  # classes up to which the complete matrix is drawn; above, the pairs most often confused
VIEWPORT = '<meta name="viewport" content="width=device-width">'
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:CanvasText}
:root{color-scheme:light dark}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .5rem;text-align:right;font-weight:400}
th{color:GrayText}.name{text-align:left;max-width:16rem;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.wide{overflow-x:auto}.down{vertical-align:bottom}.down span{writing-mode:vertical-rl;transform:rotate(180deg)}
.matrix td{min-width:1.6rem;text-align:center;border:1px solid #fff}.clip{margin:1.2rem 0}
.clip img{display:block;max-width:100%;margin:.15rem 0}.path{color:GrayText;font-size:13px;overflow-wrap:anywhere}
"""


@dataclass(frozen=True)
class Tested:
    """The test clip by clip: the `rows` of the manifest, and the `labels` and class `probabilities` of the clips."""

    rows: list[int]
    labels: Tensor
    probabilities: Float[Tensor, "clips classes"]

    @property
    def of_true_class(self) -> Float[Tensor, "clips"]:
        """Probability of the true class of each clip."""
        return self.probabilities.gather(1, self.labels[:, None])[:, 0]


def write_page(
    file: Path,
    classifier: Classifier,
    manifest: Manifest,
    *,
    title: str,
    batch_size: int = 32,
    num_workers: int = 0,
    decoder: str = "auto",
) -> Path:
    """Test a probe again, clip by clip, and write the page, which loads nothing from elsewhere."""
    tested = _tested(
        classifier.classified(manifest, batch_size=batch_size, num_workers=num_workers, decoder=decoder)
    )
    confusion = multiclass_confusion_matrix(tested.probabilities, tested.labels, len(classifier.label_names))
    right = int(confusion.diag().sum())
    low, high = bootstrap_interval(right, len(tested.rows))
    chance = float(confusion.sum(dim=1).max()) / len(tested.rows)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{right} of {len(tested.rows)} clips classified correctly: top-1 "
        f"{100 * right / len(tested.rows):.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %); the largest "
        f"class alone gives {100 * chance:.1f} %.</p>",
        "<h2>Confusion</h2>",
        *_confusion(confusion, classifier.label_names),
        "<h2>Classes</h2>",
        *_classes(confusion, classifier.label_names),
        "<h2>Wrong clips</h2><p>Lowest probability of the true class first. Below the frames: the attention of an "
        "attentive probe.</p>",
        *_worst(classifier, manifest, tested, decoder),
    ]
    head = f'<meta charset="utf-8">{VIEWPORT}<title>{escape(title)}</title><style>{STYLE}</style>'
    write_text(f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>", file)
    return file


def _tested(batches: Iterable[tuple[ClipBatch, Tensor]]) -> Tested:
    rows: list[int] = []
    labels, probabilities = [], []
    for batch, found in batches:
        known = batch.label >= 0
        rows += batch.index[known].tolist()
        labels.append(batch.label[known])
        probabilities.append(found[known])
    return Tested(rows, torch.cat(labels), torch.cat(probabilities))


def _confusion(confusion: Tensor, names: Sequence[str]) -> Iterator[str]:
    """Yield the matrix with a row per true class; for many classes, the pairs most often confused."""
    if len(names) > MOST_CONFUSED:
        yield from _confused_pairs(confusion, names)
        return
    shares = confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    heads = "".join(f'<th class="down"><span>{escape(name)}</span></th>' for name in names)
    yield f'<div class="wide"><table class="matrix"><tr><th class="name">true \\ predicted</th>{heads}</tr>'
    for i, name in enumerate(names):
        cells = "".join(
            f'<td style="background:rgba({"30,120,180" if i == j else "210,70,40"},{share:.2f})">{count or ""}</td>'
            for j, (count, share) in enumerate(zip(confusion[i].tolist(), shares[i].tolist(), strict=True))
        )
        yield f'<tr><th class="name">{escape(name)}</th>{cells}</tr>'
    yield "</table></div>"


def _confused_pairs(confusion: Tensor, names: Sequence[str]) -> Iterator[str]:
    wrong = confusion - torch.diag(confusion.diag())
    order = wrong.flatten().argsort(descending=True)[:MOST_CONFUSED].tolist()
    yield f"<p>The {MOST_CONFUSED} pairs most often confused, of {len(names)} classes.</p>"
    yield '<table><tr><th class="name">true</th><th class="name">predicted</th><th>clips</th></tr>'
    for true, named in (divmod(cell, len(names)) for cell in order):
        if count := int(wrong[true, named]):
            pair = f'<td class="name">{escape(names[true])}</td><td class="name">{escape(names[named])}</td>'
            yield f"<tr>{pair}<td>{count}</td></tr>"
    yield "</table>"


def _classes(confusion: Tensor, names: Sequence[str]) -> Iterator[str]:
    """Yield the recall and precision of each class, the lowest recall first."""
    clips, named, right = confusion.sum(dim=1), confusion.sum(dim=0), confusion.diag()
    order = (right / clips.clamp(min=1)).argsort().tolist()
    yield '<table><tr><th class="name">class</th><th>clips</th><th>recall</th><th>precision</th></tr>'
    for i in order:
        recall, precision = (
            f"{100 * int(right[i]) / int(of):.1f} %" if of else "-" for of in (clips[i], named[i])
        )
        yield (
            f'<tr><td class="name">{escape(names[i])}</td><td>{int(clips[i])}</td><td>{recall}</td>'
            f"<td>{precision}</td></tr>"
        )
    yield "</table>"


def _worst(classifier: Classifier, manifest: Manifest, tested: Tested, decoder: str) -> Iterator[str]:
    clips = classifier.clips(manifest, decoder=decoder)
    wrong = tested.probabilities.argmax(dim=1) != tested.labels
    if not wrong.any():
        yield "<p>No clip is classified wrongly.</p>"
    worst = [i for i in tested.of_true_class.argsort().tolist() if wrong[i]]
    for i in worst[:MOST_WORST]:
        sample = clips[tested.rows[i]]
        if sample.video is None:  # it could be read before, and no longer
            continue
        guess = int(tested.probabilities[i].argmax())
        true = int(tested.labels[i])
        said = (
            f"<b>{escape(classifier.label_names[true])}</b> {float(tested.probabilities[i, true]):.3f}, classified as "
            f"<b>{escape(classifier.label_names[guess])}</b> {float(tested.probabilities[i, guess]):.3f}"
        )
        strips = "".join(
            f'<img alt="" src="{_uri(strip)}">' for strip in clip_strips(classifier, sample.video)
        )
        path = escape(manifest.rows[tested.rows[i]].path)
        yield f'<div class="clip">{said}<div class="path">{path}</div>{strips}</div>'


@torch.no_grad()
def clip_strips(
    classifier: Classifier, video: Float[Tensor, "3 vst h w"]
) -> list[UInt8[Tensor, "3 height width"]]:
    """Return the frames of a clip side by side, and if the probe is attentive, the same under its attention.

    Of several views it shows the middle one, with all its segments in a row.
    """
    spec = classifier.spec
    view = rearrange(video, "c (v st) h w -> v c st h w", v=spec.views)[spec.views // 2]
    parts = rearrange(pixels_of(view, spec.pixel_scale), "c (s t) h w -> s c t h w", s=spec.segments)
    one = classifier.encoder.grid_of(view[None, :, : parts.shape[2]])
    grid = TokenGrid(t=spec.segments * one.t, h=one.h, w=one.w)
    starts = torch.arange(one.t) * max(parts.shape[2] // one.t, 1)
    frames = rearrange(parts[:, :, starts], "s c t h w -> (s t) c h w")
    shown = shown_tubelets(grid)
    strips = [_joined(frames[shown])]
    device = next(classifier.encoder.parameters()).device
    tokens = clip_tokens(classifier.encoder, view[None].to(device), spec.one_view())
    if (weights := attention_of(classifier.head, tokens)) is not None:
        layers = len(spec.layers or (0,))
        by_place = reduce(weights[0].cpu(), "(s l n) -> (s n)", "sum", s=spec.segments, l=layers)
        strips.append(_joined(overlay(frames, by_place, grid)[shown]))
    return strips


def _joined(frames: UInt8[Tensor, "t 3 h w"]) -> UInt8[Tensor, "3 h tw"]:
    return rearrange(frames, "t c h w -> c h (t w)")


def _uri(strip: UInt8[Tensor, "3 h w"]) -> str:
    """Return a frame strip as a JPEG data URI."""
    image = Image.fromarray(rearrange(strip, "c h w -> h w c").numpy())
    width = max(round(image.width * FRAME_HEIGHT / image.height), 1)
    stream = io.BytesIO()
    image.resize((width, FRAME_HEIGHT)).save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
