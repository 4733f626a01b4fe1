"""Probes: what frozen features know, measured with labels."""

from vjepa.probes.anticipation import (
    ActionScores,
    AnticipationProbe,
    anticipate,
    anticipation_loss,
    sigmoid_focal_loss,
)
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, ProbeError, Standardize, StandardizedProbe
from vjepa.probes.clips import AugmentedClips, ClipPlan, eval_clips
from vjepa.probes.epic import Action, ActionIds, anticipation_indices, class_mean_recall
from vjepa.probes.features import Features, extract_features, random_twin
from vjepa.probes.linear import LinearProbe
from vjepa.probes.namer import Namer, open_namer
from vjepa.probes.protocol import fit_probe
from vjepa.probes.protocols import PROTOCOLS, Protocol
from vjepa.probes.released import load_probe
from vjepa.probes.results import ProbeKind, ProbeResult, Progress
from vjepa.probes.trials import ProbeSettings
from vjepa.probes.views import ClipLayout, join_segments, mean_probabilities, view_tokens

__all__ = [
    "PROTOCOLS",
    "Action",
    "ActionIds",
    "Namer",
    "Protocol",
    "anticipation_indices",
    "class_mean_recall",
    "open_namer",
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
    "random_twin",
    "sigmoid_focal_loss",
    "view_tokens",
]
