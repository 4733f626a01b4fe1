"""Hostile names of files and folders, and a data set whose videos and classes have them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.videos import write_video

VIDEO_NAMES = [
    *(b"~x.mp4", b"~.mp4", b"-x.mp4", b"--out.mp4", b" before.mp4", b"after .mp4", b"a b.mp4"),
    *(b"line\nend.mp4", b"return\rback.mp4", b"tab\t.mp4", b"\x07bell.mp4", b"\x1b[31mred\x1b[0m.mp4"),
    b"\x1b]0;title\x07.mp4",
    *("\u202egpj.mp4".encode(), "\u2028line.mp4".encode(), "\x9b31mcsi.mp4".encode(), "\u200bempty.mp4".encode()),
    *("\u65e5\u672c.mp4".encode(), "e\u0301.mp4".encode(), b"caf\xe9.mp4", b"\xff\xfe.mp4", b"\xed\xb3\xa9.mp4"),
    *(b":smile:.mp4", b"[bold]x[red].mp4", b"<script>alert(1)<script>.mp4"),
    *(b"a,b.mp4", b'quo"te.mp4', b"apo'strophe.mp4", b"back\\slash.mp4", b"per%20cent.mp4", b"{000..001}.mp4"),
    b"*.mp4",
    *(b"$(touch ran).mp4", b"`touch ran`.mp4", b"a;b.mp4", b"que?ry=1.mp4", b"ha#sh.mp4", b"10:30.mp4", b"a::b.mp4"),
    b"long" * 60 + b".mp4",
]  # fmt: skip
CLASS_NAMES = [
    b"~",
    b"caf\xe9",
    b"\x1b[1mbold",
    b"line\nend",
    b":smile:",
    b"[red]",
    "\u202eright".encode(),
    b"=1+1",
]


def named_videos(folder: Path, names: list[bytes] = VIDEO_NAMES) -> list[str]:
    """Write the same small video under each name; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    source = write_video(folder.parent / "source.mp4", num_frames=8, height=24, width=24)
    paths = [os.fsdecode(os.fsencode(folder) + b"/" + name) for name in names]
    for path in paths:
        shutil.copyfile(source, path)
    return paths


def named_classes(folder: Path, names: list[bytes] = CLASS_NAMES) -> None:
    """Write class folders of these names with one video each."""
    for number, name in enumerate(names):
        inside = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        inside.mkdir(parents=True)
        write_video(inside / f"~{number}.mp4", num_frames=8, height=24, width=24, seed=number)
