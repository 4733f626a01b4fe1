"""Pictures of masks, tokens and runs."""

from vjepa.visualize.curves import learning_curves
from vjepa.visualize.masks import mask_picture
from vjepa.visualize.pca import pca_picture
from vjepa.visualize.run import run_picture

__all__ = ["learning_curves", "mask_picture", "pca_picture", "run_picture"]
