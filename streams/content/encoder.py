"""What an encoder is: inputs of one modality in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from schemas.errors import ContractError
from schemas.media import Modality
from schemas.runs import Float32

Input = TypeVar("Input", contravariant=True)  # noqa: PLC0105 - one word of the field


class Encoder(Protocol[Input]):
    """A pre-trained model that turns inputs of one modality into vectors.

    Encoding is deterministic, keeps no state, and a row does not depend on the others of its call but for
    rounding. `Input` is str for text, uint8 (side, side, 3) for images, `Sound` and `Film` for the others.
    Vectors of different names or versions are never to be compared.

    Attributes
    ----------
    name, version : str
        Of model, weights and preprocessing together: equal pairs give equal vectors.
    dims : int
        Of the vectors.
    modality : Modality
        What it reads.
    """

    name: str
    version: str
    dims: int
    modality: Modality

    def encode(self, inputs: Sequence[Input]) -> Float32:
        """Vectors float32 (n, dims), finite, one row an input; (0, dims) of none."""


def checked_vector(values: ArrayLike, dims: int, field: str) -> Float32:
    """A vector that came from elsewhere, as float32 (dims,).

    Raises
    ------
    ContractError
        bad_value: not `dims` numbers, or one that is not finite as float32; names `field`.

    >>> checked_vector([1, 2.5], 2, "vectors.image").tolist()
    [1.0, 2.5]
    """
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{field}: not a vector of numbers", reason="bad_value", field=field) from error
    if vector.shape != (dims,):
        message = f"{field}: shape {vector.shape}, expected ({dims},)"
        raise ContractError(message, reason="bad_value", field=field)
    if not np.isfinite(vector).all():
        raise ContractError(f"{field}: numbers that are not finite", reason="bad_value", field=field)
    return vector
