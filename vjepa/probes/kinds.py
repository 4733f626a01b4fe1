"""The kinds of probes by name, and classes of one's own by class path."""

from __future__ import annotations

from importlib import import_module
from typing import Literal, get_args

from vjepa.errors import did_you_mean
from vjepa.probes.attentive import AttentiveProbe
from vjepa.probes.base import Probe, ProbeError
from vjepa.probes.knn import KnnProbe
from vjepa.probes.linear import LinearProbe

ProbeKind = Literal["linear", "attentive", "knn", "finetune"]
KINDS = get_args(ProbeKind)
CLASSES: dict[str, type[Probe]] = {
    "linear": LinearProbe,
    "attentive": AttentiveProbe,
    "knn": KnnProbe,
    "finetune": AttentiveProbe,
}


def probe_class_of(kind: str) -> type[Probe]:
    """Return the class of a kind of probe, or of a class path.

    >>> probe_class_of("knn") is probe_class_of("vjepa.probes.KnnProbe")
    True

    Raises:
        ProbeError: If there is no such kind or class.
    """
    if kind in CLASSES:
        return CLASSES[kind]
    module, _, name = kind.rpartition(".")
    if not module:
        raise ProbeError(
            f"no probe {kind!r}; the nearest is {did_you_mean(kind, KINDS)!r}. Give one of {', '.join(KINDS)}, or "
            "the class path of a Probe, like my_package.MyProbe."
        )
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ProbeError(
            f"probe {kind} cannot be imported: {error}. Run the command where Python finds {module}."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Probe)):
        raise ProbeError(f"{kind} is not a subclass of vjepa.probes.Probe. Give the class path of one.")
    return found


def is_built_in(class_path: str) -> bool:
    """Return whether a kind or class path names a probe of this package.

    >>> is_built_in("knn"), is_built_in("vjepa.probes.KnnProbe"), is_built_in("my_probe.MaxProbe")
    (True, True, False)
    """
    return class_path in CLASSES or class_path in {
        f"vjepa.probes.{each.__name__}" for each in CLASSES.values()
    }


def class_path_of(probe: Probe) -> str:
    """Return where a probe's class can be imported from; a class of this package has a short path that stays.

    >>> class_path_of(LinearProbe(embed_dim=1, num_classes=2))
    'vjepa.probes.LinearProbe'
    """
    kind = type(probe)
    module = "vjepa.probes" if kind in CLASSES.values() else kind.__module__
    return f"{module}.{kind.__qualname__}"


def check_kind(kind: str) -> None:
    """Check that a probe to train is a kind, or a class of one's own.

    Raises:
        ProbeError: If it is neither, or the class of a kind, which is trained in its own way.
    """
    found = probe_class_of(kind)
    for name, probe_class in CLASSES.items():
        if kind not in CLASSES and probe_class is found:
            raise ProbeError(f"{kind} is a built-in probe. Give its kind, {name!r}.")
