"""Probes: what frozen features know, measured with labels."""

from vjepa.probes.anticipation.ek100 import Action, ActionIds, anticipation_indices, class_mean_recall
from vjepa.probes.anticipation.probe import (
    ActionScores,
    AnticipationProbe,
    anticipate,
    anticipation_loss,
    sigmoid_focal_loss,
)
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, ProbeError, Standardize, StandardizedProbe
from vjepa.probes.classifier import Classifier, open_classifier
from vjepa.probes.clips import AugmentedClips, ClipPlan, eval_clips
from vjepa.probes.features import Features, extract_features, random_init_like
from vjepa.probes.fitting.selection import fit_probe
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.linear import LinearProbe
from vjepa.probes.protocols import PROTOCOLS, Protocol
from vjepa.probes.released import load_probe
from vjepa.probes.results import ProbeKind, ProbeResult, Progress
from vjepa.probes.views import ClipLayout, join_segments, mean_probabilities, view_tokens

__all__ = [
    "PROTOCOLS",
    "Action",
    "ActionIds",
    "Classifier",
    "Protocol",
    "anticipation_indices",
    "class_mean_recall",
    "open_classifier",
    "ActionScores",
    "AnticipationProbe",
    "AttentiveProbe",
    "AugmentedClips",
    "ClipLayout",
    "ClipPlan",
    "Features",
    "LinearProbe",
    "Probe",
    "ProbeError",
    "ProbeKind",
    "ProbeResult",
    "ProbeSettings",
    "Progress",
    "Standardize",
    "StandardizedProbe",
    "anticipate",
    "anticipation_loss",
    "eval_clips",
    "extract_features",
    "fit_probe",
    "join_segments",
    "load_probe",
    "mean_probabilities",
    "random_init_like",
    "sigmoid_focal_loss",
    "view_tokens",
]
