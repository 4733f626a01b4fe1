"""Schedules, parameter groups and moving averages."""

from vjepa.optim.batch_rules import HalfLife, LrRule
from vjepa.optim.ema import EmaPair, ema_distance, ema_update, gathered
from vjepa.optim.param_groups import decay_groups
from vjepa.optim.schedules import Constant, Cosine, Linear, Schedule, WarmupCosine, WarmupStableDecay

__all__ = [
    "Constant",
    "Cosine",
    "EmaPair",
    "HalfLife",
    "Linear",
    "LrRule",
    "Schedule",
    "WarmupCosine",
    "WarmupStableDecay",
    "decay_groups",
    "ema_distance",
    "ema_update",
    "gathered",
]
