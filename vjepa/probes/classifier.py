"""A probe of any origin with its encoder: what is needed to classify clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vjepa.checkpoints import load_encoder
from vjepa.checkpoints.load import load_network, main_encoder, open_checkpoint
from vjepa.checkpoints.opening import damage
from vjepa.checkpoints.source import Source
from vjepa.data.loading.dataset import VideoClips
from vjepa.data.manifests.rows import Manifest
from vjepa.features.clip_spec import ClipSpec
from vjepa.features.encode import clip_tokens, encode, placed_batches
from vjepa.models import VideoEncoder
from vjepa.probes.anticipation.probe import AnticipationProbe
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, ProbeError
from vjepa.probes.clips import eval_clips
from vjepa.probes.files import WEIGHTS, holds_probe, open_probe
from vjepa.probes.labels import names_for
from vjepa.probes.protocols import Protocol, protocol, protocol_named_by
from vjepa.probes.released import class_in
from vjepa.probes.results import mean_probabilities
from vjepa.types import ClipBatch


@dataclass(frozen=True)
class Classifier:
    """A probe, its encoder, the names of its classes, and how a video becomes the clips that it reads."""

    encoder: VideoEncoder
    head: Probe
    label_names: tuple[str, ...]
    kind: str
    spec: ClipSpec

    def clips(self, manifest: Manifest, *, decoder: str = "auto") -> VideoClips:
        """Return one long clip per row of a manifest, with all its segments and views."""
        return eval_clips(manifest, self.spec, decoder=decoder)

    @torch.no_grad()
    def probabilities(self, video: Float[Tensor, "b c vst h w"]) -> Float[Tensor, "b classes"]:
        """Return the class probabilities of clips as `clips` gives them, on the encoder's device.

        Raises:
            ProbeError: If they are not finite.
        """
        tokens = clip_tokens(self.encoder, video, self.spec)
        by_view = rearrange(tokens, "b (v n) d -> b 1 v n d", v=self.spec.views)
        probabilities = mean_probabilities(self.head, by_view)
        if not probabilities.isfinite().all():
            raise ProbeError("the scores are not finite: encoder or probe has diverged. Use an earlier one.")
        return probabilities

    def classified(
        self, manifest: Manifest, *, batch_size: int, decoder: str = "auto", num_workers: int = 0
    ) -> Iterator[tuple[ClipBatch, Float[Tensor, "b classes"]]]:
        """Yield batches of a manifest's clips with their probabilities; memory holds one batch at a time."""
        clips = self.clips(manifest, decoder=decoder)
        size = max(1, batch_size // self.spec.clips_per_video)
        batches = placed_batches(clips, range(len(clips)), batch_size=size, num_workers=num_workers)
        none = torch.empty(0, len(self.label_names))
        for batch, found in encode(self.encoder, batches, self.probabilities, of=manifest.source):
            yield batch.clips, none if found is None else found


def open_classifier(
    probe: Path,
    *,
    encoder: str | None = None,
    labels: str | None = None,
    protocol_name: str | None = None,
    layers: Sequence[int] | None = None,
    probe_class: str | None = None,
    device: torch.device | None = None,
) -> Classifier:
    """Open a probe from any file or folder, and its encoder.

    Args:
        probe: A folder of `vjepa probe`, a probe file of Meta's, or a folder of transformers' or `vjepa convert`.
        encoder: Its encoder; needed if the probe's file neither holds one nor says where it is.
        labels: Names of the classes, as for `read_labels`, instead of those in the probe's file.
        protocol_name: How the clips of a released probe are cut (default: the protocol in its name).
        layers: Blocks whose tokens a released probe reads (default: the protocol's).
        probe_class: Class path of your own probe class, if the folder names one.
        device: Where to put both (default: CPU).

    Raises:
        ProbeError: If something is missing, or does not fit.
    """
    if holds_probe(probe):
        if protocol_name is not None or layers is not None:
            raise ProbeError(
                f"{probe} was written by `vjepa probe` and describes itself: drop --protocol and --layers."
            )
        classifier = _trained_here(probe, encoder, labels, probe_class)
    else:
        classifier = _released(probe, encoder, labels, protocol_name, layers)
    classifier.encoder.to(device or "cpu").eval()
    classifier.head.to(device or "cpu").eval()
    return classifier


def _trained_here(
    probe: Path, encoder: str | None, labels: str | None, probe_class: str | None
) -> Classifier:
    head, card = open_probe(probe, probe_class=probe_class)
    if (wrong := damage(probe / WEIGHTS)) is not None:  # takes 1 % of the digest of the encoder
        raise ProbeError(f"{probe / WEIGHTS} is damaged: {wrong}. Copy it again, or train it again.")
    if isinstance(head, AnticipationProbe):
        raise _anticipates(probe)
    path = encoder or str(probe / card.encoder.path)  # an absolute path does not change
    if encoder is None and not Path(path).exists():
        raise ProbeError(f"the encoder of this probe is no longer at {path}. Name its place with --encoder.")
    model = load_encoder(path)
    card.encoder.check(model, path)
    return Classifier(
        encoder=model,
        head=head,
        label_names=names_for(len(card.label_names), card.label_names, labels, probe),
        kind=card.kind,
        spec=card.clip,
    )


def _released(
    probe: Path, encoder: str | None, labels: str | None, name: str | None, layers: Sequence[int] | None
) -> Classifier:
    if not probe.exists():
        raise ProbeError(
            f"{probe}: no such probe. Give a folder of `vjepa probe --out`, or a released probe."
        )
    source = open_checkpoint(probe)
    if "probe" not in source.networks:
        raise ProbeError(
            f"{source.absent('probe')} Give a probe: of `vjepa probe`, Meta's, or transformers'."
        )
    if class_in(source, {}) is AnticipationProbe:
        raise _anticipates(probe)
    model = _encoder_of(source, encoder)
    is_known = "num_heads" in source.arguments("probe", {})
    heads = {} if is_known else {"num_heads": model.config["num_heads"]}  # V-JEPA's probes have the encoder's
    head = load_network(source, "probe", AttentiveProbe, heads)
    if head.config["embed_dim"] != model.embed_dim:
        raise ProbeError(
            f"{probe} reads tokens of width {head.config['embed_dim']}, {encoder or probe} gives {model.embed_dim}. "
            "Give the encoder it was trained on with --encoder."
        )
    named = protocol_named_by(probe.name, depth=head.config["depth"])
    default = Protocol(None, 1, 1, num_frames=model.config["num_frames"])  # the middle, every fourth frame
    plan = protocol(name) if name is not None else named[1] if named else default
    return Classifier(
        encoder=model,
        head=head,
        label_names=names_for(head.config["num_classes"], source.label_names, labels, probe),
        kind=f"released depth-{head.config['depth']}",
        spec=plan.spec(model, layers=None if layers is None else tuple(layers)),
    )


def _anticipates(probe: Path) -> ProbeError:
    return ProbeError(
        f"{probe} anticipates verbs and nouns, and needs a predictor. Use `vjepa.load_probe` and "
        "`vjepa.probes.anticipate`."
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
