"""Frames of a video through an encoder of pictures, pooled over time; its sound is a modality of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from learners.pooling import attention_pool
from schemas.media import Modality
from schemas.runs import Float32

from .decoded import Film, UInt8
from .encoder import Encoder


class FrameEncoder:
    """Attention over the vectors of a video's frames.

    Parameters
    ----------
    pictures : Encoder
        What encodes a frame.
    query : Float32, optional
        (pictures.dims,), learned elsewhere; without one the vectors are averaged.
    """

    modality: Modality = "video"

    def __init__(self, pictures: Encoder[UInt8], query: Float32 | None = None) -> None:
        self._pictures = pictures
        self.dims = pictures.dims
        self._query = torch.zeros(self.dims) if query is None else torch.tensor(query, dtype=torch.float32)
        pooling = "mean" if query is None else hashlib.sha256(self._query.numpy().tobytes()).hexdigest()[:8]
        self.name = f"frames-{pictures.name}"
        self.version = f"{pictures.version}-{pooling}"

    def encode(self, inputs: Sequence[Film]) -> Float32:
        """See `Encoder.encode`; the frames of all inputs are encoded together."""
        if not inputs:
            return np.zeros((0, self.dims), dtype=np.float32)
        vectors = torch.from_numpy(self._pictures.encode([frame for film in inputs for frame in film.frames]))
        ends = np.cumsum([len(film.frames) for film in inputs]).tolist()
        parts = [vectors[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        pooled = [attention_pool(part[None], self._query)[0] for part in parts]
        return torch.stack(pooled).numpy()
