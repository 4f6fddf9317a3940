"""Ridge regression on many targets at once, exact after every block, without a rate to choose.

After the rows x_1 .. x_n (each with a constant 1 appended) with targets y_1 .. y_n::

    W = argmin sum_i |y_i - W'x_i|^2 + lambda |W|^2 = P sum_i x_i y_i'     P = (lambda I + sum_i x_i x_i')^-1

and with a block X (B, D) of new rows, by the matrix inversion lemma::

    K = P X' (I + X P X')^-1      W += K (Y - X W)      P -= K X P

All targets share P, so another target is another column: zeros are exactly what W would be, had the
target been 0 in every row so far. Blocks give what single rows give, but for rounding.

References
----------
Plackett, Some theorems in least squares, Biometrika 1950.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays
from schemas.runs import Float32, Float64

from .state import taken


class RecursiveRidge:
    """See the module's docstring.

    Cost: O(D^2) a row, 16 bytes D^2 while it learns; P is float64.

    Parameters
    ----------
    dim : int
        Numbers in a row, without the constant.
    n_targets : int
        T; columns never taught give 0.
    ridge : float
        lambda; rows have length 1, so it is in rows.

    >>> ridge = RecursiveRidge(2, 1, ridge=0.5)
    >>> ridge.learn(np.array([[1.0, 0.0]], np.float32), np.array([[1.0]], np.float32))
    True
    >>> ridge.predict(np.array([[1.0, 0.0]], np.float32))
    array([[0.8]], dtype=float32)
    """

    def __init__(self, dim: int, n_targets: int, *, ridge: float) -> None:
        self._inverse: Float64 = np.eye(dim + 1) / ridge
        self._weights: Float64 = np.zeros((dim + 1, n_targets))

    @property
    def n_targets(self) -> int:
        """T."""
        return int(self._weights.shape[1])

    def predict(self, rows: Float32) -> Float32:
        """W'x of `rows` (N, D): (N, T)."""
        scores: Float32 = (rows @ self._weights[:-1] + self._weights[-1]).astype(np.float32)
        return scores

    def learn(self, rows: Float32, targets: Float32) -> bool:
        """Learn `rows` (B, D) with `targets` (B, T); False where that would not stay finite."""
        x = np.append(rows, np.ones((len(rows), 1)), axis=1).astype(np.float64)  # (B, D + 1)
        spread = x @ self._inverse  # (B, D + 1)
        inner = np.eye(len(x)) + spread @ x.T
        gain = np.linalg.solve(inner, spread) if np.isfinite(inner).all() else np.full_like(spread, np.nan)
        change = gain.T @ (targets - x @ self._weights)
        if not np.isfinite(change).all() or (np.diag(inner) < 1.0).any():
            return False
        self._weights += change
        self._inverse -= spread.T @ gain
        return True

    def widen(self, n_targets: int) -> None:
        """Have at least so many targets."""
        missing = n_targets - self.n_targets
        if missing > 0:
            self._weights = np.pad(self._weights, ((0, 0), (0, missing)))

    def clear(self, target: int) -> None:
        """A column becomes another target, which was 0 so far."""
        self._weights[:, target] = 0.0

    def arrays(self) -> Arrays:
        """Views of the state: ``inverse`` (D + 1, D + 1) and ``weights`` (D + 1, T) float64."""
        return {"inverse": self._inverse, "weights": self._weights}

    def checked(self, arrays: Mapping[str, NDArray[Any]], prefix: str, n_targets: int) -> list[Float64]:
        """Copies of the arrays named ``<prefix>.inverse`` and ``<prefix>.weights``, for `load`.

        Raises
        ------
        StateError
            One is missing, of another shape, or holds a number that is not finite.
        """
        n = len(self._inverse)
        like = np.zeros((n, n_targets))
        found = [
            taken(arrays, f"{prefix}.inverse", self._inverse, rows=n),
            taken(arrays, f"{prefix}.weights", like, rows=n),
        ]
        if not all(np.isfinite(each).all() for each in found):
            raise StateError(f"'{prefix}' holds numbers that are not finite")
        return found

    def load(self, inverse: Float64, weights: Float64) -> None:
        """Become what `checked` gave."""
        self._inverse, self._weights = inverse, weights
