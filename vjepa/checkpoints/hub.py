"""Names of models on the Hugging Face Hub, such as `facebook/vjepa2-vitl-fpc64-256`."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from vjepa.checkpoints.strict import CheckpointError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SIMILAR = 0.7  # of two names of folders: "rusn" and "runs" have 0.75
FILE_SUFFIXES = (".ckpt", ".pt", ".pth", ".tar", ".safetensors")
FILES = ["config.json", "*.safetensors", "model.safetensors.index.json", "vjepa.json"]


def is_hub_name(name: str) -> bool:
    """Return whether `name` has the form `owner/model`, and no local folder is called `owner` or almost so.

    >>> is_hub_name("facebook/vjepa2-vitl-fpc64-256"), is_hub_name("runs/last.ckpt")
    (True, False)
    """
    named = re.fullmatch(NAME, name) is not None and not name.endswith(FILE_SUFFIXES)
    return named and not Path(name).parent.exists() and nearest_folder(name) is None


def nearest_folder(name: str) -> Path | None:
    """Return the local folder that the first part of a path that does not exist most likely meant, if there is one."""
    first, *rest = Path(name).parts
    folders = [each.name for each in Path.cwd().iterdir() if each.is_dir()]
    near = get_close_matches(first, folders, n=1, cutoff=SIMILAR)
    return Path(near[0], *rest) if near else None


def download(name: str) -> Path:
    """Return the folder of a model on the Hub, from the cache or the network.

    Raises:
        CheckpointError: If it cannot be downloaded; the message says what to download by hand.
    """
    by_hand = (
        f"Download config.json and every .safetensors file of https://huggingface.co/{name} into one folder and "
        "give its path"
    )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{name} is not a file or folder here. {by_hand}, or install the downloader: "
            'pip install "vjepa-toolkit[hf]".'
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except (OSError, ValueError) as error:  # offline, no such model, no access
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{name} is not a file or folder here and cannot be downloaded ({reason}). {by_hand}."
        ) from error
