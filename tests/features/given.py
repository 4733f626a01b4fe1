"""The verb `extract` with its flags as they are typed."""

from vjepa.commands import extract as verb
from vjepa.commands.flags import grouped


def extract(**flags):
    """What `vjepa extract` does with these flags."""
    return verb.extract(**grouped(verb.extract, flags))
