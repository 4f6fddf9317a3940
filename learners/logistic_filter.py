"""Logistic regression by an extended Kalman filter with full covariance.

With inputs x (D,), weights w and covariance P (D, D), and independent effects b_e with variances
v_e for the ids e of the event::

    z = w.x + sum_e b_e         p = sigmoid(z)          h = max(p (1 - p), H_MIN)
    s = x'P x + sum_e v_e       den = 1 / (s + 1 / h)   innovation = (y - p) / h
    w   += P x den innovation                   b_e += v_e den innovation
    P   -= den (P x)(P x)'                      v_e -= den v_e^2

That is one Gauss-Newton step of the posterior mode at each event: there is no learning rate. Only
the lower triangle of P is kept and changed, so P is symmetric by construction. A step is left out
when its inputs or its s are not finite; a diagonal element that rounding drove below `VARIANCE_MIN`
is put back to it.

References
----------
Welling and Teh / Roweis and Ghahramani, An EM algorithm for identification of nonlinear dynamical
systems, 2001; Graepel et al., Web-scale Bayesian click-through rate prediction, ICML 2010 (the
diagonal form); Gama, Kalman filtering for on-line classification, 1999.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit

from schemas.runs import Float32, Int64

H_MIN: Final = 1e-3
VARIANCE_MIN: Final = 1e-9
STEP_MAX: Final = 25.0
"""Largest innovation: with h = H_MIN a single surprise would otherwise move weights by 1 000 P x."""

_FAST: Final = {"reassoc", "contract", "nsz", "arcp"}


@njit(nogil=True, cache=True, _nrt=False)
def sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)) for z within [-30, 30], which it is cut to."""
    return 1.0 / (1.0 + math.exp(-min(30.0, max(-30.0, z))))


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def linear(weights: Float32, x: Float32) -> float:
    """w.x."""
    z = 0.0
    for a in range(len(x)):
        z += weights[a] * x[a]
    return z


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def effects_of(ids: Int64, effects: Float32) -> float:
    """Sum of b_e; ids below 0 have none."""
    z = 0.0
    for e in ids:
        if e >= 0:
            z += effects[e]
    return z


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def spread(covariance: Float32, x: Float32, px: Float32) -> float:
    """Write P x to `px` (D,) from the lower triangle of P, and return x'P x."""
    n = len(x)
    s = 0.0
    for a in range(n):
        row, xa = covariance[a], x[a]
        total = row[a] * xa
        for b in range(a):
            total += row[b] * x[b]
        px[a] = total
        for b in range(a):
            px[b] += row[b] * xa
    for a in range(n):
        s += px[a] * x[a]
    return s


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def _shrink(covariance: Float32, px: Float32, den: float) -> None:
    for a in range(len(covariance)):
        row = covariance[a]
        k = np.float32(px[a] * den)
        for b in range(a + 1):
            row[b] -= k * px[b]
        row[a] = max(row[a], np.float32(VARIANCE_MIN))


@njit(nogil=True, cache=True, _nrt=False)
def learn(
    y: float,
    x: Float32,
    ids: Int64,
    weights: Float32,
    covariance: Float32,
    effects: Float32,
    variances: Float32,
    px: Float32,
) -> bool:
    """One step, as in the module's docstring; False where it was left out.

    Parameters
    ----------
    y : float
        0 or 1.
    x : (D,)
    ids : (I,) rows of `effects` and `variances`, -1 for none
    px : (at least D,) scratch
    """
    z = linear(weights, x) + effects_of(ids, effects)
    s = spread(covariance, x, px) + effects_of(ids, variances)
    if not (math.isfinite(z) and math.isfinite(s)) or s < 0.0:
        return False
    p = sigmoid(z)
    h = max(p * (1.0 - p), H_MIN)
    den = 1.0 / (s + 1.0 / h)
    step = den * min(STEP_MAX, max(-STEP_MAX, (y - p) / h))
    for a in range(len(x)):
        weights[a] += px[a] * step
    _shrink(covariance, px, den)
    for e in ids:
        if e >= 0:
            v = variances[e]
            effects[e] += v * step
            variances[e] = max(v - v * v * den, VARIANCE_MIN)
    return True


def sigmoid_of(logits: Float32) -> Float32:
    """1 / (1 + exp(-z)) of an array."""
    return (1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0)))).astype(np.float32)
