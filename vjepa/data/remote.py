"""Paths that are URLs."""

from __future__ import annotations


def is_url(path: str) -> bool:
    """Whether `path` is a URL such as `s3://bucket/a.mp4`, to be kept as written.

    >>> is_url("s3://bucket/a.mp4"), is_url("C:/clips/a.mp4")
    (True, False)
    """
    scheme, found, _ = path.partition("://")
    return bool(found) and scheme.replace("+", "").replace("-", "").replace(".", "").isalnum()
