import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.given.servers import serving
from tests.videos import write_manifest
from vjepa.commands.data_shard import shard_command
from vjepa.data import ClipSampler, ManifestError, TrainTransform, VideoDataModule, read_manifest
from vjepa.data.loading.mixture import MixturePart
from vjepa.data.loading.order import ClipOrder
from vjepa.data.manifests.identity import row_identities
from vjepa.data.remote import fetch_video, member_of
from vjepa.data.shards.order import BlockReader, ShardOrder, ShardPlaces

NUM_CLIPS, PER_SHARD = 40, 10
ROOM = 60_000  # windows of about six clips, blocks of one


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("streamed")
    manifest = write_manifest(folder, NUM_CLIPS, num_frames=4, height=16, width=16)
    shard_command(source=str(manifest), out=str(folder / "shards"), clips_per_shard=PER_SHARD)
    return folder / "shards"


@pytest.fixture(scope="module")
def places(shards) -> ShardPlaces:
    return ShardPlaces(read_manifest(shards))


def arranged(places, *, seed=0, batch_size=3, num_workers=2, world_size=2, buffer_bytes=ROOM) -> ShardOrder:
    sizes = {"batch_size": batch_size, "num_workers": num_workers, "world_size": world_size}
    return ShardOrder(places, seed=seed, buffer_bytes=buffer_bytes, **sizes)


def order_of(places, *, epoch=0, **options):
    return arranged(places, **options)(epoch)


def test_an_epoch_is_a_function_of_seed_and_epoch(places):
    order = order_of(places)
    assert sorted(order.tolist()) == list(range(NUM_CLIPS))
    assert order.tolist() == order_of(places).tolist()
    for other in ({"seed": 1}, {"epoch": 1}, {"num_workers": 1}, {"buffer_bytes": 15_000}):
        assert order.tolist() != order_of(places, **other).tolist()


def test_each_worker_of_each_rank_has_a_run_of_shards(places):
    order = order_of(places)[:36].reshape(6, 3, 2)  # six batches of three on each of two ranks
    shard = places.shard
    runs = [order[lane::2, :, rank].ravel() for rank in range(2) for lane in range(2)]
    assert all(len(set(shard[run].tolist())) <= 2 for run in runs)  # nine clips, ten in a shard
    window = [run[np.argsort(places.offset[run])] for run in runs]
    assert any(run.tolist() != ordered.tolist() for run, ordered in zip(runs, window, strict=True))  # mixed


def test_clips_are_mixed_within_the_buffer_only(places):
    tiny = order_of(places, buffer_bytes=1, world_size=1, num_workers=1)
    begins = np.flatnonzero(np.diff(places.shard[tiny])) + 1
    for run in np.split(tiny, begins):
        assert (np.diff(places.offset[run]) > 0).all()  # nothing is mixed: from the front to the end
    assert 3 <= len(begins) <= 4  # the first shard may come in two parts, first and last
    whole = order_of(places, buffer_bytes=10**9, world_size=1, num_workers=1)
    assert len(np.flatnonzero(np.diff(places.shard[whole]))) > 15


def test_epochs_differ_in_shards_and_each_clip_comes_everywhere(places):
    seen = np.array([np.argsort(order_of(places, epoch=e, world_size=1, batch_size=4)) for e in range(400)])
    assert (abs(seen.mean(0) - (NUM_CLIPS - 1) / 2) < 3).all()


def test_two_ranks_share_no_clip(places):
    shares = [
        ClipOrder(
            identities=places.identities, seed=0, rank=rank, world_size=2, arranged=arranged(places)
        ).share(0)
        for rank in range(2)
    ]
    rows = [share.rows.tolist() for share in shares]
    assert len(rows[0]) == len(rows[1]) == 20 and not set(rows[0]) & set(rows[1])
    assert rows[0][:18] == order_of(places)[:36:2].tolist()


def test_blocks_hold_every_member_and_are_fetched_once(shards):
    with serving(shards) as served:
        manifest = read_manifest(served.url)
        places = ShardPlaces(manifest)
        read = BlockReader(
            places, buffer_bytes=3 * ROOM
        )  # with what lies between: a block holds two or three
        local = {row_id: row.path for row_id, row in zip(*given(read_manifest(shards)), strict=True)}
        served.gets.clear()
        order = order_of(places, num_workers=1, world_size=1, batch_size=4)
        for i in order.tolist():
            content = read(manifest.rows[i].path)
            assert content == fetch_video(local[places.identities[i]])
        blocks = [(path, first) for path, first, _ in served.gets]
        assert len(set(blocks)) < NUM_CLIPS
        assert len(blocks) <= len(set(blocks)) + 1  # each once; one may be at both ends of the epoch
        total = sum(path.stat().st_size for path in shards.glob("*.tar"))
        assert served.num_bytes() < total
        served.gets.clear()
        wide = BlockReader(places, buffer_bytes=16 * ROOM)  # a block holds a shard
        for i in order_of(places, num_workers=1, world_size=1, batch_size=4, buffer_bytes=16 * ROOM).tolist():
            wide(manifest.rows[i].path)
        assert len(served.gets) <= NUM_CLIPS // PER_SHARD + 1


