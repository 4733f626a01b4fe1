"""The device on which probes and their encoders compute."""

from __future__ import annotations

from typing import Literal

import torch

from vjepa.probes.base import ProbeError

Device = Literal["auto", "cpu", "cuda"]


def device_of(device: Device) -> torch.device:
    """Return the device of that name; "auto" is a GPU if there is one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ProbeError("device cuda: torch finds no GPU on this machine. Give --device cpu or auto.")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
