"""The verb `vjepa search`."""

from __future__ import annotations

from pathlib import Path

from vjepa.commands.report import Report
from vjepa.features.reader import FeatureStore
from vjepa.features.search import search as find


def search(
    *,
    query: str,
    features: Path,
    top: int = 5,
    encoder: str | None = None,
    decoder: str | None = None,
    out: Path | None = None,
) -> Report:
    """Find the clips most like a video, by the cosine of their features less the mean of all.

    Args:
        query: The video; of a folder made with windows, each of its windows is looked for, and the best are shown.
        features: Folder written by vjepa extract with --index.
        top: How many clips.
        encoder: The encoder that made the features, if it is no longer where it was.
        decoder: What reads the query (default: what read the features). A class path is imported only if it is given
            here, never because the folder names it.
        out: Folder for result.json.
    """
    rows = [
        {
            "score": round(hit.score, 4),
            **{"path": hit.row.path, "start": hit.row.start, "end": hit.row.end, "label": hit.row.label_name},
            "query_start": hit.query_start,
        }
        for hit in find(FeatureStore(features), query, top=top, encoder=encoder, decoder=decoder)
    ]
    return Report(title=f"clips like {query}", rows=rows, figures={"query": query, "neighbours": rows})
