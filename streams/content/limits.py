"""What a medium may cost, from where it may come, and in which form it goes to the encoders."""

from __future__ import annotations

from msgspec import Struct

MIB = 1 << 20


class MediaLimits(Struct, frozen=True, kw_only=True):
    """Limits of one file; beyond any of them it is refused with the reason beside it."""

    max_bytes: int = 128 * MIB  # too_large
    max_pixels: int = 50_000_000  # too_many_pixels; of a picture or a frame
    max_audio_s: float = 1_800.0  # too_long
    max_video_s: float = 7_200.0  # too_long
    fetch_s: float = 10.0  # slow_server; wall clock
    decode_s: float = 10.0  # timeout; wall clock
    decode_cpu_s: int = 10  # timeout; processor time, fetching included
    memory_mib: int = 1_024  # memory; address space on top of the decoders themselves


class SourceRules(Struct, frozen=True, kw_only=True):
    """Where media may come from.

    Parameters
    ----------
    roots : tuple of str
        Folders below which local files may lie, links resolved.
    schemes : tuple of str
        What fsspec may open; never ``file``, ``http`` or a chain of schemes.
    hosts : tuple of str
        Of http(s): ``cdn.example.org`` (port 80 or 443), ``cdn.example.org:8443`` or ``*.example.org``, which
        does not hold example.org itself. Empty: no http at all.
    private_networks : tuple of str
        Networks such as ``10.2.0.0/16`` to which `hosts` may lead although they are not public. To loopback,
        private, link-local and other special addresses outside of them nothing leads.
    max_redirects : int
        Each is checked as the first address was, and never leads from https to http.
    """

    roots: tuple[str, ...] = ("/",)
    schemes: tuple[str, ...] = ("s3", "gs", "gcs", "az", "abfs", "abfss")
    hosts: tuple[str, ...] = ()
    private_networks: tuple[str, ...] = ()
    max_redirects: int = 4


class Form(Struct, frozen=True, kw_only=True):
    """In which form decoded media are handed over; it belongs to the version of what encodes them.

    Parameters
    ----------
    side : int
        Pictures and frames are squashed to ``side x side`` pixels, RGB.
    text_side : int
        Longest side, in pixels, at which the words on a picture are read (`streams.content.cover_text`); 0
        reads none.
    frames : int
        Of a video, in the middles of as many equal parts of its duration.
    sample_rate : int
        Of sound, mono, in Hz.
    segments, segment_s : int, float
        At most so many stretches of sound of at most that duration, spread over what silence leaves.
    """

    side: int = 256
    text_side: int = 0
    frames: int = 8
    sample_rate: int = 16_000
    segments: int = 3
    segment_s: float = 10.0
