"""A trained probe in a folder: `probe.safetensors`, and `probe.json` with what its scores mean."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vjepa.files import write_tensors, write_text
from vjepa.models import VideoEncoder
from vjepa.models.files import digest
from vjepa.probes.anticipation.files import CARD, WEIGHTS, is_anticipation
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, ProbeError, Standardize, StandardizedProbe
from vjepa.probes.knn import KnnProbe
from vjepa.probes.linear import LinearProbe
from vjepa.probes.results import ProbeKind, ProbeResult
from vjepa.probes.views import ClipLayout

FORMAT = 1


@dataclass(frozen=True)
class ProbeCard:
    """What must be known beside the weights of a probe.

    `segments` and `views` of a video are those of the test: the probe sees the segments together.
    `label_names` in the order of the class ids; `encoder` the path of the encoder, `encoder_digest` a hash of
    its weights; `num_frames` and `fps` of the clips it was trained on (`fps` and `frame_step`
    None: every frame); `levels` the encoder's blocks it reads (None: the last); `options` of the class of a k-NN
    probe.
    """

    kind: ProbeKind
    label_names: tuple[str, ...]
    embed_dim: int
    num_heads: int | None
    depth: int | None
    encoder: str
    encoder_digest: str
    encoder_config: dict[str, Any]
    num_frames: int
    fps: float | None
    segments: int = 1
    views: int = 1
    frame_step: int | None = None
    levels: tuple[int, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    format: int = field(default=FORMAT)


def card_of(
    result: ProbeResult,
    label_names: tuple[str, ...],
    encoder: VideoEncoder,
    path: str,
    *,
    num_frames: int,
    fps: float | None,
    layout: ClipLayout,
    frame_step: int | None = None,
) -> ProbeCard:
    """The card of a trained probe.

    Args:
        result: What training gave.
        label_names: In the order of the class ids.
        encoder: The encoder whose features it takes.
        path: Where that encoder lies.
        num_frames: Frames of a clip.
        fps: Frames of the clip a second of video; None: every frame.
        layout: Clips of a video in the test.
        frame_step: Frames from one of a clip to the next, instead of a rate.
    """
    options = ("num_clips", "k", "temperature") if result.kind == "knn" else ()
    return ProbeCard(
        kind=result.kind,
        label_names=label_names,
        embed_dim=encoder.embed_dim,
        num_heads=result.settings.get("num_heads"),
        depth=result.settings.get("depth"),
        encoder=str(Path(path).resolve()),
        encoder_digest=digest(encoder),
        encoder_config=encoder.config,
        num_frames=num_frames,
        fps=fps,
        segments=layout.segments,
        views=layout.views,
        frame_step=frame_step,
        levels=layout.levels,
        options={name: result.settings[name] for name in options},
    )


def save_probe(folder: Path, probe: StandardizedProbe, card: ProbeCard) -> None:
    """Write a probe to `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(probe.state_dict(), folder / WEIGHTS)
    write_text(json.dumps(asdict(card), indent=2), folder / CARD)


def load_probe(folder: Path) -> tuple[StandardizedProbe, ProbeCard]:
    """A probe written by `save_probe`, in eval mode, and its card.

    Raises:
        ProbeError: If the folder holds no such probe, or one that is damaged.
    """
    if is_anticipation(folder):
        raise ProbeError(
            f"{folder} anticipates verbs and nouns, and needs a predictor. Use `vjepa.load_probe` and "
            "`vjepa.probes.anticipate`."
        )
    try:
        stored = json.loads((folder / CARD).read_text(encoding="utf-8"))
        levels = stored.get("levels")
        stored |= {"levels": None if levels is None else tuple(levels)}
        card = ProbeCard(**{**stored, "label_names": tuple(stored["label_names"])})
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise ProbeError(
            f"{folder} has no {CARD} with {WEIGHTS} beside it. Give a folder written by `vjepa probe --out`."
        ) from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ProbeError(f"{folder} holds a damaged probe ({error}). Train it again.") from error
    with torch.device("meta"):
        probe = _build(card)
    _fill(probe, tensors, folder)
    return probe.eval(), card


def check_encoder(card: ProbeCard, encoder: VideoEncoder, path: str) -> None:
    """Refuse an encoder that the probe was not trained on.

    Raises:
        ProbeError: If its weights are not the ones.
    """
    if digest(encoder) != card.encoder_digest:
        raise ProbeError(
            f"{path} is not the encoder this probe was trained on: its weights differ. "
            "Give that one with --encoder, or train a probe on this one."
        )


def _build(card: ProbeCard) -> StandardizedProbe:
    classes = len(card.label_names)
    probe: Probe
    if card.kind == "linear":
        probe = LinearProbe(embed_dim=card.embed_dim, num_classes=classes)
    elif card.kind == "knn":
        probe = KnnProbe(embed_dim=card.embed_dim, num_classes=classes, **card.options)
    else:
        assert card.num_heads is not None and card.depth is not None
        probe = AttentiveProbe(
            embed_dim=card.embed_dim, num_classes=classes, num_heads=card.num_heads, depth=card.depth
        )
    return StandardizedProbe(Standardize(embed_dim=card.embed_dim), probe)


def _fill(probe: StandardizedProbe, tensors: dict[str, Tensor], folder: Path) -> None:
    expected = {name: tensor.shape for name, tensor in probe.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if differing := sorted(name for name, _ in expected.items() ^ found.items()):
        raise ProbeError(
            f"{folder / WEIGHTS} does not fit its {CARD}: {', '.join(differing[:4])}. Train it again."
        )
    probe.load_state_dict(tensors, assign=True)
