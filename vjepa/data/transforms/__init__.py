"""From frames to pixels: crops, flips, views and augmentations."""
