"""A probe of any make with its encoder: what is needed to name clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from vjepa.checkpoints import load_encoder
from vjepa.checkpoints.load import load_network, main_encoder, open_checkpoint
from vjepa.checkpoints.source import Source
from vjepa.data.loading.dataset import VideoClips, collate
from vjepa.data.manifests.rows import Manifest
from vjepa.models import VideoEncoder
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, ProbeError
from vjepa.probes.clips import eval_clips
from vjepa.probes.files import CARD, check_encoder, load_probe
from vjepa.probes.labels import names_for
from vjepa.probes.protocols import Protocol, protocol, protocol_told_by
from vjepa.probes.released import probe_class
from vjepa.probes.views import ClipLayout, mean_probabilities
from vjepa.types import ClipBatch


@dataclass(frozen=True)
class Namer:
    """A probe, its encoder, the names of its classes, and how the clips are cut that it was trained on.

    `fps` and `frame_step` None: every frame.
    """

    encoder: VideoEncoder
    head: Probe
    label_names: tuple[str, ...]
    kind: str
    num_frames: int
    fps: float | None
    frame_step: int | None
    layout: ClipLayout

    def clips(self, manifest: Manifest, *, decoder: str = "auto") -> VideoClips:
        """One long clip a row of a manifest, all segments and views in it."""
        return eval_clips(
            manifest,
            self.encoder,
            num_frames=self.num_frames,
            fps=self.fps,
            frame_step=self.frame_step,
            decoder=decoder,
            layout=self.layout,
        )

    @torch.no_grad()
    def probabilities(self, video: Float[Tensor, "b c vst h w"]) -> Float[Tensor, "b classes"]:
        """Probabilities of the classes, of clips as `clips` gives them; on the encoder's device.

        Raises:
            ProbeError: If they are not finite.
        """
        tokens = self.layout.tokens(self.encoder, video)
        apart = rearrange(tokens, "b (v n) d -> b 1 v n d", v=self.layout.views)
        shares = mean_probabilities(self.head, apart)
        if not shares.isfinite().all():
            raise ProbeError("the scores are not finite: encoder or probe has diverged. Use an earlier one.")
        return shares

    def named(
        self, manifest: Manifest, *, batch_size: int, decoder: str = "auto", num_workers: int = 0
    ) -> Iterator[tuple[ClipBatch, Float[Tensor, "b classes"]]]:
        """Batches of a manifest's clips with their probabilities; no more than a batch is kept in memory."""
        device = next(self.encoder.parameters()).device
        loader = DataLoader(
            self.clips(manifest, decoder=decoder),
            batch_size=max(1, batch_size // self.layout.clips),
            num_workers=num_workers,
            collate_fn=collate,
            generator=torch.Generator(),  # else the loader draws from the random state of the process
        )
        for batch in loader:
            if len(batch):
                yield batch, self.probabilities(batch.video.to(device)).cpu()
            else:
                yield batch, torch.empty(0, len(self.label_names))


def open_namer(
    probe: Path,
    *,
    encoder: str | None = None,
    labels: str | None = None,
    protocol_name: str | None = None,
    levels: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> Namer:
    """A probe from any file or folder, and its encoder.

    Args:
        probe: A folder of `vjepa probe`, a probe file of Meta's, or a folder of transformers' or `vjepa convert`.
        encoder: Its encoder; needed where the probe does not come with one, nor says where it is.
        labels: Names of the classes, as for `read_labels`, in place of those that the probe tells.
        protocol_name: How the clips of a released probe are cut (default: as its name tells).
        levels: Blocks whose tokens a released probe reads (default: as the protocol says).
        device: Where to put both (default: CPU).

    Raises:
        ProbeError: If something is missing, or does not fit.
    """
    if (probe / CARD).is_file():
        if protocol_name is not None or levels is not None:
            raise ProbeError(
                f"{probe} was written by `vjepa probe` and says all itself: drop --protocol and --layers."
            )
        namer = _trained_here(probe, encoder, labels)
    else:
        namer = _released(probe, encoder, labels, protocol_name, levels)
    where = device or torch.device("cpu")
    namer.encoder.to(where).eval()
    namer.head.to(where).eval()
    return namer


def _trained_here(probe: Path, encoder: str | None, labels: str | None) -> Namer:
    head, card = load_probe(probe)
    path = encoder or card.encoder
    if encoder is None and not Path(path).exists():
        raise ProbeError(f"the encoder of this probe is no longer at {path}. Name its place with --encoder.")
    model = load_encoder(path)
    check_encoder(card, model, path)
    return Namer(
        encoder=model,
        head=head,
        label_names=names_for(len(card.label_names), card.label_names, labels, probe),
        kind=card.kind,
        num_frames=card.num_frames,
        fps=card.fps,
        frame_step=card.frame_step,
        layout=ClipLayout(card.segments, card.views, card.levels),
    )


def _released(
    probe: Path, encoder: str | None, labels: str | None, name: str | None, levels: Sequence[int] | None
) -> Namer:
    if not probe.exists():
        raise ProbeError(
            f"{probe}: no such probe. Give a folder of `vjepa probe --out`, or a released probe."
        )
    source = open_checkpoint(probe)
    if "probe" not in source.networks:
        raise ProbeError(
            f"{source.absent('probe')} Give a probe: of `vjepa probe`, Meta's, or transformers'."
        )
    if probe_class(source, {}) is not AttentiveProbe:
        raise ProbeError(
            f"{probe} anticipates verbs and nouns, and needs a predictor. `vjepa.load_probe` and "
            "`vjepa.probes.anticipate` read it."
        )
    model = _encoder_of(source, encoder)
    head = load_network(source, "probe", AttentiveProbe, _heads_of(source, model))
    if head.config["embed_dim"] != model.embed_dim:
        raise ProbeError(
            f"{probe} reads tokens of width {head.config['embed_dim']}, {encoder or probe} gives {model.embed_dim}. "
            "Give the encoder it was trained on with --encoder."
        )
    told = protocol_told_by(probe.name, depth=head.config["depth"])
    plan = protocol(name) if name is not None else told[1] if told else _native_plan(model)
    tapped = tuple(levels) if levels is not None else plan.levels(model.config["depth"])
    return Namer(
        encoder=model,
        head=head,
        label_names=names_for(head.config["num_classes"], source.label_names, labels, probe),
        kind=f"released depth-{head.config['depth']}",
        num_frames=plan.num_frames,
        fps=None,
        frame_step=plan.frame_step,
        layout=ClipLayout(plan.segments, plan.views, tapped),
    )


def _encoder_of(source: Source, encoder: str | None) -> VideoEncoder:
    if encoder is not None:
        return load_encoder(encoder)
    part = main_encoder(source)
    if part not in source.networks:
        raise ProbeError(
            f"{source.path} holds a probe and no encoder. Name the encoder's place with --encoder."
        )
    return load_network(source, part, VideoEncoder, {})


def _heads_of(source: Source, encoder: VideoEncoder) -> dict[str, int]:
    """Heads where the weights do not tell them: the encoder's, as V-JEPA's probes have."""
    told = "num_heads" in source.arguments("probe", {})
    return {} if told else {"num_heads": encoder.config["num_heads"]}


def _native_plan(encoder: VideoEncoder) -> Protocol:
    """One clip from the middle, every fourth frame, for a probe whose name tells no protocol."""
    return Protocol(None, 1, 1, num_frames=encoder.config["num_frames"])
