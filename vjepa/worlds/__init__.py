"""Generated videos: a small physical world, drawn to real mp4 files with labels."""

from vjepa.worlds.world import WorldConfig, WorldError, generate

__all__ = ["WorldConfig", "WorldError", "generate"]
