"""Containers opened through PyAV so that they cannot lead FFmpeg elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from schemas.errors import MediaError

from .extra import extra
from .kinds import FFMPEG

with extra():
    import av

if TYPE_CHECKING:
    from av.container import InputContainer


def open_container(file: BinaryIO, kind: str) -> InputContainer:
    """An open container of the kind found before.

    Neither another demuxer (playlists, concat) nor a protocol (files, hosts) may be used.

    Raises
    ------
    MediaError
        truncated, unreadable, unsupported, memory.
    """
    formats = FFMPEG[kind]
    try:
        return av.open(
            file,
            "r",
            format=formats.split(",")[0],
            options={"format_whitelist": formats, "protocol_whitelist": "none"},
            metadata_errors="replace",
        )
    except av.FFmpegError as error:
        raise refusal(error) from error


def is_end(error: av.FFmpegError) -> bool:
    """Whether an error is the end of the file and nothing else."""
    return isinstance(error, av.EOFError)


def refusal(error: av.FFmpegError) -> MediaError:
    """The reason in an error of FFmpeg."""
    if isinstance(error, MemoryError):
        return MediaError("memory", str(error))
    if isinstance(error, av.EOFError):
        return MediaError("truncated", str(error))
    if isinstance(error, av.DecoderNotFoundError | av.error.PatchWelcomeError | NotImplementedError):
        return MediaError("unsupported", str(error))
    return MediaError("unreadable", str(error))
