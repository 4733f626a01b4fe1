"""Probes: what a frozen encoder's features contain, measured with labels."""

from vjepa.features.encode import join_segments, view_tokens
from vjepa.probes.anticipation.ek100_annotations import (
    Action,
    ActionIds,
    anticipation_indices,
    class_mean_recall,
)
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
from vjepa.probes.clips import AugmentedClips, eval_clips, training_clips
from vjepa.probes.fitting.selection import fit_probe
from vjepa.probes.fitting.trials import LabelledTokens, ProbeSettings
from vjepa.probes.kinds import ProbeKind
from vjepa.probes.knn import KnnProbe
from vjepa.probes.linear import LinearProbe
from vjepa.probes.protocols import PROTOCOLS, Protocol
from vjepa.probes.random_init import random_init_like
from vjepa.probes.released import load_probe
from vjepa.probes.results import ProbeResult, Progress, mean_probabilities

__all__ = [
    "PROTOCOLS",
    "Action",
    "ActionIds",
    "ActionScores",
    "AnticipationProbe",
    "AttentiveProbe",
    "AugmentedClips",
    "Classifier",
    "KnnProbe",
    "LabelledTokens",
    "LinearProbe",
    "Probe",
    "ProbeError",
    "ProbeKind",
    "ProbeResult",
    "ProbeSettings",
    "Progress",
    "Protocol",
    "Standardize",
    "StandardizedProbe",
    "anticipate",
    "anticipation_indices",
    "anticipation_loss",
    "class_mean_recall",
    "eval_clips",
    "fit_probe",
    "join_segments",
    "load_probe",
    "mean_probabilities",
    "open_classifier",
    "random_init_like",
    "sigmoid_focal_loss",
    "training_clips",
    "view_tokens",
]
