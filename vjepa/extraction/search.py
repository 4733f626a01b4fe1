"""Nearest neighbours of clips by their features: the verb `vjepa search`."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from vjepa.extraction.clips import WindowClips
from vjepa.extraction.graph import faiss_library, nearest_by_graph, write_graph
from vjepa.extraction.neighbours import SearchIndex
from vjepa.extraction.pooling import FeatureMaker, load_pooler
from vjepa.extraction.windows import Windows

from vjepa import features
from vjepa.checkpoints import load_encoder
from vjepa.commands.report import Report
from vjepa.data import EvalTransform, read_manifest
from vjepa.extraction.errors import ExtractionError
from vjepa.features import FeatureStore, damaged
from vjepa.files import write_tensors
from vjepa.models.files import digest

log = logging.getLogger(__name__)

SEARCH, GRAPH = "search.safetensors", "search.faiss"


def check_searchable(maker: FeatureMaker, *, graph: bool) -> None:
    """See before the work that its features can be compared.

    Raises:
        ExtractionError: If they are no vectors, or a graph is wanted and faiss is not there.
    """
    if graph:
        faiss_library()
    if maker.pool not in ("mean", "attentive") or len(maker.layers) > 1:
        raise ExtractionError(
            f"index of pool {maker.pool}, layers {list(maker.layers)}: search compares vectors. "
            "Use --pool mean or attentive and one layer."
        )


def write_search(folder: Path, *, graph: bool = False) -> None:
    """Write what `vjepa search` needs beside the features of a folder.

    Args:
        folder: Features of one vector a row.
        graph: Also link them for an approximate search.
    """
    rows = _vectors(features.open(folder))
    found = SearchIndex.of(rows)
    write_tensors({"mean": found.mean, "norm": found.norm}, folder / SEARCH)
    if graph:
        write_graph(rows, found, folder / GRAPH)


def search(
    *,
    query: str,
    features: Path,
    top: int = 5,
    approximate: bool = False,
    encoder: str | None = None,
    out: Path | None = None,
) -> Report:
    """Find the clips most like a video, by the cosine of their features less the mean of all.

    Args:
        query: The video; of a folder made with windows its windows are each looked for, and the best are shown.
        features: Folder written by vjepa extract with --index.
        top: How many clips.
        approximate: Ask the graph of --index faiss instead of comparing with every clip.
        encoder: The encoder that made the features, if it is no longer where it was.
        out: Folder for result.json.
    """
    if top < 1:
        raise ExtractionError(f"got top {top}: give 1 or more.")
    store = FeatureStore(features)
    if not (features / SEARCH).exists():
        raise ExtractionError(
            f"{features} has no {SEARCH}. Run its `vjepa extract` again with --index: no feature is made twice."
        )
    asked, starts = query_features(store, query, encoder)
    try:
        stored = load_file(features / SEARCH)
    except SafetensorError as error:
        raise damaged(features / SEARCH, error) from error
    index = SearchIndex(stored["mean"], stored["norm"])
    if approximate:
        found = nearest_by_graph(features / GRAPH, index, asked, count=top)
    else:
        found = index.nearest(asked, _vectors(store), count=top)
    hits: dict[int, tuple[float, float]] = {}  # each clip once, with the window of the query it is most like
    for window, start in enumerate(starts):
        for row, score in zip(found.index[window].tolist(), found.score[window].tolist(), strict=True):
            hits[row] = max(hits.get(row, (-2.0, 0.0)), (score, start))
    best = sorted(hits.items(), key=lambda hit: (-hit[1][0], hit[0]))[:top]
    rows = [
        {
            "score": round(score, 4),
            **dict(zip(("path", "start", "end"), store.rows[row][:3], strict=True)),
            "label": store.rows[row].label_name,
            "query_start": at,
        }
        for row, (score, at) in best
    ]
    return Report(title=f"clips like {query}", rows=rows, figures={"query": query, "neighbours": rows})


def query_features(
    store: FeatureStore, query: str, encoder: str | None
) -> tuple[Float[Tensor, "q d"], list[float]]:
    """Features of a video's windows, made as those of `store` were, and when each begins.

    Args:
        store: The features it shall be compared with.
        query: The video.
        encoder: Where the encoder lies now, if elsewhere.

    Raises:
        ExtractionError: If the encoder is another one, or the video cannot be read.
    """
    about = store.about
    made = about["encoder"]
    network = load_encoder(encoder or made["path"], which=made["which"])
    if digest(network) != made["digest"]:
        raise ExtractionError(
            f"{encoder or made['path']} is not the encoder that made {store.folder}: its weights differ. "
            "Give that one with --encoder."
        )
    maker = FeatureMaker(
        network,
        layers=tuple(about["layers"]),
        pool=about["pool"],
        pooler=load_pooler(Path(about["probe"]), network) if about["probe"] else None,
        precision=about["precision"],
    )
    look = about["preprocessing"]
    windows = Windows(**{key: look[key] for key in ("num_frames", "fps", "window", "stride")})
    transform = EvalTransform(
        size=tuple(look["size"]),
        short_side=look["short_side"],
        mean=tuple(look["mean"]),
        std=tuple(look["std"]),
    )
    manifest = read_manifest(query)
    clips = WindowClips(
        manifest,
        windows=windows,
        transform=transform,
        decoder=about["decoder"],
        todo=[(row, 0) for row in range(len(manifest))],
    )
    made_of, starts = [], []
    for block in clips:
        if block.failure is not None:
            log.warning("cannot read %s: %s", block.failure.path, block.failure.reason)
        if len(block.video):
            made_of.append(maker(transform.pixel_scale.normalised(block.video)))
            starts += block.seconds[:, 0].tolist()
        elif block.failure is not None and not made_of:
            raise ExtractionError(f"{block.failure.path}: {block.failure.reason}. Give another query.")
    return torch.cat(made_of), starts


def _vectors(store: FeatureStore) -> Float[Tensor, "rows d"]:
    if store.features.ndim != 2:
        raise ExtractionError(
            f"{store.folder} has features of shape {tuple(store.features.shape[1:])}: search compares vectors. "
            "Extract with --pool mean or attentive, and one layer."
        )
    return store.features
