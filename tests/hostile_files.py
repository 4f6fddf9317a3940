"""Files that want to harm whoever reads them, each with the reason for which it is to be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from schemas.media import MediaModality, MediaReason
from streams.content.limits import MediaLimits

from . import media_files as make

LIMITS = MediaLimits(
    max_bytes=40 << 20,
    max_pixels=20_000_000,
    max_audio_s=600.0,
    fetch_s=20.0,
    decode_s=60.0,
    decode_cpu_s=60,
    memory_mib=256,
)


@dataclass
class Hostile:
    name: str
    modality: MediaModality
    reason: MediaReason
    content: bytes | Callable[[Path], object]
    limits: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path


def cut(write: Callable[[Path], bytes], ratio: float) -> Callable[[Path], object]:
    return lambda path: path.write_bytes((data := write(path))[: int(len(data) * ratio)])


def damaged(write: Callable[[Path], bytes], start: int) -> Callable[[Path], object]:
    """All bytes from `start` on are noise."""

    def change(path: Path) -> None:
        data = write(path)
        noise = np.random.default_rng(5).integers(0, 256, len(data) - start, dtype=np.uint8).tobytes()
        path.write_bytes(data[:start] + noise)

    return change


HEAVY = {"max_bytes": 1 << 30, "max_audio_s": 2_000.0}
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
HOSTILE = [
    Hostile("empty.jpg", "image", "empty", b""),
    Hostile("cut.jpg", "image", "truncated", cut(make.picture, 0.5)),
    Hostile("cut.png", "image", "truncated", cut(make.picture, 0.5)),
    Hostile("cut.webp", "image", "truncated", cut(make.picture, 0.5)),
    Hostile("cut.gif", "image", "truncated", cut(make.picture, 0.4)),
    Hostile("cut.wav", "audio", "truncated", cut(make.sound, 0.5)),
    Hostile("cut.flac", "audio", "truncated", cut(make.sound, 0.5)),
    Hostile("cut.mp4", "video", "truncated", cut(make.film, 0.6)),
    Hostile("cut.webm", "video", "truncated", cut(lambda path: make.film(path, 2.0), 0.5)),
    Hostile("head.png", "image", "too_many_pixels", make.png(40_000, 40_000, b"")),
    Hostile(
        "bomb.png", "image", "too_many_pixels", make.png(40_000, 40_000, make.deflated_zeros(40_000 * 5_001))
    ),
    Hostile("zip.png", "image", "wrong_type", make.zipped(50 << 20)),
    Hostile("gzip.wav", "audio", "wrong_type", make.gzipped(50 << 20)),
    Hostile("zip", "video", "unsupported", make.zipped(1 << 20)),
    Hostile("text.png", "image", "wrong_type", "不是图片".encode() * 100),
    Hostile("text.mp4", "video", "wrong_type", b"not a video"),
    Hostile("playlist.mp4", "video", "wrong_type", PLAYLIST),
    Hostile("playlist", "video", "unsupported", PLAYLIST),
    Hostile("picture.svg", "image", "unsupported", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    Hostile("really.png", "image", "wrong_type", lambda path: make.picture(path, format="jpeg")),
    Hostile("picture.png", "video", "wrong_type", make.picture),
    Hostile("noise.png", "image", "unreadable", damaged(make.picture, 60)),
    Hostile("noise.mp4", "video", "truncated", damaged(make.film, 40)),
    Hostile("noise.flac", "audio", "unreadable", damaged(make.sound, 30)),
    Hostile("hour.wav", "audio", "too_long", make.long_wav(3_600)),
    Hostile("endless.mp4", "video", "too_long", make.film, {"max_video_s": 0.5}),
    Hostile("slow_rate.wav", "audio", "unsupported", make.long_wav(60, 100)),
    Hostile("quiet.wav", "audio", "empty", make.long_wav(60, width=2)),
    Hostile("silent.webm", "audio", "empty", lambda path: make.film(path, track=False)),
    Hostile("large.wav", "audio", "too_large", make.long_wav(6_000)),
    Hostile(
        "greedy.png",
        "image",
        "memory",
        make.png(12_000, 12_000, make.deflated_zeros(12_000 * 1_501)),
        {"max_pixels": 200_000_000, "memory_mib": 64},
    ),
    Hostile("lengthy.wav", "audio", "timeout", make.long_wav(1_500, 384_000), HEAVY | {"decode_s": 0.1}),
]
