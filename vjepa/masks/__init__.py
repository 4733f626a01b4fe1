"""Mask strategies: which tokens are visible and which are predicted."""

from vjepa.masks.base import MaskStrategy
from vjepa.masks.causal import Causal
from vjepa.masks.image_blocks import ImageBlocks
from vjepa.masks.random_tubes import RandomTubes
from vjepa.masks.tube_blocks import TubeBlocks

__all__ = ["Causal", "ImageBlocks", "MaskStrategy", "RandomTubes", "TubeBlocks"]
