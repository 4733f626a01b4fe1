"""WebDataset tar shards: writing them, and reading them as streams."""
