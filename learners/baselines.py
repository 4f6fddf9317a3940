"""Lists of the baselines that reelflow is measured against while it runs."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from schemas.runs import Int32


def lists_with_popular(
    heads: Int32, history: Int32, popular: Int32, withdrawn: NDArray[np.bool_], k: int
) -> Int32:
    """First `k` of each head, then of what is popular, without history, withdrawn and repeated items.

    Parameters
    ----------
    heads : (B, C) int32
        The baseline's own candidates, best first, -1 padded; C may be 0 (popularity alone).
    history : (B, H) int32
        Items to leave out, -1 padded.
    popular : (P,) int32
        Most popular first; P >= H + C + k fills every list if there are as many items.
    withdrawn : (N,) bool
        Items that may not be listed.

    Returns
    -------
    (B, k) int32
        -1 padded.
    """
    out = np.full((len(history), k), -1, dtype=np.int32)
    _fill(heads, history, popular, withdrawn, out)
    return out


@njit(nogil=True, cache=True)
def _fill(heads: Int32, history: Int32, popular: Int32, withdrawn: NDArray[np.bool_], out: Int32) -> None:
    n_users, k = out.shape
    n_heads = heads.shape[1]
    for i in range(n_users):
        n = 0
        for j in range(n_heads + len(popular)):
            if n == k:
                break
            item = heads[i, j] if j < n_heads else popular[j - n_heads]
            if item < 0 or (item < len(withdrawn) and withdrawn[item]):
                continue
            taken = False
            for h in range(history.shape[1]):
                if history[i, h] == item:
                    taken = True
                    break
            if not taken:
                for m in range(n):
                    if out[i, m] == item:
                        taken = True
                        break
            if not taken:
                out[i, n] = item
                n += 1
