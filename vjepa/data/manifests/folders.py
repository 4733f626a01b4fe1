"""Reader of a folder as a manifest: of videos, images or frame folders, or of class folders of any of these."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from vjepa.data.manifests.formats import Table
from vjepa.data.manifests.rows import ManifestError
from vjepa.data.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES

MAX_ENDINGS = 8  # of files that are not read, in the message

log = logging.getLogger(__name__)

Content = Literal["videos", "images", "folders", "nothing"]


class Listing(NamedTuple):
    """Sorted names in a folder; `others` are the files that are neither videos nor images."""

    videos: list[str]
    images: list[str]
    folders: list[str]
    others: list[str]

    @property
    def content(self) -> Content:
        """The kind of entries that count: videos before images before folders."""
        if self.videos:
            return "videos"
        return "images" if self.images else "folders" if self.folders else "nothing"


def folder_table(folder: Path) -> Table:
    """Return the table of what a folder holds, up to three levels down.

    Images in the folder itself are single images. Below it, a folder of images that are numbered without a gap holds
    the frames of one video; folders of other images are classes of images.

    Raises:
        ManifestError: If there are no videos or images, frame folders and folders of images are mixed, or a link
            leads to no file.
    """
    top = listing(folder)
    if top.videos:
        _log_unread(folder, [top], "videos")
        return Table.listed("flat folder", {"path": top.videos})
    if top.images:
        _log_unread(folder, [top], "images")
        return Table.listed("folder of images", {"path": top.images})
    inner = {name: listing(folder / name) for name in top.folders}
    read: Content = "videos" if any(inside.videos for inside in inner.values()) else "images"
    _log_unread(folder, [top, *inner.values()], read)
    found = {name: inside.content for name, inside in inner.items()}
    if "videos" in found.values():
        return _classes("class folders", {name: inside.videos for name, inside in inner.items()})
    if "images" in found.values():
        return _frames_or_images(folder, {name: i.images for name, i in inner.items() if i.images})
    clips = {
        name: [clip for clip in inside.folders if listing(folder / name / clip).images]
        for name, inside in inner.items()
    }
    if any(clips.values()):
        return _classes("class folders of frame folders", clips)
    raise ManifestError(
        folder,
        0,
        "no videos or images here or up to two folders down. Give a folder of videos, of images, of frame "
        f"folders or of class folders ({' '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))}), or a manifest "
        "(data_manifests/README.md)",
    )


def _log_unread(folder: Path, listings: list[Listing], read: Content) -> None:
    """Log the endings of the files that are not read, and the number of folders beside those that are."""
    names = [name for found in listings for name in found.others]
    if read == "videos":
        names += [name for found in listings for name in found.images]
    endings = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in names)
    left = [f"{count} {ending}" for ending, count in endings.most_common(MAX_ENDINGS)]
    if folders := sum(len(found.folders) for found in listings if found.content == read):
        left.append(f"{folders} folder{'s' * (folders != 1)} beside them")
    if left:
        shown = ", ".join(left)
        log.info("%s: only the %s are read; not read: %s", folder, read, shown)


def _classes(kind: str, members: dict[str, list[str]]) -> Table:
    pairs = [(name, member) for name, inside in members.items() for member in inside]
    return Table.listed(
        kind, {"path": [f"{name}/{member}" for name, member in pairs], "label": [name for name, _ in pairs]}
    )


def _frames_or_images(folder: Path, images: dict[str, list[str]]) -> Table:
    counted = {name: numbered_without_gap(inside) for name, inside in images.items() if len(inside) > 1}
    if not any(counted.values()):
        return _classes("class folders of images", images)
    if all(counted.values()):
        return Table.listed("folder of frame folders", {"path": list(images)})
    frames, others = (
        next(name for name, found in counted.items() if found is asked) for asked in (True, False)
    )
    raise ManifestError(
        folder,
        0,
        f"images in {frames}/ are numbered without a gap, like the frames of a video, those in {others}/ are not. "
        "Write a CSV manifest with one frame folder or image per line (data_manifests/README.md)",
    )


def numbered_without_gap(names: Iterable[str]) -> bool:
    """Return whether the names end in consecutive numbers.

    >>> numbered_without_gap(["img_00001.jpg", "img_00002.jpg"]), numbered_without_gap(["a_3.jpg", "a_7.jpg"])
    (True, False)
    """
    numbers = [re.search(r"(\d+)$", Path(name).stem) for name in names]
    found = sorted(int(number[1]) for number in numbers if number)
    return len(found) == len(numbers) and found == list(range(found[0], found[0] + len(found)))


def listing(folder: Path) -> Listing:
    """List a folder without its hidden files.

    Raises:
        ManifestError: If a link with the name of a video or an image leads to no file.
    """
    found = Listing([], [], [], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                continue
            if suffix in VIDEO_SUFFIXES and entry.is_file():
                found.videos.append(entry.name)
            elif suffix in IMAGE_SUFFIXES and entry.is_file():
                found.images.append(entry.name)
            elif entry.is_dir():
                found.folders.append(entry.name)
            elif suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES and not os.path.exists(entry.path):
                reason = f"{entry.name} is a link to a missing file. Fetch the file, or delete the link"
                raise ManifestError(folder, 0, reason)
            else:
                found.others.append(entry.name)
    for names in found:
        names.sort()
    return found
