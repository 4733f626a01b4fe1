"""An encoder in a folder, and videos to take features of."""

import pytest
import torch

import vjepa
from tests.videos import write_manifest, write_video


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return the path of a small encoder of 4 frames."""
    torch.manual_seed(1)
    settings = {"img_size": 16, "patch_size": 8, "num_frames": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    network = vjepa.VideoEncoder(**settings).eval()
    return str(network.save_pretrained(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Return a manifest of ten short videos of two classes."""
    return str(write_manifest(tmp_path_factory.mktemp("ten"), 10, num_frames=12, height=32, width=32))


@pytest.fixture(scope="session")
def long_video(tmp_path_factory):
    """Return a video of 20 seconds."""
    return write_video(tmp_path_factory.mktemp("long") / "long.mp4", num_frames=160, height=32, width=32)
