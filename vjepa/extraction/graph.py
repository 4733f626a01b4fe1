"""Approximate nearest neighbours: a graph over all features, by faiss, of which a search reads a few hundred rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vjepa.extraction.errors import ExtractionError
from vjepa.extraction.neighbours import CHUNK_ROWS, Neighbours, SearchIndex

LINKS = 32  # of a row to others: Malkov and Yashunin, arXiv:1603.09320, 4.1
MIN_LOOKED_AT = 128  # rows that a search keeps in view


def write_graph(rows: Float[Tensor, "rows d"], index: SearchIndex, path: Path) -> None:
    """Link each feature, less the mean and of length 1, to those near it; written whole or not at all.

    Args:
        rows: The features.
        index: Of these features.
        path: The file.

    Raises:
        ExtractionError: faiss is not installed.
    """
    faiss = faiss_library()
    graph = faiss.IndexHNSWFlat(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    for start in range(0, len(rows), CHUNK_ROWS):
        graph.add(index.directions(rows[start : start + CHUNK_ROWS]).numpy())
    partial = path.with_name(f".{path.name}.part")
    faiss.write_index(graph, str(partial))
    partial.replace(path)


def nearest_by_graph(
    path: Path, index: SearchIndex, queries: Float[Tensor, "q d"], *, count: int
) -> Neighbours:
    """As `SearchIndex.nearest`, with the features in the graph; now and then a row that is nearer is missed.

    Args:
        path: The graph.
        index: Of the same features.
        queries: Features (Q, D).
        count: How many; fewer where there are fewer.

    Raises:
        ExtractionError: There is no graph, it is none, or faiss is not installed.
    """
    faiss = faiss_library()
    if not path.exists():
        raise ExtractionError(
            f"{path.parent} has no {path.name}. Run its `vjepa extract` again with --index faiss, or search without "
            "--approximate."
        )
    try:
        graph = faiss.read_index(str(path))
    except RuntimeError as e:
        raise ExtractionError(
            f"{path}: no index of faiss. Delete it and extract again with --index faiss."
        ) from e
    if graph.ntotal != len(index.norm) or graph.d != len(index.mean):
        raise ExtractionError(
            f"{path} holds {graph.ntotal} rows of {graph.d} numbers, the features are {len(index.norm)} of "
            f"{len(index.mean)}. Run `vjepa extract` again with --index faiss."
        )
    count = min(count, graph.ntotal)
    graph.hnsw.efSearch = max(MIN_LOOKED_AT, 4 * count)
    score, found = graph.search(index.directions(queries).numpy(), count)
    return Neighbours(torch.from_numpy(found), torch.from_numpy(score))


def faiss_library() -> Any:
    """Faiss, or an `ExtractionError` that says how to get it."""
    try:
        import faiss
    except ImportError as e:
        raise ExtractionError(
            f'an approximate search needs faiss ({e}). Install it: pip install "vjepa-toolkit[faiss]"; or search '
            "without --approximate, which is exact."
        ) from e
    return faiss
