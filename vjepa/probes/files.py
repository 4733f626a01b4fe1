"""A trained probe in a folder: `probe.safetensors`, and `config.json` with its class, clips, labels and encoder.

Folders from before ClipSpec have a `probe.json` instead and are still read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vjepa.checkpoints.strict import nonfinite
from vjepa.features.clip_spec import ClipSpec, spec_of_old_probe
from vjepa.files import write_tensors, write_text
from vjepa.models import Predictor, VideoEncoder
from vjepa.models.files import CONFIG, FORMAT, weights_digest
from vjepa.probes.anticipation.probe import AnticipationProbe
from vjepa.probes.base import Probe, ProbeError, Standardize, StandardizedProbe
from vjepa.probes.kinds import class_path_of, is_built_in, probe_class_of
from vjepa.readers import UNEXPECTED, read_json

WEIGHTS, OLD_CARD = "probe.safetensors", "probe.json"
ANTICIPATION = "anticipation"
AnyProbe = Probe | AnticipationProbe


@dataclass(frozen=True)
class NetworkReference:
    """A frozen network that a probe reads: its path, a digest of its weights, and its arguments."""

    path: str
    digest: str
    config: dict[str, Any]

    @classmethod
    def of(cls, network: VideoEncoder | Predictor, path: str) -> NetworkReference:
        """Return the reference of a network that lies at `path`."""
        return cls(path=path, digest=weights_digest(network), config=dict(network.config))

    def check(self, network: nn.Module, path: str) -> None:
        """Check that a network is the one that the probe was trained on.

        Raises:
            ProbeError: If its weights differ.
        """
        if weights_digest(network) != self.digest:
            raise ProbeError(
                f"{path} is not the encoder this probe was trained on: its weights differ. "
                "Give that one with --encoder, or train a probe on this one."
            )


@dataclass(frozen=True)
class ProbeCard:
    """What a probe's folder says beside its weights.

    `kind` as given to `vjepa probe --probe`; `label_names` in the order of the class ids; `clip` says how a video of
    the test becomes clips; `encoder` is the network whose tokens it reads. An anticipation probe also has a `predictor`
    and `task_names`, the names of its verbs, nouns and actions. `recipe` is how it was trained.
    """

    kind: str
    label_names: tuple[str, ...]
    clip: ClipSpec
    encoder: NetworkReference
    predictor: NetworkReference | None = None
    task_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the entries of the folder's `config.json`."""
        entries = {
            "kind": self.kind,
            "label_names": list(self.label_names),
            "clip": self.clip.to_json(),
            "reads_encoder": asdict(self.encoder),
            "reads_predictor": None if self.predictor is None else asdict(self.predictor),
            "task_names": {task: list(names) for task, names in self.task_names.items()},
            "recipe": self.recipe,
        }
        return {name: value for name, value in entries.items() if value not in (None, {})}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ProbeCard:
        """Return the card that `to_json` wrote."""
        predictor = content.get("reads_predictor")
        return cls(
            kind=content["kind"],
            label_names=tuple(content["label_names"]),
            clip=ClipSpec.from_json(content["clip"]),
            encoder=NetworkReference(**content["reads_encoder"]),
            predictor=None if predictor is None else NetworkReference(**predictor),
            task_names={task: tuple(names) for task, names in content.get("task_names", {}).items()},
            recipe=dict(content.get("recipe", {})),
        )


def check_free(folder: Path) -> None:
    """Check that a probe can be written to a folder without replacing the config of other networks.

    Raises:
        ProbeError: If networks lie there.
    """
    others = sorted(file.name for file in folder.glob("*.safetensors") if file.name != WEIGHTS)
    if others and (folder / CONFIG).exists():
        raise ProbeError(f"{folder} holds {', '.join(others)}. Give another folder for the probe as --out.")