def given(manifest):
    return row_identities(manifest), manifest.rows


def test_memory_of_the_reader_is_bounded(places, shards):
    read = BlockReader(places, buffer_bytes=ROOM)
    for i in range(NUM_CLIPS):
        read(read_manifest(shards).rows[i].path)
        assert sum(map(len, read._kept.values())) <= ROOM
    assert len(read._kept) > 2


def test_a_reader_is_shared_by_threads_and_pickled(places, shards):
    read = pickle.loads(pickle.dumps(BlockReader(places, buffer_bytes=ROOM)))
    paths = [row.path for row in read_manifest(shards).rows]
    with ThreadPoolExecutor(8) as pool:
        for path, content in zip(paths * 20, pool.map(read, paths * 20), strict=True):
            assert content == fetch_video(path)


def datamodule(train, **options):
    return VideoDataModule(
        **({"parts": train} if isinstance(train, list) else {"train": train}),
        sampler=ClipSampler(num_frames=2, fps=None),
        transform=TrainTransform(size=8),
        batch_size=4,
        **options,
    )


def epoch_of(data, *, num_batches=None) -> dict[int, float]:
    """Each clip's identity and the sum of its pixels."""
    data.setup("fit")
    identities = data.clips("train").identities
    return {
        int(identities[index]): video.sum().item()
        for batch in islice(data.train_dataloader(), num_batches)
        for index, video in zip(batch.index.tolist(), batch.video, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_over_http_gives_the_clips_of_the_files_in_few_requests(shards, num_workers):
    wanted = epoch_of(datamodule(str(shards.parent / "train.csv")))
    assert epoch_of(datamodule(str(shards))) == wanted
    with serving(shards) as served:
        assert epoch_of(datamodule(served.url, num_workers=num_workers)) == wanted
        assert num_requests(served) >= NUM_CLIPS  # one a clip; workers read ahead
        served.gets.clear()
        stream = [MixturePart(source=served.url, stream_bytes=6 * ROOM)]
        assert epoch_of(datamodule(stream, num_workers=num_workers)) == wanted
        # blocks of six clips; workers read ahead into the next epoch
        assert num_requests(served) <= 0.7 * NUM_CLIPS


def num_requests(served) -> int:
    """How often a shard was asked for."""
    return sum(path.endswith(".tar") for path, *_ in served.gets)


@pytest.mark.slow
def test_a_broken_clip_is_listed_and_the_stream_goes_on(tmp_path):
    folder = tmp_path / "clips"
    manifest = write_manifest(folder, 24, num_frames=4, height=16, width=16)
    shard_command(source=str(manifest), out=str(folder / "shards"), clips_per_shard=8)
    member = member_of(read_manifest(folder / "shards").rows[9].path)
    with open(member.shard, "r+b") as tar:
        tar.seek(member.offset)
        tar.write(b"no video" * (member.size // 8))
    with serving(folder / "shards") as served:
        data = datamodule([MixturePart(source=served.url, stream_bytes=ROOM)], num_workers=2)
        seen = epoch_of(data, num_batches=5)  # of 23 clips
        shard = f"{served.url}/{Path(member.shard).name}"
        assert list(data.ledger.reasons) == [member._replace(shard=shard).path]
    whole = epoch_of(datamodule(str(manifest)))
    assert len(seen) == 20 and all(whole[key] == value for key, value in seen.items())


def test_only_shards_can_be_streamed(shards):
    data = datamodule([MixturePart(source=str(shards.parent / "train.csv"), stream_bytes=ROOM)])
    data.setup("fit")
    with pytest.raises(
        ManifestError, match="40 clips are not in a shard.*make shards of it with `vjepa data shard`"
    ):
        data.train_dataloader()
    with pytest.raises(ValueError, match="stream_bytes -1. Give 0, or"):
        MixturePart(source="a", stream_bytes=-1)


def test_a_position_in_another_order_is_refused(shards):
    def loader(stream_bytes=ROOM, **options):
        data = datamodule([MixturePart(source=str(shards), stream_bytes=stream_bytes)], **options)
        data.setup("fit")
        return data.train_dataloader()

    position = loader(num_workers=2).position()
    loader(num_workers=2).go_to(position)
    with pytest.raises(ValueError, match="2 workers.*1 workers.*Restore stream_bytes, --data.num_workers"):
        loader(num_workers=1).go_to(position)
    with pytest.raises(ValueError, match="now it is of files"):
        loader(stream_bytes=0, num_workers=2).go_to(position)
