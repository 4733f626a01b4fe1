"""Clips that are most like a query."""

import json
import sys

import pytest
import torch

import vjepa
from tests.videos import write_broken
from vjepa.commands.app import main
from vjepa.extraction import ExtractionError
from vjepa.extraction.commands import extract
from vjepa.extraction.graph import nearest_by_graph, write_graph
from vjepa.extraction.neighbours import SearchIndex
from vjepa.extraction.search import search

import vjepa
from tests.videos import write_broken
from vjepa.commands.app import main
from vjepa.features import FeaturesError


@pytest.fixture(scope="module")
def indexed(small, clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("indexed")
    extract(encoder=small, data=clips, out=out, index=True)
    return out


def test_nearest_is_the_cosine_less_the_mean():
    rows, queries = torch.randn(40, 8) + 5, torch.randn(3, 8) + 5
    found = SearchIndex.of(rows).nearest(queries, rows, count=6)
    mean = rows.mean(0)
    scores = torch.nn.functional.cosine_similarity((queries - mean)[:, None], (rows - mean)[None], dim=2)
    torch.testing.assert_close(found.score, scores.topk(6).values)
    assert torch.equal(found.index, scores.topk(6).indices)
    alone = SearchIndex.of(rows[:1]).nearest(rows[:1], rows[:1], count=6)
    assert alone.score.item() == pytest.approx(1)


def test_a_video_finds_itself_first(indexed, clips, tmp_path, capsys):
    query = next(iter(vjepa.features.open(indexed).rows)).path
    command = ["search", query, "--features", str(indexed), "--top", "3", "--out", str(tmp_path)]
    assert main(command) == 0
    best = json.loads((tmp_path / "result.json").read_text())["neighbours"]
    assert len(best) == 3 and best[0]["path"] == query and best[0]["score"] == pytest.approx(1, abs=1e-3)
    assert best[0]["label"] == "left" and best[1]["score"] < 0.999


def test_windows_of_a_query_are_looked_for(small, long_video, tmp_path):
    extract(encoder=small, data=str(long_video), out=tmp_path, window=2.0, index=True)
    rows = search(query=str(long_video), features=tmp_path, top=10).rows
    assert all(row["score"] == pytest.approx(1, abs=1e-3) for row in rows)
    assert {row["start"] for row in rows} == {2.0 * i for i in range(10)}


def test_what_cannot_be_searched(small, clips, indexed, tmp_path):
    video = vjepa.features.open(indexed).rows[0].path
    with pytest.raises(ExtractionError, match="Use --pool mean or attentive"):
        extract(encoder=small, data=clips, out=tmp_path / "a", pool="none", index=True)
    extract(encoder=small, data=clips, out=tmp_path / "b")
    with pytest.raises(ExtractionError, match="again with --index"):
        search(query=video, features=tmp_path / "b")
    assert extract(encoder=small, data=clips, out=tmp_path / "b", index=True).figures["num_made"] == 0
    assert search(query=video, features=tmp_path / "b").rows[0]["path"] == video
    with pytest.raises(ExtractionError, match="Give another query"):
        search(query=str(write_broken(tmp_path / "v")[0]), features=indexed)
    with pytest.raises(ExtractionError, match="give 1 or more"):
        search(query=video, features=indexed, top=0)
    cut = tmp_path / "b" / "search.safetensors"
    cut.write_bytes(cut.read_bytes()[:-4])
    with pytest.raises(FeaturesError, match="search.safetensors is damaged"):
        search(query=video, features=tmp_path / "b")
    other = vjepa.VideoEncoder(img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=2, num_heads=2)
    path = str(other.save_pretrained(tmp_path / "other"))
    with pytest.raises(ExtractionError, match="is not the encoder that made"):
        search(query=video, features=indexed, encoder=path)


def test_a_graph_finds_what_comparing_with_all_finds(tmp_path):
    torch.manual_seed(0)
    rows, queries = torch.randn(3000, 16) + 3, torch.randn(20, 16) + 3
    index = SearchIndex.of(rows)
    write_graph(rows, index, tmp_path / "g")
    near, exact = (
        nearest_by_graph(tmp_path / "g", index, queries, count=10),
        index.nearest(queries, rows, count=10),
    )
    shared = [len(set(a) & set(b)) for a, b in zip(near.index.tolist(), exact.index.tolist(), strict=True)]
    assert sum(shared) >= 190  # of 200
    assert torch.equal(near.index[:, 0], exact.index[:, 0])
    torch.testing.assert_close(near.score[:, 0], exact.score[:, 0])


def test_an_approximate_search_needs_a_graph_of_these_features(small, clips, indexed, tmp_path, monkeypatch):
    video = vjepa.features.open(indexed).rows[0].path
    with pytest.raises(ExtractionError, match="again with --index faiss, or search without"):
        search(query=video, features=indexed, approximate=True)
    extract(encoder=small, data=clips, out=tmp_path, index="faiss")
    exact, near = (search(query=video, features=tmp_path, approximate=a).rows for a in (False, True))
    assert [row["path"] for row in near] == [row["path"] for row in exact]
    assert not list(tmp_path.glob(".*.part"))
    write_graph(torch.randn(5, 4), SearchIndex.of(torch.randn(5, 4)), tmp_path / "search.faiss")
    with pytest.raises(ExtractionError, match="holds 5 rows of 4 numbers"):
        search(query=video, features=tmp_path, approximate=True)
    (tmp_path / "search.faiss").write_bytes(b"text")
    with pytest.raises(ExtractionError, match="no index of faiss"):
        search(query=video, features=tmp_path, approximate=True)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ExtractionError, match=r"vjepa-toolkit\[faiss\]"):
        search(query=video, features=tmp_path, approximate=True)
    with pytest.raises(ExtractionError, match=r"vjepa-toolkit\[faiss\]"):
        extract(encoder=small, data=clips, out=tmp_path / "other", index="faiss")
    assert not (tmp_path / "other").exists()  # found before the work
