"""One decoder backend per file."""
