"""A video as frames spread over its duration, and its sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from schemas.errors import MediaError

from .decode_audio import sound_of
from .decoded import Film, Sound, UInt8
from .extra import extra
from .ffmpeg import is_end, open_container, refusal
from .lengths import check_length, check_pixels
from .limits import Form, MediaLimits

with extra():
    import av
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import Interpolation
    from av.video.stream import VideoStream

SEQUENTIAL_S = 60.0
"""Longer videos are decoded from the key frame before each wanted time instead of throughout."""
MISSING_RATIO = 0.1
_MICROSECONDS = 1_000_000


def decode_video(file: BinaryIO, kind: str, limits: MediaLimits, form: Form) -> Film:
    """Frames in the middles of ``form.frames`` equal parts of the duration, RGB, squashed; and the sound.

    A short clip often has one key frame, so up to `SEQUENTIAL_S` everything is decoded and only the wanted
    frames are converted. Without a duration in its headers the video is decoded throughout.

    Raises
    ------
    MediaError
        too_many_pixels, too_long, truncated, unreadable, unsupported, empty, memory. A track of sound that
        fails does not: `Film.no_sound` says why.
    """
    check_length(file, kind)
    with open_container(file, kind) as container:
        stream = _picture_stream(container)
        width, height = stream.codec_context.width, stream.codec_context.height
        check_pixels(width, height, limits)
        duration_s = _duration_s(container, stream)
        if duration_s > limits.max_video_s:
            raise MediaError("too_long", f"{duration_s:.0f} s, {limits.max_video_s:.0f} allowed")
        stream.codec_context.thread_count = 1
        try:
            if not duration_s:
                times, frames = _unknown_length(container, stream, limits, form)
            elif duration_s <= SEQUENTIAL_S:
                times, frames = _sequential(container, stream, duration_s, limits, form)
            else:
                times, frames = _by_seeking(container, stream, duration_s, limits, form)
        except av.FFmpegError as error:
            raise refusal(error) from error
        except MemoryError as error:
            raise MediaError("memory", "decoding frames") from error
    if not frames:
        raise MediaError("empty", "no frame")
    sound, no_sound = _sound(file, kind, limits, form)
    return Film(
        np.stack(frames),
        np.array(times, dtype=np.float32),
        duration_s or times[-1],
        width,
        height,
        sound,
        no_sound,
    )


def _picture_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:  # the cover of a song
            return stream
    raise MediaError("empty", "no video track")


def _duration_s(container: InputContainer, stream: VideoStream) -> float:
    """Of the pictures, or else of the file; 0 when neither says."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return max((container.duration or 0) / _MICROSECONDS, 0.0)


def _pixels(frame: VideoFrame, limits: MediaLimits, form: Form) -> UInt8:
    check_pixels(frame.width, frame.height, limits)  # the size may change within a stream
    small = frame.reformat(form.side, form.side, "rgb24", interpolation=Interpolation.AREA)
    return np.asarray(small.to_ndarray(), dtype=np.uint8)


def _timed(
    container: InputContainer, stream: VideoStream, max_s: float
) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their times from the start of the stream, to the end."""
    start_s = float((stream.start_time or 0) * (stream.time_base or 0))
    try:
        for n, frame in enumerate(container.decode(stream)):
            time_s = n / 25.0 if frame.pts is None else frame.time - start_s
            if time_s > max_s:
                raise MediaError("too_long", f"{time_s:.0f} s, {max_s:.0f} allowed")
            yield time_s, frame
    except av.FFmpegError as error:
        if not is_end(error):
            raise


def _wanted_s(duration_s: float, n: int) -> list[float]:
    return [(i + 0.5) * duration_s / n for i in range(n)]


def _sequential(
    container: InputContainer, stream: VideoStream, duration_s: float, limits: MediaLimits, form: Form
) -> tuple[list[float], list[UInt8]]:
    """The last frame that begins at or before each wanted time."""
    wanted = _wanted_s(duration_s, form.frames)
    times: list[float] = []
    frames: list[UInt8] = []
    held: tuple[float, VideoFrame] | None = None
    last_s = 0.0
    for time_s, frame in _timed(container, stream, limits.max_video_s):
        while len(times) < len(wanted) and held is not None and time_s > wanted[len(times)]:
            times.append(held[0])
            frames.append(_pixels(held[1], limits, form))
        held, last_s = (time_s, frame), time_s
    if held is not None and len(times) < len(wanted):
        # Frames last for some time; a file cut short lacks more than one.
        step_s = 1.0 / float(stream.average_rate) if stream.average_rate else duration_s
        if last_s + 2 * step_s < duration_s * (1 - MISSING_RATIO):
            raise MediaError("truncated", f"{last_s:.1f} of {duration_s:.1f} s")
        times.append(held[0])
        frames.append(_pixels(held[1], limits, form))
    return times, frames


def _by_seeking(
    container: InputContainer, stream: VideoStream, duration_s: float, limits: MediaLimits, form: Form
) -> tuple[list[float], list[UInt8]]:
    """The key frame at or before each wanted time, each key frame once."""
    time_base = float(stream.time_base or 1)
    start = stream.start_time or 0
    found: dict[float, UInt8] = {}
    for wanted_s in _wanted_s(duration_s, form.frames):
        container.seek(start + int(wanted_s / time_base), stream=stream, backward=True)
        timed = next(_timed(container, stream, limits.max_video_s), None)
        if timed is None:
            raise MediaError("truncated", f"no frame at {wanted_s:.1f} of {duration_s:.1f} s")
        if timed[0] not in found:
            found[timed[0]] = _pixels(timed[1], limits, form)
    return list(found), list(found.values())


def _unknown_length(
    container: InputContainer, stream: VideoStream, limits: MediaLimits, form: Form
) -> tuple[list[float], list[UInt8]]:
    """Every stride-th frame, spread; the stride doubles whenever twice as many as wanted are held."""
    kept: list[tuple[float, UInt8]] = []
    stride = 1
    for n, (time_s, frame) in enumerate(_timed(container, stream, limits.max_video_s)):
        if n % stride == 0:
            kept.append((time_s, _pixels(frame, limits, form)))
        if len(kept) >= 2 * form.frames:
            kept = kept[::2]
            stride *= 2
    spread = sorted({round(i) for i in np.linspace(0, len(kept) - 1, min(form.frames, len(kept)))})
    return [kept[i][0] for i in spread], [kept[i][1] for i in spread]


def _sound(file: BinaryIO, kind: str, limits: MediaLimits, form: Form) -> tuple[Sound | None, str | None]:
    try:
        return sound_of(file, kind, limits, form), None
    except MediaError as error:
        return None, error.reason
