"""The verb `extract` with the flags of the command line."""

from vjepa.commands import extract as verb
from vjepa.commands.flags import grouped


def extract(**flags):
    """Run `vjepa extract` with these flags."""
    return verb.extract(**grouped(verb.extract, flags))
