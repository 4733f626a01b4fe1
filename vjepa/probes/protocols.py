"""The published protocols of probes, as data (V-JEPA, arXiv 2404.08471, and V-JEPA 2, arXiv 2506.09985)."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from vjepa.errors import did_you_mean
from vjepa.features.clip_spec import ClipSpec
from vjepa.models import VideoEncoder
from vjepa.probes.base import ProbeError
from vjepa.probes.fitting.trials import ProbeSettings

# a probe is measured after a half, three quarters and all of its steps; below 4 these points coincide
LEAST_MARKED_STEPS = 4
NUM_HEADS = 16  # of every published probe
FIVE_RATES, FOUR_DECAYS = (5e-3, 3e-3, 1e-3, 3e-4, 1e-4), (0.01, 0.1, 0.4, 0.8)
# blocks whose tokens the probes of Diving48 and Jester read, by the depth of the encoder
READ_BLOCKS = {24: (17, 19, 21, 23), 32: (25, 27, 29, 31), 40: (24, 29, 34, 39)}
CHOICE = "a held-out fifth of the training clips chooses the head; published: the best on validation"
STANDARDISED = "tokens are standardised in front of the probe; published: not standardised"
PLAIN = "training clips are plain unless --augment says how many random views; published: a new one per epoch"
CROP = "images: the largest central crop; published: the short side resized to 256 / 224 of the crop first"
FP32 = "the probe trains in fp32; published: fp16 autocast"
COMMON = (CHOICE, STANDARDISED, PLAIN, FP32)
V1 = (
    *COMMON,
    "weight decay is constant and gradients are not clipped; published: decay falls to 1e-6 on a cosine, "
    "without norms and biases, clipped at 1.0",
)


@dataclass(frozen=True)
class Protocol:
    """How a data set is probed.

    `frame_step` is the distance between frames of a clip (None: every frame, or the rate given; an image
    repeats). `batch_size` is that of all GPUs together. `departures` say where this package differs from the
    published protocol, and are stored with each result.
    """

    num_classes: int | None
    segments: int
    views: int
    num_frames: int = 16
    frame_step: int | None = 4
    epochs: int = 20
    batch_size: int = 256
    lr: tuple[float, ...] = FIVE_RATES
    weight_decay: tuple[float, ...] = FOUR_DECAYS
    depth: int = 4
    multilevel: bool = False
    departures: tuple[str, ...] = COMMON

    def layers(self, depth: int) -> tuple[int, ...] | None:
        """Return the blocks of an encoder of that depth whose tokens the probe reads; None for the last one alone.

        Raises:
            ProbeError: If the protocol reads several and none are published for that depth.
        """
        if not self.multilevel:
            return None
        if depth not in READ_BLOCKS:
            raise ProbeError(
                f"the protocol reads four blocks of the encoder, published for depths {sorted(READ_BLOCKS)}; this one "
                f"has {depth}. Say which with --layers, for example --layers [{depth // 2},{depth - 1}]."
            )
        return READ_BLOCKS[depth]

    def spec(self, encoder: VideoEncoder, *, layers: tuple[int, ...] | None = None, **given: Any) -> ClipSpec:
        """Return how the protocol makes clips for an encoder.

        Args:
            encoder: The encoder.
            layers: Blocks that are read (default: the protocol's).
            **given: Values of `ClipSpec.for_encoder` in place of the protocol's; None keeps the protocol's.
        """
        own: dict[str, Any] = {
            "num_frames": self.num_frames,
            "frame_step": None if given.get("fps") is not None else self.frame_step,
            "segments": self.segments,
            "views": self.views,
            "layers": self.layers(encoder.config["depth"]) if layers is None else layers,
        }
        changed = {name: value for name, value in given.items() if value is not None}
        return ClipSpec.for_encoder(encoder, **own | changed)

    def settings(self, given: ProbeSettings, num_videos: int) -> ProbeSettings:
        """Return the settings of the training: where `given` differs from its defaults, it replaces the published."""
        published = ProbeSettings(
            lr=self.lr,
            weight_decay=self.weight_decay,
            depth=self.depth,
            num_heads=NUM_HEADS,
            batch_size=self.batch_size,
            num_steps=max(LEAST_MARKED_STEPS, math.ceil(self.epochs * num_videos / self.batch_size)),
        )
        default = asdict(ProbeSettings())
        changed = {k: v for k, v in asdict(given).items() if v != default[k]}
        return replace(published, **changed)


def _image(classes: int) -> Protocol:
    return Protocol(
        classes,
        1,
        1,
        frame_step=None,
        batch_size=1024,
        lr=(1e-3,),
        weight_decay=(0.001,),
        depth=1,
        departures=(*V1, CROP),
    )


def _four_levels(classes: int) -> Protocol:
    return Protocol(
        classes, 4, 3, num_frames=32, frame_step=2, epochs=100, batch_size=128, lr=(1e-3, 3e-4, 1e-4),
        weight_decay=(0.8,), multilevel=True,
    )  # fmt: skip


def _small(classes: int) -> Protocol:
    return Protocol(
        classes, 8, 3, departures=(*COMMON, "no probe protocol is published: that of k400 is used")
    )


PROTOCOLS = {
    "k400": Protocol(400, 8, 3),
    "ssv2": Protocol(174, 2, 3),
    "ssv2-g384": Protocol(174, 2, 3, num_frames=64, frame_step=2),
    "coin": Protocol(180, 8, 3, batch_size=128),
    "diving48": _four_levels(48),
    "jester": _four_levels(27),
    "in1k": Protocol(
        1000, 1, 1, frame_step=None, batch_size=1024, lr=(5e-4, 1e-3, 1.5e-3, 2e-3),
        weight_decay=(8e-3, 4e-3, 2e-3, 1e-3, 5e-4),
        departures=(
            *COMMON, CROP, "no warm-up; published: 5 epochs from 2e-4, and a 21st head of wd falling to 0"
        ),
    ),
    "ek100": Protocol(
        None, 1, 1, num_frames=32, frame_step=None, batch_size=128, weight_decay=(1e-4, 1e-3, 1e-2, 1e-1),
        departures=("without --precision bf16 the work is in fp32; published: bf16 autocast",),
    ),
    "k400-v1": Protocol(400, 8, 3, lr=(1e-3,), weight_decay=(0.01,), depth=1, departures=V1),
    "ssv2-v1": Protocol(174, 2, 3, lr=(1e-3,), weight_decay=(0.01,), depth=1, departures=V1),
    "in1k-v1": _image(1000),
    "places205": _image(205),
    "inat21": _image(10_000),
    "ucf101": _small(101),
    "hmdb51": _small(51),
}  # fmt: skip


def protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        ProbeError: If no protocol has that name.
    """
    if name not in PROTOCOLS:
        raise ProbeError(
            f"no protocol {name!r}; the nearest is {did_you_mean(name, PROTOCOLS)!r}. "
            f"There are: {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]


def protocol_named_by(file_name: str, *, depth: int) -> tuple[str, Protocol] | None:
    """Return the protocol in the name of a released probe, with the numbers of the name if it has some.

    A probe of depth 1 is V-JEPA 1's.

    >>> name, plan = protocol_named_by("ssv2-vitg-384-64x2x3.pt", depth=4)
    >>> name, plan.num_frames, plan.segments, plan.views
    ('ssv2-g384', 64, 2, 3)
    """
    words = re.split(r"[-_.]", file_name.lower())
    bases = {"places": "places205", "inat": "inat21"}
    found = next((w for w in (bases.get(w, w) for w in words) if w in PROTOCOLS), None)
    if found is None:
        return None
    sized = {1: f"{found}-v1"}.get(depth, f"{found}-g384" if {"vitg", "384"} <= set(words) else found)
    name = sized if sized in PROTOCOLS else found
    shape = re.search(r"(\d+)x(\d+)x(\d+)", file_name)
    if shape is None:
        return name, PROTOCOLS[name]
    frames, segments, views = (int(x) for x in shape.groups())
    return name, replace(PROTOCOLS[name], num_frames=frames, segments=segments, views=views)
