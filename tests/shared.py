"""Where the shared reference material lies, for the tests that only it can serve; they are skipped without it."""

import os
from pathlib import Path


def shared_dir() -> Path | None:
    """The folder of shared material: $VJEPA_SHARED, or `../shared` beside the checkout, or None."""
    named = os.environ.get("VJEPA_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if folder.is_dir() else None
