"""A picture file as RGB pixels of one size."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np

from schemas.errors import MediaError

from .decoded import Picture, UInt8
from .extra import extra
from .lengths import check_length, check_pixels
from .limits import Form, MediaLimits

with extra():
    from PIL import Image, ImageOps, UnidentifiedImageError


def decode_image(file: BinaryIO, kind: str, limits: MediaLimits, form: Form) -> Picture:
    """A picture as encoders read it; see `decode_both`."""
    return decode_both(file, kind, limits, form)[0]


def decode_both(file: BinaryIO, kind: str, limits: MediaLimits, form: Form) -> tuple[Picture, UInt8 | None]:
    """Open, check the size before a pixel is unpacked, decode the first frame, squash, turn as EXIF says.

    Transparency is laid on white. Squashing commutes with EXIF's quarter turns, and comes first as it makes
    them cheap.

    Returns
    -------
    The picture, and with `Form.text_side` the pixels (height, width, 3) in which words are to be read.

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
            least = max(2 * form.side, form.text_side)
            image.draft("RGB", (least, least))  # JPEG: unpack at a fraction of the size
            flat = _flat(image)
            picture = Picture(_turned(_resized(flat, side), turn), width, height)
            if not form.text_side:
                return picture, None
            ratio = min(1.0, form.text_side / max(flat.size))
            words = (max(1, round(flat.width * ratio)), max(1, round(flat.height * ratio)))
            return picture, _turned(_resized(flat, words), turn)
    except MediaError:
        raise
    except MemoryError as error:
        raise MediaError("memory", "decoding the picture") from error
    except UnidentifiedImageError as error:
        raise MediaError("unreadable", "no picture behind the header") from error
    except Exception as error:  # the decoders raise whatever comes up: IndexError, struct.error, SyntaxError
        raise _refusal(error) from error


_ORIENTATION = 0x0112


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _turned(image: Image.Image, turn: int | None) -> UInt8:
    """Pixels of a picture turned as EXIF's orientation says."""
    image.getexif()[_ORIENTATION] = turn or 1
    return np.asarray(ImageOps.exif_transpose(image), dtype=np.uint8)


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
