"""The verbs of probes as functions of flags, as the command line gives them."""

from vjepa.commands import classify as _classify
from vjepa.commands import probe as _probe
from vjepa.commands.flags import grouped
from vjepa.commands.report import Report


def probe(**flags) -> Report:
    """Run `vjepa probe` with flags by name, those of groups included."""
    return _probe.probe(**grouped(_probe.probe, flags))


def classify(**flags) -> Report:
    """Run `vjepa classify` with flags by name, those of groups included."""
    return _classify.classify(**grouped(_classify.classify, flags))
