"""Strict loading: a network takes tensors that fit it key by key, or an error says which do not fit."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vjepa.errors import VjepaError

Network = TypeVar("Network", bound=nn.Module)
NUMBERED = re.compile(r"^(?P<stem>.*?)\.(?P<number>\d+)(?P<leaf>\..*)?$")
FEW = 4  # names in a message
TYPES = ("float32", "bfloat16", "float16", "float64")
MANY_LEAVES = 2  # keys of a module that are named; more are counted


class CheckpointError(VjepaError, ValueError):
    """A checkpoint that cannot be used, and the reason; nothing was loaded."""


@contextmanager
def read_from(path: str | Path) -> Iterator[None]:
    """Name the checkpoint in any error while it is read: a foreign file may hold anything.

    Raises:
        CheckpointError: In place of the errors that Python or torch raise for unexpected values.
    """
    try:
        yield
    except (CheckpointError, FileNotFoundError):
        raise
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError),
        *(RuntimeError, OSError, EOFError),
    ) as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read: {reason} ({type(error).__name__}). Compare it with what `vjepa inspect` shows, "
            "or download it again."
        ) from error


def type_diff(tensors: Mapping[str, Tensor]) -> str:
    """Return the tensors that are not dense floats, or differ in dtype from most; empty if all fit.

    >>> type_diff({"a": torch.zeros(1), "b": torch.zeros(1), "c": torch.zeros(1, dtype=torch.int32)})
    'other type: c is int32, most are float32'
    """
    found = {key: t.dtype if t.layout == torch.strided else t.layout for key, t in tensors.items()}
    kinds = {key: str(kind).removeprefix("torch.") for key, kind in found.items()}
    if not kinds:
        return ""
    usual = Counter(kinds.values()).most_common(1)[0][0]
    if usual not in TYPES:
        return f"type {usual}: weights are {', '.join(TYPES)}"
    wrong = defaultdict(list)
    for key, kind in kinds.items():
        if kind != usual:
            wrong[kind].append(key)
    return "; ".join(
        f"other type: {few(grouped(keys))} is {kind}, most are {usual}" for kind, keys in wrong.items()
    )


def key_diff(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return the keys that do not fit, by kind of fault, with numbered modules grouped; empty if all fit.

    >>> key_diff({"norm.bias": torch.zeros(2)}, {"norm.bias": torch.zeros(3), "extra": torch.zeros(1)})
    'not expected: extra; other shape: norm.bias is (3,), expected (2,)'
    """
    shapes: dict[str, list[str]] = defaultdict(list)
    for key in expected:
        if key in found and found[key].shape != expected[key].shape:
            shapes[f" is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"].append(key)
    kinds = {
        "missing": grouped(k for k in expected if k not in found),
        "not expected": grouped(k for k in found if k not in expected),
        "other shape": [f"{name}{sizes}" for sizes, keys in shapes.items() for name in grouped(keys)],
    }
    return "; ".join(f"{kind}: {few(names)}" for kind, names in kinds.items() if names)


def grouped(keys: Iterable[str]) -> list[str]:
    """Group the keys of numbered modules.

    >>> grouped(["norm.bias", "blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.bias"])
    ['norm.bias', 'blocks.0-1.attn.qkv.bias (2)']
    """
    plain: list[str] = []
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for key in keys:
        match = NUMBERED.match(key)
        if match is None:
            plain.append(key)
        else:
            numbers[match["stem"], match["leaf"] or ""].append(int(match["number"]))
    modules: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for (stem, leaf), found in numbers.items():
        modules[stem, _ranges(found), len(found)].append(leaf)
    for (stem, span, count), leaves in modules.items():
        if len(leaves) > MANY_LEAVES:
            plain.append(f"{stem}.{span} ({count * len(leaves)} keys)")
        else:
            plain += [f"{stem}.{span}{leaf}" + (f" ({count})" if count > 1 else "") for leaf in leaves]
    return plain


