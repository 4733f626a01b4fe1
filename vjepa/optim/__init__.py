"""Schedules, parameter groups, moving averages, weights in halves."""

from vjepa.optim.batch_rules import HalfLife, LrRule
from vjepa.optim.ema import EmaPair, ema_distance, ema_update, gathered
from vjepa.optim.halves import exact, halve, in_halves
from vjepa.optim.param_groups import decay_groups
from vjepa.optim.schedules import Constant, Cosine, Linear, Schedule, WarmupCosine, WarmupStableDecay
from vjepa.optim.split_adamw import SplitAdamW

__all__ = [
    "Constant",
    "Cosine",
    "EmaPair",
    "HalfLife",
    "Linear",
    "LrRule",
    "Schedule",
    "SplitAdamW",
    "WarmupCosine",
    "WarmupStableDecay",
    "decay_groups",
    "ema_distance",
    "ema_update",
    "exact",
    "gathered",
    "halve",
    "in_halves",
]
