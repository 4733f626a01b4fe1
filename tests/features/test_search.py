"""Clips that are most like a query."""

import json

import pytest
import torch

import vjepa
from tests.features.given import extract
from tests.videos import write_broken
from vjepa.commands.app import main
from vjepa.commands.search import search
from vjepa.features import FeaturesError
from vjepa.features.search import SearchIndex


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
    with pytest.raises(FeaturesError, match="Use --pool mean or attentive"):
        extract(encoder=small, data=clips, out=tmp_path / "a", pool="none", index=True)
    extract(encoder=small, data=clips, out=tmp_path / "b")
    with pytest.raises(FeaturesError, match="again with --index"):
        search(query=video, features=tmp_path / "b")
    assert extract(encoder=small, data=clips, out=tmp_path / "b", index=True).figures["num_made"] == 0
    assert search(query=video, features=tmp_path / "b").rows[0]["path"] == video
    with pytest.raises(FeaturesError, match="Give another query"):
        search(query=str(write_broken(tmp_path / "v")[0]), features=indexed)
    with pytest.raises(FeaturesError, match="give 1 or more"):
        search(query=video, features=indexed, top=0)
    cut = tmp_path / "b" / "search.safetensors"
    cut.write_bytes(cut.read_bytes()[:-4])
    with pytest.raises(FeaturesError, match="search.safetensors is damaged"):
        search(query=video, features=tmp_path / "b")
    other = vjepa.VideoEncoder(img_size=16, patch_size=8, num_frames=4, embed_dim=24, depth=2, num_heads=2)
    path = str(other.save_pretrained(tmp_path / "other"))
    with pytest.raises(FeaturesError, match="is not the encoder that made"):
        search(query=video, features=indexed, encoder=path)
