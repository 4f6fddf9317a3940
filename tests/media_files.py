"""Small media files, good and hostile, made on the spot."""

from __future__ import annotations

import gzip
import io
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

from streams.content.decoded import UInt8

RATE = 16_000


def pixels(height: int = 60, width: int = 80, seed: int = 0) -> UInt8:
    """Random squares, which are still there after lossy coding."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), dtype=np.uint8))


def tone(seconds: float = 1.0, pitch: float = 440.0) -> Any:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def picture(path: Path, **options: Any) -> bytes:
    """A picture in the format that the name says; returns its bytes."""
    Image.fromarray(pixels()).save(path, **options)
    return path.read_bytes()


def sound(path: Path, seconds: float = 1.0) -> bytes:
    soundfile.write(path, tone(seconds), RATE)
    return path.read_bytes()


def film(
    path: Path,
    seconds: float = 1.0,
    *,
    size: tuple[int, int] = (64, 80),
    track: bool = True,
    live: bool = False,
) -> bytes:
    """Ten frames a second, each of one grey that tells its number, with a tone; `live`: no duration told."""
    web = path.suffix == ".webm"
    with av.open(str(path), "w", options={"live": "1"} if live else {}) as container:
        pictures = container.add_stream("libvpx" if web else "mpeg4", rate=10)
        assert isinstance(pictures, av.VideoStream)
        pictures.height, pictures.width = size
        pictures.pix_fmt = "yuv420p"
        packets = []
        for n in range(round(10 * seconds)):
            grey = np.full((*size, 3), 20 + 4 * n % 200, dtype=np.uint8)
            packets += pictures.encode(av.VideoFrame.from_ndarray(grey, format="rgb24"))
        packets += pictures.encode(None)
        if track:
            audio = container.add_stream("libopus" if web else "aac", rate=48_000)
            assert isinstance(audio, av.AudioStream)
            wave = tone(3 * seconds, 440.0 / 3)[None, :]
            block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            block.sample_rate = 48_000
            resampler = av.AudioResampler(audio.format, audio.layout, audio.rate, audio.frame_size)
            for part in [*resampler.resample(block), *resampler.resample(None)]:
                packets += audio.encode(part)
            packets += audio.encode(None)
        for packet in packets:
            container.mux(packet)
    return path.read_bytes()


def png(width: int, height: int, body: bytes) -> bytes:
    """A one-bit grey PNG around a deflated body."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def deflated_zeros(size: int) -> bytes:
    packer = zlib.compressobj(1)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*parts, packer.compress(bytes(size % (1 << 20))), packer.flush()])


def long_wav(seconds: int, rate: int = 8_000, width: int = 1) -> Callable[[Path], None]:
    """All but its header a hole in the file: with one byte a sample an offset, with two silence."""

    def write(path: Path) -> None:
        with wave.open(str(path), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(width)
            out.setframerate(rate)
            out.setnframes(seconds * rate)
            out.writeframesraw(bytes(width))
        with path.open("r+b") as file:  # the module has put the true length in the headers
            size = seconds * rate * width
            for position, value in ((4, size + 36), (40, size)):
                file.seek(position)
                file.write(struct.pack("<I", value))
            file.truncate(size + 44)

    return write


def zipped(size: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.png", bytes(size))
    return packed.getvalue()


def gzipped(size: int) -> bytes:
    return gzip.compress(bytes(size), 1)
