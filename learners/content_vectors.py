"""What encoders found in items: one vector a modality, and which modalities an item has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.runs import Float32, Int32

Bools = NDArray[np.bool_]


class ContentVectors(Struct, frozen=True):
    """Vectors of N items; the order of the modalities is that of `vectors`.

    A modality that an item lacks has ``present`` False; its vector is not looked at.
    """

    vectors: dict[str, Float32]  # each (N, D_m)
    present: Bools  # (N, M)

    def __len__(self) -> int:
        return len(self.present)

    def take(self, rows: Int32 | Bools | slice) -> ContentVectors:
        """The rows asked for.

        >>> one = ContentVectors({"text": np.ones((2, 3), np.float32)}, np.ones((2, 1), bool))
        >>> len(one.take(np.array([0], np.int32)))
        1
        """
        return ContentVectors({name: each[rows] for name, each in self.vectors.items()}, self.present[rows])


def content_of(n: int, given: Mapping[str, Float32], dims: Mapping[str, int]) -> ContentVectors:
    """`ContentVectors` of `n` items from vectors by modality, where a row of NaN says that it lacks.

    Modalities of `dims` that are not given are absent for all; vectors with a number that is not finite
    count as absent.

    >>> found = content_of(2, {"text": np.array([[1.0], [np.nan]], np.float32)}, {"text": 1, "image": 2})
    >>> found.present.tolist()
    [[True, False], [False, False]]
    """
    vectors = {}
    present = np.zeros((n, len(dims)), dtype=np.bool_)
    for column, (name, dim) in enumerate(dims.items()):
        each = np.asarray(given.get(name, np.full((n, dim), np.nan, np.float32)), dtype=np.float32)
        if each.shape != (n, dim):
            raise ValueError(f"{name!r} has the shape {each.shape}, not {(n, dim)}")
        present[:, column] = np.isfinite(each).all(axis=1)
        vectors[name] = np.where(present[:, column, None], each, np.float32(0.0))
    return ContentVectors(vectors, present)


def normalised(vectors: Float32, present: Bools) -> Float32:
    """LayerNorm without gain, scaled to length 1: (x - mean x) / (std x sqrt D); 0 where absent.

    Also 0 for a vector whose numbers are all the same, and for one with a number that is
    not finite.

    Parameters
    ----------
    vectors : (N, D) float32
    present : (N,) bool
    """
    usable = present & np.isfinite(vectors).all(axis=1)
    x = np.where(usable[:, None], vectors, np.float32(0.0)).astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    length = np.sqrt((x**2).sum(axis=1, keepdims=True))
    unit: Float32 = np.divide(x, length, out=np.zeros_like(x), where=length > 1e-12).astype(np.float32)
    return unit


def usable(content: ContentVectors) -> Bools:
    """Which modalities are present and finite: (N, M)."""
    found = content.present.copy()
    for column, each in enumerate(content.vectors.values()):
        found[:, column] &= np.isfinite(each).all(axis=1)
    return found
