import gc
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.given.servers import serving
from tests.videos import write_broken, write_manifest, write_video, write_videos
from vjepa.commands.app import main
from vjepa.commands.data_shard import shard_command
from vjepa.data import ManifestError, read_manifest
from vjepa.data.manifests import tar_samples
from vjepa.data.manifests.identity import row_identities
from vjepa.data.manifests.shard_sets import expand_braces
from vjepa.data.manifests.tar_samples import scan
from vjepa.data.remote import fetch_video
from vjepa.data.shards.writer import plan_shards, write_shard
from vjepa.errors import FileError, UsageError

NUM_CLIPS = 10


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    return write_manifest(folder, NUM_CLIPS, num_frames=4, height=16, width=16)


@pytest.fixture(scope="module")
def shards(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    shard_command(source=str(files), out=str(out), clips_per_shard=3)
    return out


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))


def known(source) -> dict[int, tuple]:
    """What is known of each row, by its identity: all but where it lies."""
    manifest = read_manifest(source)
    names = manifest.label_names
    rows = [(names[r.label] if r.label >= 0 else "", *r[2:6], r.pair) for r in manifest.rows]
    return dict(zip(row_identities(manifest).tolist(), rows, strict=True))


def test_the_shards_are_the_manifest(files, shards):
    manifest, given = read_manifest(shards), read_manifest(files)
    assert manifest.describe() == f"10 clips, 2 classes, from WebDataset shards {shards}"
    assert manifest.label_names == given.label_names
    assert known(shards) == known(files)
    contents = {Path(row.path).read_bytes() for row in given.rows}
    assert {fetch_video(row.path) for row in manifest.rows} == contents  # byte for byte
    assert len(list(shards.glob("*.tar"))) == 4 and not list(shards.glob("*.tar.json"))


