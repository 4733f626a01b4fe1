"""What stops an extraction."""

from __future__ import annotations


class ExtractionError(ValueError):
    """Features that cannot be taken, or a folder of other features; the message says what to do."""
