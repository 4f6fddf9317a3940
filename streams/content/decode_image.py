"""A picture file as RGB pixels of one size."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np

from schemas.errors import MediaError

from .decoded import Picture
from .extra import extra
from .lengths import check_length, check_pixels
from .limits import Form, MediaLimits

with extra():
    from PIL import Image, ImageOps, UnidentifiedImageError


def decode_image(file: BinaryIO, kind: str, limits: MediaLimits, form: Form) -> Picture:
    """Open, check the size before a pixel is unpacked, decode the first frame, squash, turn as EXIF says.

    Transparency is laid on white. Squashing commutes with EXIF's quarter turns, and comes first as it makes
    them cheap.

    Raises
    ------
    MediaError
        too_many_pixels, truncated, unreadable, memory.
    """
    Image.MAX_IMAGE_PIXELS = None  # ours is checked below
    check_length(file, kind)
    side = (form.side, form.side)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
            image = Image.open(file, formats=(kind.upper(),))
            width, height = image.size
            check_pixels(width, height, limits)
            turn = image.getexif().get(_ORIENTATION)
            image.draft("RGB", (2 * form.side, 2 * form.side))  # JPEG: unpack at a fraction of the size
            small = _flat(image).resize(side, Image.Resampling.BILINEAR, reducing_gap=2.0)
            small.getexif()[_ORIENTATION] = turn or 1
            small = ImageOps.exif_transpose(small)
            return Picture(np.asarray(small, dtype=np.uint8), width, height)
    except MediaError:
        raise
    except MemoryError as error:
        raise MediaError("memory", "decoding the picture") from error
    except UnidentifiedImageError as error:
        raise MediaError("unreadable", "no picture behind the header") from error
    except Exception as error:  # the decoders raise whatever comes up: IndexError, struct.error, SyntaxError
        raise _refusal(error) from error


_ORIENTATION = 0x0112


def _flat(image: Image.Image) -> Image.Image:
    """RGB on white; 16-bit greys keep their high byte."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, dtype=np.int64) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size, (255, 255, 255))
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat
    return image.convert("RGB")


def _refusal(error: Exception) -> MediaError:
    text = str(error)
    lower = text.lower()
    if "truncat" in lower or isinstance(error, EOFError):
        return MediaError("truncated", text)
    if "too large" in lower:  # Pillow's own limit on unpacked metadata
        return MediaError("too_large", text)
    return MediaError("unreadable", f"{type(error).__name__}: {text}")
