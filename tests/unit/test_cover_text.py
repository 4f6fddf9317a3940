"""Words on covers: read within a job's limits, and what becomes of them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image

from schemas.content_settings import ContentSettings
from schemas.errors import ExtraError, MediaError
from schemas.media import MediaModality
from streams.content.cover_text import MOST_LINES, SIDE, CoverReader
from streams.content.decoded import Picture, UInt8
from streams.content.encoders import EncoderSet, covers_version, load_slot
from streams.content.limits import Form
from streams.content.pool import MediaPool
from streams.content.texts import with_cover

from .. import media_files as make
from ..hostile_files import HOSTILE, LIMITS, Hostile

LINES = ("三分钟学会做红烧肉", "A LIGHTHOUSE KEEPER")
PICTURES = [one for one in HOSTILE if one.modality == "image"]


def cover(*lines: str, height: int = 360, size: int = 44) -> UInt8:
    """A cover with lines of white on blue."""
    pixels = np.full((height, 640, 3), (40, 90, 160), dtype=np.uint8)
    for row, line in enumerate(lines):
        cv2.putText(pixels, line, (30, 60 + 2 * size * row), (255, 255, 255), cv2.FontFace("uni"), size, 500)
    return pixels


def words(text: str | None) -> str:
    return "".join((text or "").split()).lower()


EXPECTED = words("".join(LINES))


@pytest.fixture(scope="module")
def pool() -> Iterator[MediaPool]:
    limits = msgspec.structs.replace(LIMITS, memory_mib=512)
    with MediaPool(None, limits, Form(side=32, text_side=SIDE), workers=1) as running:
        yield running


def read(pool: MediaPool, path: Path) -> Picture:
    decoded = pool.read(str(path), "image")
    assert isinstance(decoded, Picture)
    return decoded


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_chinese_and_english_words_are_read(pool: MediaPool, tmp_path: Path, name: str) -> None:
    Image.fromarray(cover(*LINES)).save(tmp_path / name)
    picture = read(pool, tmp_path / name)
    assert words(picture.text) == EXPECTED
    assert (picture.pixels.shape, picture.width, picture.height) == ((32, 32, 3), 640, 360)


def test_large_covers_are_read_small_and_as_exif_turns_them(pool: MediaPool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    large = Image.fromarray(cover(*LINES)).resize((2_560, 1_440))
    large.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif)
    assert words(read(pool, tmp_path / "a.jpg").text) == EXPECTED


def test_pictures_without_words(pool: MediaPool, tmp_path: Path) -> None:
    make.picture(tmp_path / "squares.png")
    for name, size in (("ribbon.png", (1, 20_000)), ("dot.png", (1, 1))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    for name in ("squares.png", "ribbon.png", "dot.png"):
        assert read(pool, tmp_path / name).text == "", name


def test_a_page_full_of_words_is_read_in_part(pool: MediaPool, tmp_path: Path) -> None:
    page = np.hstack([cover(*["红烧肉清蒸鱼"] * 24, height=640, size=12)[:, :160]] * 4)
    Image.fromarray(page).save(tmp_path / "page.png")
    text = read(pool, tmp_path / "page.png").text
    assert text is not None
    assert 20 < len(text.split("\n")) <= MOST_LINES


@pytest.mark.parametrize("fault", ["time.sleep(600)", "os.abort()", "raise MemoryError", "os._exit(0)"])
def test_what_reading_leads_to_costs_the_words_and_not_the_picture(tmp_path: Path, fault: str) -> None:
    make.picture(tmp_path / "a.png")
    program = f"""
import ctypes, os, sys, time
import msgspec
from streams.content.decoded import unpack
from streams.content.decoder import Job, load_decoders, run_job
from streams.content.limits import Form, MediaLimits, SourceRules

class Reader:
    def read(self, pixels):
        {fault}

decoders = msgspec.structs.replace(load_decoders(read_covers=False), covers=Reader())
job = Job(sys.argv[1], "image", SourceRules(), MediaLimits(decode_s=2.0, fetch_s=300.0), Form(text_side=64))
kind, payload = run_job(job, decoders, ctypes.CDLL(None), (), os.open(os.devnull, os.O_RDWR))
picture = unpack(payload)
print(kind.decode(), picture.pixels.shape, picture.text)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "R (256, 256, 3) None\n"


@pytest.mark.parametrize("hostile", PICTURES, ids=lambda one: one.name)
def test_hostile_pictures_are_refused_as_without_reading(
    pool: MediaPool, tmp_path: Path, hostile: Hostile
) -> None:
    limits = pool.limits
    pool.limits = msgspec.structs.replace(LIMITS, **hostile.limits)
    try:
        with pytest.raises(MediaError) as raised:
            pool.read(str(hostile.write(tmp_path)), "image")
    finally:
        pool.limits = limits
    assert raised.value.reason == hostile.reason


def test_other_media_are_decoded_by_the_same_decoders(pool: MediaPool, tmp_path: Path) -> None:
    make.sound(tmp_path / "a.flac")
    make.film(tmp_path / "a.mp4")
    names: tuple[tuple[str, MediaModality], ...] = (("a.flac", "audio"), ("a.mp4", "video"))
    for name, modality in names:
        pool.read(str(tmp_path / name), modality)


def test_reading_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert words(CoverReader().read(cover(*LINES))) == EXPECTED


def test_without_the_extra_a_pool_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rapidocr.py").write_text("raise ModuleNotFoundError('gone', name='rapidocr')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ExtraError, match=r"pip install 'reelflow\[ocr\]'"):
        MediaPool(None, LIMITS, Form(text_side=SIDE), workers=1)


def test_encoders_that_read_covers_are_others() -> None:
    slots: dict[Any, Any] = {
        name: load_slot("text", ContentSettings(text_encoder="none"))
        for name in ("text", "image", "audio", "video")
    }
    plain, reading = EncoderSet(slots), EncoderSet(slots, covers_version())
    assert (plain.reads_covers, reading.reads_covers) == (False, True)
    assert plain.digest != reading.digest


def test_a_title_goes_with_what_it_does_not_say() -> None:
    assert with_cover("", "A\nB") == "A B"
    assert with_cover("Fix a Chain", "FIX A CHAIN!\nin ten minutes\nin ten minutes\n--") == (
        "Fix a Chain in ten minutes"
    )
    assert with_cover("Title", "") == "Title"
