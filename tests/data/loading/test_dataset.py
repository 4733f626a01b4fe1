import numpy as np
import pytest
import torch

from tests.videos import write_broken, write_manifest, write_video
from vjepa.data import (
    ClipSampler,
    EvalTransform,
    SampleKey,
    TrainTransform,
    VideoClips,
    collate,
    read_manifest,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return read_manifest(write_manifest(tmp_path_factory.mktemp("d"), 3, num_frames=12, height=20, width=20))


def clips(manifest, **options):
    options = {"sampler": ClipSampler(num_frames=4, fps=None), "transform": TrainTransform(size=16)} | options
    return VideoClips(manifest, **options)


def test_a_sample_is_a_function_of_seed_epoch_and_row(manifest):
    first, again = clips(manifest), clips(manifest)
    key = SampleKey(epoch=2, index=1)
    assert torch.equal(first[key].video, again[key].video)
    assert first[key].video.shape == (3, 4, 16, 16) and (first[key].label, first[key].index) == (1, 1)
    others = [first[SampleKey(3, 1)], first[SampleKey(2, 0)], clips(manifest, seed=1)[key]]
    assert not any(torch.equal(first[key].video, other.video) for other in others)
    assert torch.equal(first[1].video, first[SampleKey(0, 1)].video)


def test_removing_a_row_leaves_the_clips_of_the_others(manifest):
    from dataclasses import replace

    fewer = replace(manifest, rows=manifest.rows[1:])
    assert torch.equal(clips(manifest)[SampleKey(5, 2)].video, clips(fewer)[SampleKey(5, 1)].video)


def test_rows_share_a_file(tmp_path):
    write_video(tmp_path / "v.mp4", num_frames=32, fps=8.0, height=16, width=16)
    (tmp_path / "m.csv").write_text("path,start,end\nv.mp4,0,2\nv.mp4,2,4\nv.mp4,9,10\n")
    parts = clips(
        read_manifest(tmp_path / "m.csv"),
        sampler=ClipSampler(num_frames=16, fps=8.0),
        transform=EvalTransform(size=16, short_side=16),
    )
    assert not torch.equal(parts[0].video, parts[1].video)
    assert "no frame between 9.0 and 10.0 seconds" in parts[2].failure.reason


def test_unreadable_clips_are_failures_in_the_batch(tmp_path, manifest):
    broken = write_broken(tmp_path)
    bad = clips(read_manifest(tmp_path))
    batch = collate([bad[0], clips(manifest)[0], bad[1]])
    assert len(batch) == 1 and [f.path for f in batch.failures] == [str(b) for b in broken[:2]]
    assert "0 bytes" in batch.failures[0].reason
    empty = collate([bad[0]])
    assert len(empty) == 0 and empty.video.shape[:2] == (0, 3) and len(empty.failures) == 1


def test_short_videos_can_be_failures(manifest):
    strict = clips(manifest, sampler=ClipSampler(num_frames=16, fps=None, short="error"))
    assert "12 frames" in strict[0].failure.reason
    assert clips(manifest, sampler=ClipSampler(num_frames=16, fps=None))[0].failure is None


def test_decord_reads_the_same_clips(manifest):
    pytest.importorskip("decord")
    assert torch.equal(clips(manifest)[0].video, clips(manifest, decoder="decord")[0].video)
    assert np.isfinite(clips(manifest)[0].video.numpy()).all()


def test_pixels_become_the_same_clips_on_the_device(tmp_path):
    manifest = read_manifest(write_manifest(tmp_path, 3, height=40, width=50))
    options = {"sampler": ClipSampler(num_frames=3), "transform": TrainTransform(size=24)}
    plain, pixels = VideoClips(manifest, **options), VideoClips(manifest, **options, as_pixels=True)
    batch = collate([pixels[i] for i in range(3)])
    assert batch.video.dtype == torch.uint8 and batch.scale is not None
    expected = collate([plain[i] for i in range(3)])
    assert expected.normalised() is expected
    apart = (batch.normalised().video - expected.video).abs().max()
    assert apart <= 1.01 / (255 * 0.224)  # one grey level, over the smallest std


def test_several_clips_of_one_opened_video(tmp_path):
    manifest = read_manifest(write_manifest(tmp_path, 2, num_frames=40))
    options = {"sampler": ClipSampler(num_frames=3), "transform": TrainTransform(size=8)}
    alone, several = VideoClips(manifest, **options), VideoClips(manifest, **options, clips_per_video=3)
    sample = several[1]
    assert torch.equal(sample.video, alone[1].video) and len(sample.more) == 2
    assert not any(torch.equal(sample.video, other) for other in sample.more)
    batch = collate([several[0], several[1]])
    assert batch.index.tolist() == [0, 0, 0, 1, 1, 1] and len(batch) == 6
