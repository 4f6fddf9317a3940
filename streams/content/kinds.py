"""What a file is by its first bytes, and whether that agrees with its name.

A decoder is only ever given the container that was found here. FFmpeg left to guess would follow a playlist
named .mp4 to other files and hosts.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import BinaryIO, Final

from schemas.errors import MediaError
from schemas.media import MediaModality

HEAD_BYTES: Final = 512

IMAGES: Final = frozenset({"jpeg", "png", "gif", "webp", "bmp", "avif"})
SOUND_FILES: Final = frozenset({"wav", "flac", "ogg", "mp3"})
"""Containers that libsndfile reads."""
FFMPEG: Final[dict[str, str]] = {
    "mp4": "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska": "matroska,webm",
    "avi": "avi",
    "flv": "flv",
    "mpegts": "mpegts",
    "aac": "aac",
    "mp3": "mp3",
    "ogg": "ogg",
}
"""Containers that FFmpeg reads, with the demuxers that it may use for them."""

_BY_EXTENSION: Final[dict[str, frozenset[str]]] = {
    name: frozenset(kinds.split())
    for names, kinds in {
        ".jpg .jpeg .jpe .jfif": "jpeg",
        ".png .apng": "png",
        ".gif": "gif",
        ".webp": "webp",
        ".bmp": "bmp",
        ".avif": "avif",
        ".wav .wave": "wav",
        ".flac": "flac ogg",
        ".ogg .oga .opus .ogv": "ogg",
        ".mp3": "mp3",
        ".aac": "aac",
        ".m4a .m4b .mp4 .m4v .mov .3gp": "mp4",
        ".mkv .webm .mka .weba": "matroska",
        ".avi": "avi",
        ".flv": "flv",
        ".ts .mts .m2ts": "mpegts",
    }.items()
    for name in names.split()
}

_MODALITY: Final[dict[MediaModality, frozenset[str]]] = {
    "image": IMAGES,
    "audio": SOUND_FILES | frozenset({"aac", "mp4", "matroska", "avi", "flv", "mpegts"}),
    "video": frozenset({"mp4", "matroska", "avi", "flv", "mpegts", "ogg"}),
}

_STARTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"BM", "bmp"),
)
_RIFF: Final = {b"WAVE": "wav", b"WEBP": "webp", b"AVI ": "avi"}
_BOXES: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_TS_PACKET: Final = 188


def kind_of(head: bytes) -> str | None:
    """The container that begins with `head`; None when it is none that we read.

    >>> kind_of(b"RIFF....WAVEfmt "), kind_of(b"plain text")
    ('wav', None)
    """
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return "avif" if head[8:12] in {b"avif", b"avis"} else "mp4"
    if head[4:8] in _BOXES:
        return "mp4"
    if len(head) > 1 and head[0] == 0xFF:  # a frame of MPEG audio: eleven bits of sync, then the layer
        if head[1] & 0xF6 == 0xF0:  # layer 0 is ADTS
            return "aac"
        if head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08 and head[1] & 0x06:
            return "mp3"
    packets = head[::_TS_PACKET]
    if len(packets) > 1 and set(packets) == {0x47}:
        return "mpegts"
    return None


def check_kind(file: BinaryIO, name: str, modality: MediaModality) -> str:
    """The container of an open file that is to be read as `modality`; leaves `file` at its start.

    Raises
    ------
    MediaError
        empty; wrong_type where the extension of `name` or the modality says otherwise; unsupported.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise MediaError("empty", "no bytes")
    kind = kind_of(head)
    extension = PurePosixPath(name).suffix.lower()
    expected = _BY_EXTENSION.get(extension)
    if expected is not None and kind not in expected:
        raise MediaError("wrong_type", f"named {extension}, and is {kind or _other(head)}")
    if kind is None:
        raise MediaError("unsupported", f"is {_other(head)}")
    if kind not in _MODALITY[modality]:
        raise MediaError("wrong_type", f"{kind} as {modality}")
    return kind


def _other(head: bytes) -> str:
    """What else a file may be, for the message."""
    for start, what in (
        (b"PK\x03\x04", "a zip archive"),
        (b"\x1f\x8b", "gzip"),
        (b"%PDF", "PDF"),
        (b"#EXTM3U", "a playlist"),
    ):
        if head.startswith(start):
            return what
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not a character cut in two
            return "of no known kind"
    return "text" if b"\0" not in head else "of no known kind"
