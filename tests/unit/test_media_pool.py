"""Good files are decoded, hostile ones refused for the right reason, and the pool outlives them all."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from schemas.errors import MediaError, ReelflowError
from schemas.media import MediaModality, MediaReason
from schemas.settings import load_settings
from streams.content.decoded import Film, Picture, Sound
from streams.content.fetch import open_medium
from streams.content.limits import Form, MediaLimits, SourceRules
from streams.content.pool import MediaPool
from streams.content_worker import media_pool

from .. import media_files as make
from ..hostile_files import HEAVY, HOSTILE, LIMITS, Hostile


@pytest.fixture(scope="module")
def pool() -> Iterator[MediaPool]:
    rules = SourceRules(schemes=("memory",))
    with MediaPool(rules, LIMITS, Form(side=32, frames=4), workers=2) as running:
        yield running


def refused(pool: MediaPool, reference: Path | str, modality: MediaModality) -> MediaReason:
    with pytest.raises(MediaError) as raised:
        pool.read(str(reference), modality)
    return raised.value.reason


@contextmanager
def with_limits(pool: MediaPool, **limits: float) -> Iterator[None]:
    pool.limits = msgspec.structs.replace(LIMITS, **limits)
    try:
        yield
    finally:
        pool.limits = LIMITS


def test_pictures(pool: MediaPool, tmp_path: Path) -> None:
    expected = np.asarray(Image.fromarray(make.pixels()).resize((32, 32), Image.Resampling.BOX), dtype=float)
    for name in ("a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "noextension"):
        make.picture(tmp_path / name, **({} if "." in name else {"format": "png"}))
        decoded = pool.read(str(tmp_path / name), "image")
        assert isinstance(decoded, Picture)
        assert (decoded.width, decoded.height, decoded.pixels.shape) == (80, 60, (32, 32, 3))
        assert abs(decoded.pixels - expected).mean() < 25, name


def test_exif_turns_and_transparency_is_white(pool: MediaPool, tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 32), "black")
    image.paste("white", (0, 0, 64, 16))  # its upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the upper half becomes the right one
    image.save(tmp_path / "turned.jpg", exif=exif)
    turned = pool.read(str(tmp_path / "turned.jpg"), "image")
    assert isinstance(turned, Picture)
    assert turned.pixels[:, :14].max() < 30
    assert turned.pixels[:, 18:].min() > 220
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((20, 20), 0x8000, dtype=np.uint16)).save(tmp_path / "deep.png")
    clear, deep = (pool.read(str(tmp_path / name), "image") for name in ("clear.png", "deep.png"))
    assert isinstance(clear, Picture)
    assert isinstance(deep, Picture)
    assert (clear.pixels == 255).all()
    assert (deep.pixels == 0x80).all()


def test_sounds(pool: MediaPool, tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        make.sound(tmp_path / name)
    make.film(tmp_path / "a.mp4")
    make.film(tmp_path / "a.webm")
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3", "a.mp4", "a.webm"):
        decoded = pool.read(str(tmp_path / name), "audio")
        assert isinstance(decoded, Sound)
        (segment,) = decoded.segments
        assert decoded.duration_s == pytest.approx(1.0, abs=0.15), name
        assert 20 * np.log10(np.sqrt((segment**2).mean())) == pytest.approx(-23.0, abs=0.7), name
        pitch = float(np.abs(np.fft.rfft(segment[4_000:12_000])).argmax()) * 2.0
        assert pitch == pytest.approx(440.0, abs=4.0), name


def test_frames_are_spread_over_the_duration(pool: MediaPool, tmp_path: Path) -> None:
    make.film(tmp_path / "a.mp4", 4.0)
    decoded = pool.read(f"file://{tmp_path}/a.mp4", "video")
    assert isinstance(decoded, Film)
    assert decoded.times_s.tolist() == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert decoded.frames.mean(axis=(1, 2, 3)) == pytest.approx([40, 80, 120, 160], abs=5)
    assert decoded.sound is not None
    make.film(tmp_path / "silent.webm", 1.0, track=False)
    silent = pool.read(str(tmp_path / "silent.webm"), "video")
    assert isinstance(silent, Film)
    assert (silent.sound, silent.no_sound, len(silent.frames)) == (None, "empty", 4)


def test_long_videos_are_read_from_key_frames(pool: MediaPool, tmp_path: Path) -> None:
    make.film(tmp_path / "a.mp4", 80.0, size=(16, 16), track=False)  # a key frame every 1.2 s
    decoded = pool.read(str(tmp_path / "a.mp4"), "video")
    assert isinstance(decoded, Film)
    assert decoded.times_s == pytest.approx([10.0, 30.0, 50.0, 70.0], abs=1.3)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mov", "a.ts"])
def test_containers(pool: MediaPool, tmp_path: Path, name: str) -> None:
    make.film(tmp_path / name, 2.0)
    decoded = pool.read(str(tmp_path / name), "video")
    assert isinstance(decoded, Film)
    assert decoded.frames.mean(axis=(1, 2, 3)) == pytest.approx([30, 50, 70, 90], abs=7)
    assert decoded.sound is not None


def test_a_recording_that_does_not_tell_its_duration(pool: MediaPool, tmp_path: Path) -> None:
    make.film(tmp_path / "a.webm", 3.0, live=True, track=False)
    decoded = pool.read(str(tmp_path / "a.webm"), "video")
    assert isinstance(decoded, Film)
    assert len(decoded.frames) == 4
    assert (np.diff(decoded.times_s) > 0.5).all()
    assert decoded.duration_s == pytest.approx(2.9, abs=0.6)


def test_same_bytes_give_same_arrays(pool: MediaPool, tmp_path: Path) -> None:
    make.film(tmp_path / "a.mp4")
    with ThreadPoolExecutor(4) as threads:
        films = list(threads.map(lambda _: pool.read(str(tmp_path / "a.mp4"), "video"), range(4)))
    seen = {
        (film.frames.tobytes(), film.sound.segments[0].tobytes())
        for film in films
        if isinstance(film, Film) and film.sound
    }
    assert len(seen) == 1


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_hostile_files(pool: MediaPool, tmp_path: Path, hostile: Hostile) -> None:
    path = hostile.write(tmp_path)
    decoders = pool.pids
    with with_limits(pool, **hostile.limits):
        assert refused(pool, path, hostile.modality) == hostile.reason
    make.picture(tmp_path / "good.png")
    for _ in decoders:  # each of them still reads what is good
        assert isinstance(pool.read(str(tmp_path / "good.png"), "image"), Picture)
    assert pool.pids == decoders


def test_limits_are_those_of_the_settings() -> None:
    environ = {
        "REELFLOW_CONTENT_MAX_MEDIA_MIB": "7", "REELFLOW_CONTENT_MAX_MEGAPIXELS": "3",
        "REELFLOW_CONTENT_MAX_AUDIO_S": "10800", "REELFLOW_CONTENT_MAX_VIDEO_S": "20000",
        "REELFLOW_CONTENT_FETCH_S": "4", "REELFLOW_CONTENT_DECODE_S": "6",
        "REELFLOW_CONTENT_DECODE_MEMORY_MIB": "99", "REELFLOW_CONTENT_MEDIA_WORKERS": "1",
    }  # fmt: skip
    with media_pool(load_settings(environ), 22_050) as running:
        assert running.limits == MediaLimits(
            max_bytes=7 << 20, max_pixels=3_000_000, max_audio_s=10_800.0, max_video_s=20_000.0, fetch_s=4.0,
            decode_s=6.0, decode_cpu_s=6, memory_mib=99,
        )  # fmt: skip
        assert running.form == Form(sample_rate=22_050)
    defaults = load_settings({"REELFLOW_CONTENT_MEDIA_WORKERS": "1"})
    with media_pool(defaults, 16_000) as running:
        assert (running.limits, running.form) == (MediaLimits(), Form())


def test_processor_time_is_limited_too(pool: MediaPool, tmp_path: Path) -> None:
    make.long_wav(1_500, 384_000)(tmp_path / "a.wav")
    with with_limits(pool, **HEAVY, decode_cpu_s=1):
        assert refused(pool, tmp_path / "a.wav", "audio") == "timeout"


def test_what_is_no_file(pool: MediaPool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, reason in (
            (tmp_path / "pipe.png", "unsupported"),
            (tmp_path / "socket", "unsupported"),
            (Path("/dev/zero"), "unsupported"),
            (tmp_path, "unsupported"),
            (tmp_path / "missing.png", "not_found"),
            (tmp_path / "missing" / "a.png", "not_found"),
            ("a" * 5_000, "not_found"),
            ("a\0b", "unreadable"),
        ):
            assert refused(pool, path, "image") == reason, path


def test_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    make.picture(path)
    path.chmod(0)
    tmp_path.chmod(0o755)
    # Root may read everything, so someone else asks; who cannot become someone else is not root.
    program = (
        "import os, sys\n"
        "from streams.content.fetch import open_medium\n"
        "from streams.content.limits import MediaLimits, SourceRules\n"
        "from schemas.errors import MediaError\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: open_medium(sys.argv[1], SourceRules(), MediaLimits())\n"
        "except MediaError as error: print(error.reason)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "permission\n"


def test_only_from_the_folders_that_are_listed(pool: MediaPool, tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    make.picture(inside / "a.png")
    make.picture(outside / "a.png")
    (inside / "link.png").symlink_to(outside / "a.png")
    allowed = pool.rules
    pool.rules = SourceRules(roots=(str(inside),))
    try:
        assert isinstance(pool.read(str(inside / "a.png"), "image"), Picture)
        for reference in (
            outside / "a.png",
            inside / "link.png",
            f"{inside}/../out/a.png",
            f"file://{outside}/a.png",
            "memory://a.png",
            "ftp://host/a.png",
            f"zip://a.png::file://{inside}/a.zip",
            f"local://{inside}/a.png",
        ):
            assert refused(pool, reference, "image") == "path_not_allowed", reference
    finally:
        pool.rules = allowed


def test_fsspec(pool: MediaPool) -> None:
    assert refused(pool, "memory://nothing.png", "image") == "not_found"
    rules = SourceRules(schemes=("memory", "s4"))
    MemoryFileSystem().pipe_file("/media/a.png", b"12345")
    file, name = open_medium("memory://media/a.png", rules, LIMITS)
    with file:
        assert (file.read(), name) == (b"12345", "media/a.png")
    for url, limit, reason in (
        ("memory://media/a.png", 4, "too_large"),
        ("s4://bucket/a.png", 4, "unreadable"),  # nothing of fsspec's knows it
    ):
        with pytest.raises(MediaError) as raised:
            open_medium(url, rules, msgspec.structs.replace(LIMITS, max_bytes=limit))
        assert raised.value.reason == reason


def test_decoders_end_with_their_pool(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from streams.content.pool import MediaPool\n"
        "pool = MediaPool(workers=1)\n"
        "print(*pool.pids, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        decoder = os.pidfd_open(int(owner.stdout.readline()))
        try:
            owner.kill()
            ended = select.poll()
            ended.register(decoder, select.POLLIN)
            assert ended.poll(30_000)
        finally:
            os.close(decoder)


def test_a_decoder_that_dies_is_replaced(tmp_path: Path) -> None:
    make.picture(tmp_path / "a.png")
    with MediaPool(workers=1) as pool:
        (before,) = pool.pids
        os.kill(before, signal.SIGKILL)
        assert refused(pool, tmp_path / "a.png", "image") == "crashed"
        assert isinstance(pool.read(str(tmp_path / "a.png"), "image"), Picture)
        assert pool.pids != [before]
        assert pool.n_replaced == 1
    with pytest.raises(ReelflowError, match="closed"):
        pool.read(str(tmp_path / "a.png"), "image")


DAMAGED = {
    "empty",
    "memory",
    "too_large",
    "too_long",
    "too_many_pixels",
    "truncated",
    "unreadable",
    "unsupported",
    "wrong_type",
}
N_MUTANTS = int(os.environ.get("FUZZ_MEDIA", "48"))


def test_mutated_files_are_decoded_or_refused(pool: MediaPool, tmp_path: Path) -> None:
    """Bytes changed, cut out or doubled anywhere: no reason but those of damaged files, no decoder lost."""
    generator = np.random.default_rng(7)
    seeds: list[tuple[str, bytes, MediaModality]] = [
        (name, make.picture(tmp_path / name), "image")
        for name in ("a.jpg", "a.png", "a.gif", "a.webp", "a.bmp")
    ]
    seeds += [(name, make.sound(tmp_path / name), "audio") for name in ("a.wav", "a.flac", "a.ogg", "a.mp3")]
    seeds += [(name, make.film(tmp_path / name), "video") for name in ("a.mp4", "a.webm", "a.avi")]
    decoders = pool.pids
    reasons: list[str] = []
    for n in range(N_MUTANTS):
        name, data, modality = seeds[n % len(seeds)]
        mutant = bytearray(data)
        for _ in range(generator.integers(1, 8)):
            at = int(generator.integers(0, len(mutant)))
            size = int(generator.integers(1, 40))
            change = generator.integers(0, 3)
            if change == 0:
                mutant[at : at + size] = generator.bytes(size)
            elif change == 1:
                del mutant[at : at + size]
            else:
                mutant[at:at] = mutant[at : at + size]
        (tmp_path / f"mutant-{name}").write_bytes(mutant)
        try:
            assert isinstance(pool.read(str(tmp_path / f"mutant-{name}"), modality), Picture | Sound | Film)
            reasons.append("none")
        except MediaError as error:
            reasons.append(error.reason)
    assert pool.pids == decoders
    assert set(reasons) - {"none"} <= DAMAGED, reasons
    assert len(set(reasons)) > 2
