"""Vectors of the stamps by the default encoders, kept beside the stamps until an encoder changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import MediaError
from schemas.runs import Float32
from streams.content.audio_encoder import LogMelEncoder
from streams.content.decode_audio import decode_audio
from streams.content.decode_image import decode_image
from streams.content.decoded import Sound, UInt8
from streams.content.image_encoder import default_image_encoder
from streams.content.limits import Form, MediaLimits
from streams.content.text_encoder import SentenceEncoder

from .stamps import CLASS_WORDS, Stamp

BATCH = 32


def stamp_vectors(stamps: Sequence[Stamp], cache: Path, say: Callable[[str], None]) -> dict[str, Float32]:
    """``text``, ``text_zh``, ``image``, ``audio`` (N, D), NaN where one lacks; ``tag`` (T, D), sorted."""
    text, image, audio = SentenceEncoder(), default_image_encoder(), LogMelEncoder()
    tags = sorted({stamp.tag for stamp in stamps})
    key = [*(f"{each.name} {each.version}" for each in (text, image, audio)), *(one.name for one in stamps)]
    file = cache / f"vectors-{hashlib.sha256(chr(10).join(key).encode()).hexdigest()[:16]}.npz"
    if not file.is_file():
        say("encoding titles")
        found = {
            "text": _encoded(text, [stamp.title or None for stamp in stamps]),
            "text_zh": _encoded(text, [stamp.title_zh or None for stamp in stamps]),
            "tag": _encoded(text, [CLASS_WORDS.get(tag, tag) for tag in tags]),
        }
        say("encoding pictures")
        found["image"] = _encoded(image, [_picture(stamp.picture) for stamp in stamps])
        say("encoding sounds")
        found["audio"] = _encoded(audio, [_sound(stamp.sound) for stamp in stamps])
        np.savez(file, allow_pickle=False, **found)
    with np.load(file) as held:
        return {name: held[name] for name in held.files}


def _encoded(encoder: Any, inputs: Sequence[Any]) -> Float32:
    rows = np.flatnonzero([each is not None for each in inputs])
    vectors = np.full((len(inputs), encoder.dims), np.nan, dtype=np.float32)
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        vectors[part] = encoder.encode([inputs[row] for row in part.tolist()])
    return vectors


def _picture(path: Path | None) -> UInt8 | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return decode_image(file, "png", MediaLimits(), Form()).pixels


def _sound(path: Path | None) -> Sound | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return decode_audio(file, path.suffix[1:], MediaLimits(), Form())
    except MediaError:
        return None
