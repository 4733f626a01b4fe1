"""The error of `vjepa.features`."""

from __future__ import annotations

from vjepa.errors import VjepaError


class FeaturesError(VjepaError, ValueError):
    """Features that cannot be made, or a folder that does not hold those asked for; the message says what to do."""
