"""Decoding of a file from its start, for files whose packets do not tell their frames."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import av
import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from vjepa.data.decoders.stream import broken, open_video_file


def decode_in_order(path: str, *, is_truncated: bool = False) -> Generator[av.VideoFrame]:
    """Yield all frames in the order in which they are shown.

    Packets before the first frame that cannot be decoded, for their keyframe is missing, give no frame.

    Args:
        path: The video file.
        is_truncated: Whether the frames before damage are enough.

    Raises:
        DecodeError: If the data are broken after the first frame.
    """
    video = open_video_file(path, probe=True)
    count = 0
    with video.container:
        try:
            for packet in video.container.demux(video.stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    if count:
                        raise
                    continue
                for frame in frames:
                    count += 1
                    yield frame
        except av.error.FFmpegError as e:
            if not is_truncated:
                raise broken(path, f"{count} frames decoded", e) from e


def decoded_times(path: str, *, is_truncated: bool) -> list[int | None]:
    """Decode a file once and return the time of each frame as the decoder gives it."""
    return [frame.pts for frame in decode_in_order(path, is_truncated=is_truncated)]


def rising(times: Sequence[int | None], step: int) -> Int64[ndarray, "n"]:
    """Return times that rise: a missing time is `step` from its neighbour, and a clock that starts again continues.

    >>> rising([None, None, 80, 120, 0, 40], 40).tolist()
    [0, 40, 80, 120, 160, 200]
    """
    known = next((i for i, when in enumerate(times) if when is not None), 0)
    first = times[known] if times else None
    previous = (0 if first is None else first) - (known + 1) * step
    shift, risen = 0, []
    for when in times:
        if when is None:
            now = previous + step
        else:
            now = when + shift
            if now <= previous:
                shift += previous + step - now
                now = previous + step
        risen.append(now)
        previous = now
    return np.array(risen, np.int64)
