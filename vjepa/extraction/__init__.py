"""Frozen features of videos."""

from vjepa.extraction.preprocessing import ClipToInput, default_transform

__all__ = ["ClipToInput", "default_transform"]
