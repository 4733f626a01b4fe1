"""Generated videos: a small physical world, rendered to mp4 files with labels."""

from vjepa.worlds.world import WorldConfig, WorldError, generate

__all__ = ["WorldConfig", "WorldError", "generate"]