@pytest.mark.filterwarnings("ignore:unclosed file")  # it leaves its last file to the garbage collector
def test_the_plain_webdataset_package_reads_them(files, shards):
    import webdataset

    tars = sorted(map(str, shards.glob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert len(samples) == NUM_CLIPS == len({sample["__key__"] for sample in samples})
    for sample in samples:
        assert (files.parent / sample["json"]["path"]).read_bytes() == sample["mp4"]
        assert sample["json"]["label_name"] == ("left", "right")[sample["json"]["label"]]
    gc.collect()


def test_all_columns_and_several_parts_of_one_file_are_kept(tmp_path):
    for name in ("a.mp4", "b.MP4"):
        write_video(tmp_path / name, num_frames=8, height=16, width=16)
    lines = [
        "path,label,start,end,group,weight,pair",
        "a.mp4,wave,0,0.5,anna,2,p1",
        "b.MP4,,,,,,",
        "a.mp4,clap,0.5,,anna,,",
        "a.mp4,wave,0,0.5,bert,,",  # the same part again
    ]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    report = shard_command(source=str(tmp_path / "m.csv"), out=str(tmp_path / "out"))
    assert report.figures["num_clips"] == 4 and report.figures["num_shards"] == 1
    assert known(tmp_path / "out") == known(tmp_path / "m.csv")
    assert report.figures["num_bytes"] < 40_000  # a video is stored once, whatever its parts
    (tmp_path / "out" / "shards.json").unlink()
    assert known(tmp_path / "out") == known(tmp_path / "m.csv")  # from the tar alone


def test_a_seed_mixes_and_the_same_one_makes_the_same_bytes(files, shards, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        shard_command(source=str(files), out=str(tmp_path / name), clips_per_shard=3, seed=seed)
    for tar in shards.glob("*.tar"):
        assert tar.read_bytes() == (tmp_path / "again" / tar.name).read_bytes()
        assert tar.read_bytes() != (tmp_path / "other" / tar.name).read_bytes()
    assert known(tmp_path / "other") == known(files)


def test_size_and_name_of_shards(files, tmp_path):
    sizes = [path.stat().st_size for path in files.parent.glob("train/*.mp4")]
    report = shard_command(source=str(files), out=str(tmp_path), max_bytes=3 * max(sizes), name="k400")
    assert report.figures["num_shards"] >= 4
    assert sorted(path.name for path in tmp_path.glob("*.tar"))[0] == "k400-000000.tar"
    assert main(["data", "shard", str(files), "--out", str(tmp_path / "x"), "--max_bytes", "0"]) == 2
    assert main(["data", "shard", str(files), "--out", str(tmp_path / "x"), "--name", "a/b"]) == 2


def test_unreadable_files_are_listed_and_left_out(tmp_path, capsys):
    write_manifest(tmp_path, 3, num_frames=4, height=16, width=16)
    broken = write_broken(tmp_path / "train")
    assert main(["data", "shard", str(tmp_path / "train"), "--out", str(tmp_path / "out")]) == 0
    assert "3 clips in 1 shards, 3 unreadable files omitted" in capsys.readouterr().out
    listed = json.loads((tmp_path / "out" / "result.json").read_text())["left_out"]
    assert {entry["path"] for entry in listed} == {str(path) for path in broken}
    assert len(read_manifest(tmp_path / "out")) == 3


def test_it_goes_on_where_it_was_stopped(files, shards, tmp_path):
    out = str(tmp_path / "out")
    options = {"max_bytes": 500_000_000, "clips_per_shard": 3, "decoder": "pyav", "seed": 0}
    plans = plan_shards(read_manifest(files), out=out, name="clips", **options)
    for plan in plans[:2]:
        write_shard(plan)
    first = Path(out) / "clips-000000.tar"
    written_at = first.stat().st_mtime_ns
    (Path(out) / ".clips-000002.tar.x1y2").write_bytes(b"killed here")
    (Path(out) / "clips-000001.tar").write_bytes(b"cut off")
    with pytest.raises(Exception, match="holds other shards .clips-000001.tar.*Give a new folder, or delete"):
        shard_command(source=str(files), out=out, clips_per_shard=3)
    (Path(out) / "clips-000001.tar").unlink()
    shard_command(source=str(files), out=out, clips_per_shard=3)
    assert first.stat().st_mtime_ns == written_at
    for tar in shards.glob("*.tar"):
        assert tar.read_bytes() == (tmp_path / "out" / tar.name).read_bytes()
    assert (shards / "shards.json").read_bytes() == (tmp_path / "out" / "shards.json").read_bytes()
    shard_command(source=str(files), out=out, clips_per_shard=3)  # done already: nothing to do
    assert first.stat().st_mtime_ns == written_at
    with pytest.raises(Exception, match="holds other shards"):
        shard_command(source=str(files), out=out, clips_per_shard=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's own, of what it leaves open
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_other_processes_write_the_same_shards(files, shards, tmp_path, engine, request):
    out = tmp_path / "out"
    if engine == "ray":
        request.getfixturevalue("ray_cluster")
    shard_command(source=str(files), out=str(out), clips_per_shard=3, num_processes=2, engine=engine)
    for path in [*shards.glob("*.tar"), shards / "shards.json"]:
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_what_cannot_be_written_is_named(files, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vjepa.data.shards.writer.put", full)
        with pytest.raises(
            UsageError, match="clips-000000.tar: OSError.*No space left on device.*continues here"
        ):
            shard_command(source=str(files), out=str(tmp_path / "out"), clips_per_shard=3)
    shard_command(source=str(files), out=str(tmp_path / "out"), clips_per_shard=3)


def test_shards_in_a_memory_file_system(files, shards):
    report = shard_command(source=str(files), out="memory://sets/a/", clips_per_shard=3)
    assert report.figures["index"] == "memory://sets/a/shards.json"
    for source in (
        "memory://sets/a",
        "memory://sets/a/shards.json",
        "memory://sets/a/clips-{000000..000003}.tar",
    ):
        assert known(source) == known(files)
    assert fetch_video(read_manifest("memory://sets/a").rows[0].path) == fetch_video(
        read_manifest(shards).rows[0].path
    )
    shard_command(source="memory://sets/a", out="memory://sets/b", clips_per_shard=6)  # dealt out anew
    assert known("memory://sets/b") == known(files)
    shard_command(source=str(files), out="memory://sets/a", clips_per_shard=3)  # done already
    with pytest.raises(Exception, match="shards cannot be written over http. Give a folder"):
        shard_command(source=str(files), out="http://127.0.0.1/set")


@pytest.mark.parametrize("what", ["", "/shards.json", "/clips-{000000..000003}.tar"])
def test_shards_over_http(files, shards, what):
    with serving(shards) as served:
        assert known(served.url + what) == known(files)


def test_an_index_with_digests_still_opens(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    index = json.loads((copy / "shards.json").read_text())
    for shard in index["shards"]:
        shard["blake2b"] = "00" * 16
    (copy / "shards.json").write_text(json.dumps(index))
    assert known(copy) == known(shards)


def test_a_part_of_the_shards(shards):
    some = read_manifest(f"{shards}/clips-{{000001..000002}}.tar")
    assert len(some) == 6 and some.label_names == ("left", "right")
    assert expand_braces("a/{0..1}/b-{09..10}.tar")[1] == "a/0/b-10.tar"
    with pytest.raises(ManifestError, match="has no shard clips-000004.tar. Name shards that it has"):
        read_manifest(f"{shards}/clips-{{000000..000004}}.tar")


def test_what_is_missing_or_no_set_is_named(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    (copy / "clips-000001.tar").write_bytes(b"")
    with pytest.raises(
        ManifestError, match=r"1 shards are missing or truncated: clips-000001.tar. Copy the whole"
    ):
        read_manifest(copy)
    shutil.copy(shards / "clips-000001.tar", copy)  # the advice
    assert len(read_manifest(copy)) == NUM_CLIPS
    (copy / "shards.json").write_text('{"format": "else"}')
    with pytest.raises(
        FileError, match="not an index of shards, which `vjepa data shard` writes: format 'else'"
    ):
        read_manifest(copy)
    with pytest.raises(ManifestError, match="compressed, so single clips cannot be read.*Unpack it"):
        read_manifest(tmp_path / "a.tar.gz")
    with pytest.raises(ManifestError, match="no such shard. Correct the name"):
        read_manifest(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(b"this is no tar" * 100)
    with pytest.raises(ManifestError, match="not a tar, or truncated"):
        read_manifest(tmp_path / "a.tar")


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def foreign(tmp_path, files) -> Path:
    """Shards as others make them: labels in .cls or .json, folders, long names, samples without a video."""
    videos = [path.read_bytes() for path in sorted(files.parent.glob("train/*.mp4"))]
    folder = tmp_path / "foreign"
    long = "x" * 150
    members = {
        "a/0.mp4": videos[0],
        "a/0.cls": b"3\n",
        f"{long}.mp4": videos[1],
        f"{long}.json": b'{"label": 1}',
        "c.txt": b"no video",
        "d.jpg": b"a thumbnail",
        "d.mp4": videos[2],
    }
    write_tar(folder / "part-0.tar", members)
    write_tar(folder / "part-1.tar", {"e.mp4": videos[3], "e.json": b'["no object"]', "e.cls": b"0"})
    return folder


@pytest.mark.parametrize("where", ["folder", "tars", "http", "memory"])
def test_shards_of_others(foreign, files, where, monkeypatch):
    import fsspec

    with serving(foreign) as served:
        tars = f"{foreign}/part-{{0..1}}.tar"
        if where == "memory":
            fsspec.filesystem("memory").put(str(foreign), "/foreign", recursive=True)
        sources = {"folder": foreign, "tars": tars, "http": f"{served.url}/part-{{0..1}}.tar"}
        source = sources.get(where, "memory://foreign")
        manifest = read_manifest(source)
        assert [row.label for row in manifest.rows] == [3, 1, -1, 0]
        videos = [path.read_bytes() for path in sorted(files.parent.glob("train/*.mp4"))]
        assert [fetch_video(row.path) for row in manifest.rows] == videos[:4]
        names = [row.path.rpartition(":")[2] for row in manifest.rows]
        assert names[0] == "a/0.mp4" and names[3] == "e.mp4"
        # scanned once, then kept
        monkeypatch.setattr("vjepa.data.manifests.shard_sets.scan", None)
        assert list(read_manifest(source).rows) == list(manifest.rows)


def test_a_changed_tar_is_scanned_anew_and_one_without_video_is_refused(foreign, tmp_path):
    assert len(read_manifest(foreign / "part-1.tar")) == 1
    write_tar(foreign / "part-1.tar", {"text.txt": b"text"})
    with pytest.raises(ManifestError, match="no video in 1 samples"):
        read_manifest(foreign / "part-1.tar")
    assert scan(str(foreign / "part-0.tar")).columns["path"][0] == "a/0.mp4"


def test_a_manifest_behind_a_url(files):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(files.parent), "/videos", recursive=True)
    assert known("memory://videos/train.csv") == known(files)
    with serving(files.parent) as served:
        assert known(f"{served.url}/train.csv") == known(files)
        assert len(read_manifest(f"{served.url}/train/clip_000.mp4")) == 1
        with pytest.raises(
            ManifestError, match=r"gone.csv: cannot be fetched: there is no such file. Give a"
        ):
            read_manifest(f"{served.url}/gone.csv")
    memory.pipe_file("/videos/bad.csv", b"path,start\na.mp4,soon\n")
    with pytest.raises(ManifestError, match=r"^memory://videos/bad.csv:2: start 'soon' is not a number"):
        read_manifest("memory://videos/bad.csv")
    assert (
        read_manifest("memory://videos/train.csv", root="s3://bucket")
        .rows[0]
        .path.startswith("s3://bucket/train/")
    )


def test_shards_do_not_go_where_the_videos_are(tmp_path):
    write_videos(tmp_path / "clips", 2, num_frames=4)
    for out in (tmp_path / "clips", tmp_path / "clips" / "shards"):
        with pytest.raises(Exception, match="would be mistaken for shards. Give a folder elsewhere"):
            shard_command(source=str(tmp_path / "clips"), out=str(out))


@pytest.mark.parametrize("is_done", [True, False])
def test_videos_that_were_replaced_are_not_called_done(tmp_path, is_done):
    manifest = write_manifest(tmp_path, 4, num_frames=4, height=16, width=16)
    given = {"source": str(manifest), "out": str(tmp_path / "out"), "clips_per_shard": 2}
    if is_done:
        shard_command(**given, thorough=True)
    else:
        options = {"max_bytes": 500_000_000, "clips_per_shard": 2, "decoder": "auto", "seed": 0}
        for plan in plan_shards(
            read_manifest(manifest), out=given["out"], name="clips", thorough=True, **options
        ):
            write_shard(plan)
    video = next((tmp_path / "train").glob("*.mp4"))
    before = video.stat()
    video.write_bytes(video.read_bytes()[:-1] + b"x")
    os.utime(video, ns=(before.st_mtime_ns, before.st_mtime_ns))
    with pytest.raises(UsageError, match="changed since. Give a new folder, or delete"):
        shard_command(**given, thorough=True)
    os.utime(video, ns=(before.st_mtime_ns + 1, before.st_mtime_ns + 1))
    with pytest.raises(UsageError, match="changed since. Give a new folder, or delete"):
        shard_command(**given)
    shutil.rmtree(given["out"])
    assert shard_command(**given).figures["num_clips"] == shard_command(**given).figures["num_clips"] == 4


def test_videos_whose_names_share_a_first_dot_stay_apart_with_their_labels(tmp_path, caplog):
    names = [f"clip.00{i}.{ending}" for i in range(3) for ending in ("mp4", "cls")]
    tar = write_tar(tmp_path / "a.tar", dict.fromkeys(names, b"7"))
    shard = scan(str(tar))
    assert shard.columns["path"] == ["clip.000.mp4", "clip.001.mp4", "clip.002.mp4"]
    assert shard.columns["label"] == ["7"] * 3
    assert "clip.000.mp4 and clip.001.mp4 share a key" in caplog.text and "at the last dot" in caplog.text
    images = scan(str(write_tar(tmp_path / "b.tar", {"x.0.png": b"", "x.1.png": b""})))
    assert images.columns["path"] == ["x.0.png", "x.1.png"]
    caplog.clear()
    usual = ("a.mp4", "a.meta.json", "a.json", "a.jpg", "b.seg.png", "b.jpg", "b.cls", "c.left.mp4", "c.json")
    whole = scan(str(write_tar(tmp_path / "c.tar", dict.fromkeys(usual, b"{}"))))
    assert whole.columns["path"] == ["a.mp4", "b.seg.png", "c.left.mp4"] and not caplog.text


def test_a_label_file_of_several_videos_is_refused_with_advice_that_works(tmp_path):
    tar = write_tar(tmp_path / "a.tar", dict.fromkeys(("clip.0.mp4", "clip.1.mp4", "clip.json"), b"{}"))
    with pytest.raises(
        ManifestError, match=r"share the label file clip\.json.* per video, such as clip\.0\.json"
    ):
        read_manifest(tar)
    names = ("clip.0.mp4", "clip.0.json", "clip.1.mp4", "clip.1.json")
    assert len(read_manifest(write_tar(tmp_path / "b.tar", dict.fromkeys(names, b"{}")))) == 2


def test_a_label_that_fills_the_memory_and_a_sparse_member_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_samples, "MAX_LABEL_BYTES", 5)
    with pytest.raises(ManifestError, match="a.json has 8 bytes, a label has at most 5"):
        scan(str(write_tar(tmp_path / "a.tar", {"a.mp4": b"", "a.json": b'"12345" '})))
    header = tarfile.TarInfo("b.json")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"00234553000\0"  # the size of what is not stored
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    (tmp_path / "b.tar").write_bytes(bytes(block) + bytes(1024))
    with pytest.raises(ManifestError, match="b.json is sparse. Write the tar without --sparse"):
        scan(str(tmp_path / "b.tar"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda shard: shard["columns"].update(label=[-2, 0, 1]), "label -2 is not one of the 2"),
        (lambda shard: shard["columns"].update(label=[0.5, 0, 1]), "label 0.5 is not one of the 2"),
        (lambda shard: shard["columns"].update(offset=[-1, 0, 0]), "-1 is not a place in it"),
        (lambda shard: shard["columns"].update(size=[10**12, 1, 1]), "1000000000000 is not a place in it"),
        (lambda shard: shard["columns"].update(path=["a"]), "cannot be"),
        (lambda shard: shard.update(name="../up.tar"), "'../up.tar': its name"),
        (lambda shard: shard.update(columns={}), "no 'offset'"),
    ],
)
def test_an_index_with_impossible_values_is_refused(shards, tmp_path, change, told):
    shutil.copytree(shards, tmp_path / "set")
    file = tmp_path / "set" / "shards.json"
    content = json.loads(file.read_text())
    change(content["shards"][0])
    file.write_text(json.dumps(content))
    with pytest.raises(FileError, match=f"not an index of shards, which `vjepa data shard` writes.*{told}"):
        read_manifest(tmp_path / "set")
