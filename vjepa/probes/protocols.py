"""The published protocols of probes, as data (spec 6.3; V-JEPA, arXiv 2404.08471, and V-JEPA 2, 2506.09985)."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace

from vjepa.errors import did_you_mean
from vjepa.probes.base import ProbeError
from vjepa.probes.fitting.trials import ProbeSettings

LEAST_STEPS = 4  # a probe is looked at after a half, three quarters and all of them
FIVE_RATES, FOUR_DECAYS = (5e-3, 3e-3, 1e-3, 3e-4, 1e-4), (0.01, 0.1, 0.4, 0.8)
# blocks whose tokens the probes of Diving48 and Jester read, by the depth of the encoder
TAPPED = {24: (17, 19, 21, 23), 32: (25, 27, 29, 31), 40: (24, 29, 34, 39)}
CHOICE = "a held-out fifth of the training clips chooses the head; published: the best on validation"
STANDARDISED = "tokens are standardised in front of the probe; published: taken as they are"
PLAIN = "training clips are plain unless --augment says how many random views; published: a new one an epoch"
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

    `frame_step` between frames of a clip (None: all of it is one image, repeated); `batch_size` of all GPUs;
    `departures` are where this package's training differs from the published one: they are stored with each result.
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
    num_heads: int = 16
    multilevel: bool = False
    departures: tuple[str, ...] = COMMON

    def levels(self, depth: int) -> tuple[int, ...] | None:
        """Blocks of an encoder of that depth whose tokens the probe reads; None: the last one's alone.

        Raises:
            ProbeError: If the protocol reads several and nobody published which, of such a depth.
        """
        if not self.multilevel:
            return None
        if depth not in TAPPED:
            raise ProbeError(
                f"the protocol reads four blocks of the encoder, published for depths {sorted(TAPPED)}; this one has "
                f"{depth}. Say which with --layers, for example --layers [{depth // 2},{depth - 1}]."
            )
        return TAPPED[depth]

    def settings(self, given: ProbeSettings, num_videos: int) -> ProbeSettings:
        """Settings of the training, with what in `given` differs from its default in place of the published.

        Args:
            given: What was asked for.
            num_videos: Training videos, which with the epochs make the number of steps.
        """
        published = ProbeSettings(
            lr=self.lr,
            weight_decay=self.weight_decay,
            depth=self.depth,
            num_heads=self.num_heads,
            batch_size=self.batch_size,
            num_steps=max(LEAST_STEPS, math.ceil(self.epochs * num_videos / self.batch_size)),
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
        departures=V1,
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
        departures=(*COMMON, "no warm-up; published: 5 epochs from 2e-4, and a 21st head of wd falling to 0"),
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
    """A protocol by name.

    Raises:
        ProbeError: If there is none of that name.
    """
    if name not in PROTOCOLS:
        raise ProbeError(
            f"no protocol {name!r}; the nearest is {did_you_mean(name, PROTOCOLS)!r}. "
            f"There are: {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]


def protocol_told_by(file_name: str, *, depth: int) -> tuple[str, Protocol] | None:
    """The protocol that the name of a released probe tells, and its own numbers where it has them.

    >>> name, told = protocol_told_by("ssv2-vitg-384-64x2x3.pt", depth=4)
    >>> name, told.num_frames, told.segments, told.views
    ('ssv2-g384', 64, 2, 3)

    Args:
        file_name: Of the file or folder.
        depth: Layers of the probe; 1 is V-JEPA 1's.
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
