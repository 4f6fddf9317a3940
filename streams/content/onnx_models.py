"""ONNX files as functions of arrays; also the features in the middle of a classifier."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from schemas.runs import Float32

from .extra import extra

BATCH = 16
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


class OnnxModel:
    """One input, one output; in the numbers of the file, float16 included.

    Parameters
    ----------
    path : Path
        The model.
    output : str, optional
        Name of any tensor in the graph; by default the first output.
    threads : int
        Cores it may use.
    on_gpu : bool
        Whether on CUDA; it is the onnxruntime-gpu package that can.

    Attributes
    ----------
    digest : str
        Eight hex digits of the file's SHA-256.
    input_shape : tuple
        With None where an axis has no fixed size.

    Raises
    ------
    ConfigurationError
        It is not on this machine, is no ONNX model, has several inputs, no tensor of that name, or no CUDA.
    """

    def __init__(
        self, path: Path, output: str | None = None, *, threads: int = 1, on_gpu: bool = False
    ) -> None:
        with extra():
            import onnxruntime
        if on_gpu and CUDA not in onnxruntime.get_available_providers():
            raise ConfigurationError(
                "content.device", "this onnxruntime knows no CUDA: install onnxruntime-gpu in its place"
            )
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ConfigurationError("content.model", f"the model is not on this machine: {error}") from error
        self.digest = hashlib.sha256(model).hexdigest()[:8]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model if output is None else with_output(model, output),
                options,
                providers=[CUDA, CPU] if on_gpu else [CPU],
            )
        except Exception as error:  # its errors share no public base class
            raise ConfigurationError("content.model", f"{path}: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ConfigurationError("content.model", f"{path} has {len(inputs)} inputs, not one")
        self._input = inputs[0].name
        self._halves = inputs[0].type == "tensor(float16)"
        self.input_shape = tuple(n if isinstance(n, int) else None for n in inputs[0].shape)
        self._output = output or self._session.get_outputs()[0].name

    def run(self, inputs: NDArray[Any]) -> Float32:
        """The output for inputs (n, ...), computed `BATCH` rows at a time, flat: float32 (n, d)."""
        if self._halves:
            inputs = inputs.astype(np.float16)
        parts = [
            self._session.run([self._output], {self._input: inputs[start : start + BATCH]})[0]
            for start in range(0, len(inputs), BATCH)
        ]
        whole = np.concatenate(parts)
        return np.ascontiguousarray(whole.reshape(len(inputs), -1), dtype=np.float32)


def with_output(model: bytes, tensor: str) -> bytes:
    """An ONNX file with one more output, a tensor that its graph computes.

    Parsers of protocol buffers merge a message that follows another of its type: fields that are messages are
    merged, repeated ones appended. So a ModelProto is appended that has nothing but
    ``graph { output { name: tensor } }`` (fields 7, 12, 1).
    """

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + _varint(len(content)) + content

    return model + field(7, field(12, field(1, tensor.encode())))


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