def few(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    rest = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + rest


def keywords_that_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return arguments with which the keys would fit, such as ["depth=24"]."""
    hints = []
    for stem, name, shift in (
        ("blocks", "depth", 0),
        ("predictor_blocks", "depth", 0),
        ("pooler.blocks", "depth", 1),
        ("mask_tokens", "num_mask_tokens", 0),
    ):
        here, there = count_modules(found, stem), count_modules(expected, stem)
        if here and here != there:
            hints.append(f"{name}={here + shift}")
    for key, axis, name in (
        ("norm.weight", 0, "embed_dim"),
        ("predictor_norm.weight", 0, "embed_dim"),
        ("predictor_proj.weight", 0, "encoder_dim"),
        ("patch_embed.proj.weight", 2, "tubelet_size"),
        ("patch_embed.proj.weight", 3, "patch_size"),
        ("linear.weight", 0, "num_classes"),
    ):
        sizes = [tensors[key].shape[axis : axis + 1] for tensors in (expected, found) if key in tensors]
        if len(sizes) == 2 and sizes[0] != sizes[1]:
            hints.append(f"{name}={sizes[1][0]}")
    if "pos_embed" in expected.keys() ^ found.keys():
        hints.append("position='sincos'" if "pos_embed" in found else "position='rope'")
    elif "pos_embed" in found and found["pos_embed"].shape != expected["pos_embed"].shape:
        hints.append("img_size and num_frames")
    return hints + _mlp_ratio(expected, found)


def count_modules(keys: Iterable[str], stem: str) -> int:
    """Return the number of modules `stem.0`, `stem.1`, ...: one more than the highest number.

    >>> count_modules(["blocks.0.norm1.bias", "blocks.11.norm1.bias"], "blocks")
    12
    """
    pattern = re.compile(rf"{re.escape(stem)}\.(\d+)(\.|$)")
    return 1 + max((int(match[1]) for match in map(pattern.match, keys) if match), default=-1)


def nonfinite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of tensors that hold NaN or an infinite number.

    >>> nonfinite({"norm.bias": torch.tensor([0.0, torch.nan]), "norm.weight": torch.ones(2)})
    ['norm.bias']
    """
    # a finite sum has finite terms, and takes a tenth of the time; the sum of finite numbers may overflow
    return [key for key, t in tensors.items() if not (t.sum().isfinite() or t.isfinite().all())]


def fill(
    model_class: Callable[..., Network],
    arguments: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    allow_missing: Sequence[str] = (),
    allow_nonfinite: bool = False,
) -> Network:
    """Build a network in eval mode that holds the given tensors, which are not copied.

    `source` names their origin in messages. Keys in `allow_missing` are missing and keep the values of a new network.

    Raises:
        CheckpointError: If the arguments, a key or a shape do not fit, or a tensor holds NaN or an infinite number and
            `allow_nonfinite` is False.
    """
    name = getattr(model_class, "__name__", "network")
    # JSON has no tuples
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    if isinstance(allow_missing, str):
        raise CheckpointError(f"allow_missing is {allow_missing!r}. Give a list of keys.")
    _check_counts(arguments, len(tensors) + len(allow_missing), f"{source} does not fit its {name}")
    try:
        with torch.device("meta"):
            model = model_class(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: its config does not fit {name}: {error}") from error
    expected = model.state_dict()
    if wrong := [key for key in allow_missing if key not in expected or key in tensors]:
        reason = "not missing" if wrong[0] in tensors else "not a key"
        raise CheckpointError(
            f"{source}: allow_missing names {few(wrong)}, which is {reason}. Name only keys that are missing."
        )
    needed = {k: v for k, v in expected.items() if k not in allow_missing}
    if diff := key_diff(needed, tensors):
        hints = keywords_that_fit(needed, tensors)
        advice = f" Give {few(hints)} if that is what it holds." if hints else ""
        raise CheckpointError(f"{source} does not fit its {name}: {diff}.{advice}")
    learned = {name: tensors[name] for name, _ in model.named_parameters() if name in tensors}
    if diff := type_diff(learned):  # a table of positions may have a finer dtype than the weights
        raise CheckpointError(f"{source} does not fit its {name}: {diff}. Save all in one type.")
    if not allow_nonfinite and (bad := nonfinite(tensors)):
        raise CheckpointError(
            f"{source}: NaN or infinite numbers in {few(grouped(bad))} of its {name}. Copy the file again, or use an "
            "earlier checkpoint; allow_nonfinite accepts it."
        )
    tensors = dict(tensors)
    if allow_missing:
        fresh = model_class(**arguments).state_dict()
        tensors |= {key: fresh[key] for key in allow_missing}
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _check_counts(arguments: Mapping[str, Any], most: int, where: str) -> None:
    """Raise `CheckpointError` if a config asks for more modules than there are tensors; they would all be built."""
    for argument, things in (
        ("depth", "blocks"),
        ("num_mask_tokens", "mask tokens"),
        ("num_levels", "levels"),
    ):
        count = arguments.get(argument, 0)
        if isinstance(count, int) and count > most:
            raise CheckpointError(f"{where}: it should have {count} {things}, and has {most} tensors in all.")


def _mlp_ratio(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    keys = [key for key in expected if key.endswith("mlp.fc1.weight") and key in found]
    ratios = {found[key].shape[0] / found[key].shape[1] for key in keys}
    wanted = {expected[key].shape[0] / expected[key].shape[1] for key in keys}
    return [f"mlp_ratio={ratios.pop():g}"] if len(ratios) == 1 and ratios != wanted else []


def _ranges(numbers: Iterable[int]) -> str:
    """Return numbers as spans: `0-3,7`."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in run] for _, run in runs]
    return ",".join(f"{s[0]}-{s[-1]}" if len(s) > 1 else str(s[0]) for s in spans)
