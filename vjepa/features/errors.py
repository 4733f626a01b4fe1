"""The error of this room."""

from __future__ import annotations


class FeaturesError(ValueError):
    """Features that cannot be made, or a folder that does not hold those asked for; the message says what to do."""
