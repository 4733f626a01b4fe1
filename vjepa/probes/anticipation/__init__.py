"""Anticipation of actions on EPIC-KITCHENS-100, as V-JEPA 2 is tested (arXiv 2506.09985)."""