def save_probe(folder: Path, probe: AnyProbe, card: ProbeCard) -> None:
    """Write a probe to `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "probe": _arguments(probe, len(card.label_names)), **card.to_json()}
    write_tensors(probe.state_dict(), folder / WEIGHTS)
    write_text(json.dumps(content, indent=2), folder / CONFIG)
    (folder / OLD_CARD).unlink(missing_ok=True)


def holds_probe(folder: Path) -> bool:
    """Return whether a folder holds a probe that `vjepa probe` wrote, of any age."""
    try:
        return (folder / OLD_CARD).is_file() or "clip" in _read(folder / CONFIG)
    except (OSError, ValueError, TypeError):
        return False


def open_probe(
    folder: Path, *, probe_class: str | None = None, allow_nonfinite: bool = False
) -> tuple[AnyProbe, ProbeCard]:
    """Return a probe that `vjepa probe` wrote, in eval mode, and its card.

    A class of a user's own that the folder names is refused unless `probe_class` names it too.

    Raises:
        ProbeError: If the folder holds no such probe, or one that is damaged.
    """
    name = OLD_CARD if (folder / OLD_CARD).is_file() else CONFIG
    try:
        content = _read(folder / name)
        if name == OLD_CARD:
            content = _updated(content)
        card = ProbeCard.from_json(content)
        tensors = load_file(folder / WEIGHTS)
        depth = content["probe"].get("depth")
        if isinstance(depth, int) and depth > len(tensors):  # the blocks would be built, to be compared
            raise ProbeError(f"{folder / name}: depth {depth}, of {len(tensors)} tensors. Train it again.")
        with torch.device("meta"):
            probe = build_probe(probe_class, **content["probe"])
    except FileNotFoundError as error:
        raise ProbeError(
            f"{folder} has no {CONFIG} with {WEIGHTS} beside it. Give a folder written by `vjepa probe --out`."
        ) from error
    except ProbeError:
        raise
    except (*UNEXPECTED, SafetensorError) as error:
        raise ProbeError(f"{folder} holds a damaged probe ({error}). Train it again.") from error
    classes = content["probe"].get("num_classes")
    if classes not in (None, len(card.label_names)):
        raise ProbeError(
            f"{folder / WEIGHTS} does not fit its {name}: {classes} classes, {len(card.label_names)} names. Train it "
            "again."
        )
    _fill(probe, tensors, folder, name)
    if not allow_nonfinite and (bad := nonfinite(tensors)):
        raise ProbeError(
            f"{folder / WEIGHTS}: NaN or infinite numbers in {', '.join(bad[:4])}. Train it again."
        )
    return probe.eval(), card


def build_probe(
    trusted: str | None, /, *, class_path: str | None = None, standardized: bool = False, **arguments: Any
) -> AnyProbe:
    """Return a new probe as a `config.json` describes it.

    Args:
        trusted: Class path that may be imported though it is not of this package: a file must not run code. It has no
            name that a file could give.
        class_path: Its class, or a kind of `vjepa probe`; without one, the arguments tell it.
        standardized: Put a standardisation before it.
        **arguments: Arguments of the class.
    """
    if class_path is None:
        class_path = "attentive"
        if "num_verbs" in arguments:
            return AnticipationProbe(**arguments)
    if not is_built_in(class_path) and class_path != trusted:
        raise ProbeError(
            f"the folder names the class {class_path}, which would be imported. If you trust it, name it with "
            f"--probe_class {class_path} (in Python, probe_class=...)."
        )
    probe = probe_class_of(class_path)(**arguments)
    if not standardized:
        return probe
    return StandardizedProbe(Standardize(embed_dim=arguments["embed_dim"]), probe)


def _arguments(probe: AnyProbe, num_classes: int) -> dict[str, Any]:
    """Return the arguments with which `build_probe` makes a probe of the same shape."""
    if isinstance(probe, AnticipationProbe):
        return dict(probe.config)
    inner, standardized = probe, isinstance(probe, StandardizedProbe)
    config: dict[str, Any] = {"num_classes": num_classes}
    if isinstance(probe, StandardizedProbe):
        inner, config["embed_dim"] = probe.probe, len(probe.standardize.mean)
    config = dict(getattr(inner, "config", config))
    return {"class_path": class_path_of(inner), "standardized": standardized, **config}


def _read(file: Path) -> dict[str, Any]:
    return read_json(file)


def _updated(old: dict[str, Any]) -> dict[str, Any]:
    """Return the content of an old `probe.json` as a `config.json` says it."""
    if old["kind"] == ANTICIPATION:
        return _updated_anticipation(old)
    sizes = {"embed_dim": old["embed_dim"], "num_classes": len(old["label_names"])}
    if old["kind"] in ("attentive", "finetune"):
        sizes |= {"num_heads": old["num_heads"], "depth": old["depth"]}
    encoder = {name: old[name] for name in ("encoder", "encoder_digest", "encoder_config")}
    return {
        "kind": old["kind"],
        "probe": {"class_path": old["kind"], "standardized": True, **sizes, **old.get("options", {})},
        "label_names": old["label_names"],
        "clip": spec_of_old_probe(old).to_json(),
        "reads_encoder": dict(zip(("path", "digest", "config"), encoder.values(), strict=True)),
    }


def _updated_anticipation(old: dict[str, Any]) -> dict[str, Any]:
    recipe = old["recipe"]
    size = recipe["size"]
    height, width = (size, size) if isinstance(size, int) else size
    clip = ClipSpec(num_frames=recipe["num_frames"], fps=recipe["fps"], size=(height, width))
    return {
        "kind": ANTICIPATION,
        "probe": old["arguments"],
        "label_names": old["action_names"],
        "clip": clip.to_json(),
        "reads_encoder": {"path": old["encoder"], "digest": old["encoder_digest"], "config": {}},
        "reads_predictor": {"path": old["predictor"], "digest": old["predictor_digest"], "config": {}},
        "task_names": {task: old[f"{task}_names"] for task in ("verb", "noun", "action")},
        "recipe": recipe,
    }


def _fill(probe: nn.Module, tensors: Mapping[str, Tensor], folder: Path, card: str) -> None:
    expected = {name: tensor.shape for name, tensor in probe.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if differing := sorted({name for name, _ in expected.items() ^ found.items()}):
        raise ProbeError(
            f"{folder / WEIGHTS} does not fit its {card}: {', '.join(differing[:4])}. Train it again."
        )
    probe.load_state_dict(tensors, assign=True)
