"""What stops an extraction."""

from __future__ import annotations

from vjepa.errors import VjepaError


class ExtractionError(VjepaError, ValueError):
    """Features that cannot be taken, or a folder of other features; the message says what to do."""
