"""Search by features: the vectors of a folder that are most like those of a video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vjepa.checkpoints import load_encoder
from vjepa.data import read_manifest
from vjepa.data.decoders.base import BUILT_IN
from vjepa.features.clips import WindowBlock
from vjepa.features.encode import encode
from vjepa.features.errors import FeaturesError
from vjepa.features.extract import ClipSource
from vjepa.features.pooling import FeatureMaker, load_pooler
from vjepa.features.reader import FeatureRow, FeatureStore, damaged
from vjepa.files import write_tensors
from vjepa.models.files import weights_digest
from vjepa.readers import UNEXPECTED

log = logging.getLogger(__name__)

SEARCH = "search.safetensors"
CHUNK_ROWS = 16_384  # compared at once: features may lie in a file larger than memory
FLOOR = 1e-12  # of a norm: a feature that is the mean of all resembles no row


@dataclass(frozen=True)
class Neighbours:
    """The rows most like each query: `index` (Q, K), the best first, and their cosines `score` (Q, K)."""

    index: Int[Tensor, "q k"]
    score: Float[Tensor, "q k"]


@dataclass(frozen=True)
class SearchIndex:
    """Their `mean` (D,), and the `norm` (rows,) of each less it: what exact search needs beside the features.

    Features of a pre-trained encoder share a large constant component: with it every cosine is near 1.
    """

    mean: Float[Tensor, "d"]
    norm: Float[Tensor, "rows"]

    @classmethod
    def of(cls, rows: Float[Tensor, "rows d"]) -> SearchIndex:
        """Measure the features once, in chunks."""
        total = sum((part.double().sum(dim=0) for part in rows.split(CHUNK_ROWS)), torch.zeros(rows.shape[1]))
        # the only row is not compared with itself
        mean = (total / len(rows)).float() if len(rows) > 1 else torch.zeros(rows.shape[1])
        return cls(mean, torch.cat([(part.float() - mean).norm(dim=1) for part in rows.split(CHUNK_ROWS)]))

    def directions(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return features less the mean, of length 1: their products are compared."""
        return torch.nn.functional.normalize(features.float() - self.mean, dim=1, eps=FLOOR)

    def nearest(
        self, queries: Float[Tensor, "q d"], rows: Float[Tensor, "rows d"], *, count: int
    ) -> Neighbours:
        """Return the rows with the largest cosine to each query, both less the mean."""
        asked = self.directions(queries)
        scores = torch.cat(
            [
                asked @ ((part.float() - self.mean) / norm.clamp(min=FLOOR)[:, None]).T
                for part, norm in zip(rows.split(CHUNK_ROWS), self.norm.split(CHUNK_ROWS), strict=True)
            ],
            dim=1,
        )
        best = scores.topk(min(count, len(rows)), dim=1)
        return Neighbours(best.indices, best.values)


@dataclass(frozen=True)
class Hit:
    """A clip like the query: its `row`, the cosine `score`, and where the best window of the query starts."""

    row: FeatureRow
    score: float
    query_start: float


def check_searchable(maker: FeatureMaker) -> None:
    """Check before the work that its features can be compared.

    Raises:
        FeaturesError: If they are not vectors.
    """
    if maker.pool not in ("mean", "attentive") or len(maker.layers) > 1:
        raise FeaturesError(
            f"index of pool {maker.pool}, layers {list(maker.layers)}: search compares vectors. "
            "Use --pool mean or attentive and one layer."
        )


def write_search(folder: Path) -> None:
    """Write what `search` needs beside the features of a folder."""
    found = SearchIndex.of(_vectors(FeatureStore(folder)))
    write_tensors({"mean": found.mean, "norm": found.norm}, folder / SEARCH)


def search(
    store: FeatureStore, query: str, *, top: int = 5, encoder: str | None = None, decoder: str | None = None
) -> list[Hit]:
    """Return the clips most like a video, by the cosine of their features less the mean of all.

    Args:
        store: Features with an index.
        query: The video; of features of windows, each of its windows is looked for, and the best hits are returned.
        top: How many clips.
        encoder: The encoder that made the features, if it is no longer where it was.
        decoder: What reads the query; a class path is imported only if it is given here, never from the folder.

    Raises:
        FeaturesError: If there is no index, or the video cannot be compared with these features.
    """
    if top < 1:
        raise FeaturesError(f"got top {top}: give 1 or more.")
    file = store.folder / SEARCH
    if not file.exists():
        raise FeaturesError(
            f"{store.folder} has no {SEARCH}. Run its `vjepa extract` again with --index: no feature is made twice."
        )
    asked, starts = query_features(store, query, encoder, decoder)
    try:
        stored = load_file(file)
        index = SearchIndex(stored["mean"], stored["norm"])
    except (SafetensorError, *UNEXPECTED) as error:
        raise damaged(file, error) from error
    found = index.nearest(asked, _vectors(store), count=top)
    hits: dict[int, tuple[float, float]] = {}  # each clip once, with the window of the query it is most like
    for window, start in enumerate(starts):
        for row, score in zip(found.index[window].tolist(), found.score[window].tolist(), strict=True):
            hits[row] = max(hits.get(row, (-2.0, 0.0)), (score, start))
    best = sorted(hits.items(), key=lambda hit: (-hit[1][0], hit[0]))[:top]
    return [Hit(store.rows[row], score, start) for row, (score, start) in best]


def query_features(
    store: FeatureStore, query: str, encoder: str | None = None, decoder: str | None = None
) -> tuple[Float[Tensor, "q d"], list[float]]:
    """Return the features of a video's windows, made as those of `store` were, and when each begins.

    Raises:
        FeaturesError: If the encoder is another one, or the video cannot be read.
    """
    about, made = store.about, store.about["encoder"]
    if decoder is None and about["decoder"] not in BUILT_IN:
        raise FeaturesError(
            f"{store.folder} names the decoder {about['decoder']}, which would be imported. If you trust it, name it "
            f"with --decoder {about['decoder']} (in Python, decoder=...); or give one of {', '.join(BUILT_IN)}."
        )
    network = load_encoder(encoder or made["path"], which=made["which"])
    if weights_digest(network) != made["digest"]:
        raise FeaturesError(
            f"{encoder or made['path']} is not the encoder that made {store.folder}: its weights differ. "
            "Give that one with --encoder."
        )
    maker = FeatureMaker(
        network,
        layers=store.spec.layers or (-1,),
        pool=about["pool"],
        pooler=load_pooler(Path(about["probe"]), network) if about["probe"] else None,
        precision=about["precision"],
    )
    manifest = read_manifest(query)
    blocks = ClipSource(manifest, store.spec, decoder or about["decoder"]).blocks(
        [(i, 0) for i in range(len(manifest))]
    )
    found, starts = [], []
    for block, features in encode(network, _readable(blocks), maker, of=f"windows of {query}"):
        if features is not None:
            found.append(features)
            starts += block.seconds[:, 0].tolist()
        elif block.failure is not None and not found:
            raise FeaturesError(f"{block.failure.path}: {block.failure.reason}. Give another query.")
    return torch.cat(found), starts


def _readable(blocks: Iterator[WindowBlock]) -> Iterator[WindowBlock]:
    for block in blocks:
        if block.failure is not None:
            log.warning("cannot read %s: %s", block.failure.path, block.failure.reason)
        yield block


def _vectors(store: FeatureStore) -> Float[Tensor, "rows d"]:
    if store.features.ndim != 2:
        raise FeaturesError(
            f"{store.folder} has features of shape {tuple(store.features.shape[1:])}: search compares vectors. "
            "Extract with --pool mean or attentive, and one layer."
        )
    return store.features
