"""Logistic regressions of several targets by an extended Kalman filter with one full covariance.

With the inputs x_c (D,) of target c, all but a few the same for every target, weights w_c, a covariance
P (D, D) that the targets share, and independent effects a_ce with variances v_ce, 1 at first, for the
ids e of the event, each of a kind (user, item, ...) whose effects spread by sigma_e::

    z_c = w_c.x_c + sum_e sigma_e a_ce    p_c = sigmoid(z_c)             h_c = max(p_c (1 - p_c), H_MIN)
    x   = mean_c x_c                      s_c = x'P x + sum_e sigma_e^2 v_ce
    den_c = 1 / (s_c + 1 / h_c)           w_c += P x den_c (y_c - p_c) / h_c
    P   -= den (P x)(P x)'                a_ce += sigma_e v_ce den_c (y_c - p_c) / h_c
                                          v_ce -= den_c (sigma_e v_ce)^2

with the den of P from the means of s_c and h_c over the targets. For one target that is one Gauss-Newton
step of the posterior mode at each event: there is no learning rate. The targets differ in P by their
curvature alone, which on real impressions is so alike that a P of each one's own predicts no better and
costs twice as much.

Changing P moves D^2 / 2 numbers and adds one product to each. So the changes of `N_PENDING` events wait, as
vectors P x and their den, and are then made in one pass; until then they are taken off every product::

    P x = P' x - sum_j den_j q_j (q_j.x)         P' as stored, q_j and den_j waiting

Only the lower triangle of P is kept and changed, so P is symmetric by construction. A step is left out
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
from typing import Final, NamedTuple

import numpy as np
from numba import njit

from schemas.runs import Float32, Float64, Int64

H_MIN: Final = 1e-3
VARIANCE_MIN: Final = 1e-9
STEP_MAX: Final = 25.0
"""Largest innovation: with h = H_MIN a single surprise would otherwise move weights by 1 000 P x."""

N_PENDING: Final = 8
"""Events whose changes of P are made together; a multiple of four."""

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
def effects_of(ids: Int64, spreads: Float32, effects: Float32) -> float:
    """Sum of sigma_e a_e over ids (I,) with their `spreads` (I,); ids below 0 have none."""
    z = 0.0
    for i in range(len(ids)):
        if ids[i] >= 0:
            z += spreads[i] * effects[ids[i]]
    return z


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def _variance_of(ids: Int64, spreads: Float32, variances: Float32) -> float:
    """Sum of sigma_e^2 v_e."""
    s = 0.0
    for i in range(len(ids)):
        if ids[i] >= 0:
            s += spreads[i] * spreads[i] * variances[ids[i]]
    return s


class Covariance(NamedTuple):
    """P of D inputs."""

    lower: Float32  # (D, D), of which the lower triangle is used
    waiting: Float32  # (N_PENDING, D) vectors q
    gains: Float32  # (N_PENDING,) their den
    n_waiting: Int64  # (1,)


def covariance_of(variances: Float32) -> Covariance:
    """Independent inputs with these variances (D,)."""
    return Covariance(
        lower=np.diag(variances).astype(np.float32),
        waiting=np.zeros((N_PENDING, len(variances)), dtype=np.float32),
        gains=np.zeros(N_PENDING, dtype=np.float32),
        n_waiting=np.zeros(1, dtype=np.int64),
    )


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def _product(lower: Float32, x: Float32, px: Float32) -> None:
    """Write P' x to `px` (D,) from the lower triangle, four rows at once: each is read a single time."""
    n = len(x)
    for b in range(n):
        px[b] = 0.0
    a = 0
    while a + 4 <= n:
        r0, r1, r2, r3 = lower[a], lower[a + 1], lower[a + 2], lower[a + 3]
        x0, x1, x2, x3 = x[a], x[a + 1], x[a + 2], x[a + 3]
        t0 = t1 = t2 = t3 = np.float32(0.0)
        for b in range(a):
            xb = x[b]
            t0 += r0[b] * xb
            t1 += r1[b] * xb
            t2 += r2[b] * xb
            t3 += r3[b] * xb
            px[b] += r0[b] * x0 + r1[b] * x1 + r2[b] * x2 + r3[b] * x3
        px[a] += t0 + r0[a] * x0 + r1[a] * x1 + r2[a] * x2 + r3[a] * x3
        px[a + 1] += t1 + r1[a] * x0 + r1[a + 1] * x1 + r2[a + 1] * x2 + r3[a + 1] * x3
        px[a + 2] += t2 + r2[a] * x0 + r2[a + 1] * x1 + r2[a + 2] * x2 + r3[a + 2] * x3
        px[a + 3] += t3 + r3[a] * x0 + r3[a + 1] * x1 + r3[a + 2] * x2 + r3[a + 3] * x3
        a += 4
    while a < n:
        row, xa, t = lower[a], x[a], np.float32(0.0)
        for b in range(a):
            t += row[b] * x[b]
            px[b] += row[b] * xa
        px[a] += t + row[a] * xa
        a += 1


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def spread(covariance: Covariance, x: Float32, px: Float32) -> float:
    """Write P x to `px` (D,), and return x'P x."""
    _product(covariance.lower, x, px)
    for j in range(covariance.n_waiting[0]):
        q = covariance.waiting[j]
        k = np.float32(covariance.gains[j] * linear(q, x))
        for a in range(len(x)):
            px[a] -= k * q[a]
    return linear(px, x)


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def settle(covariance: Covariance) -> None:
    """Make the changes that wait."""
    lower, q, gains = covariance.lower, covariance.waiting, covariance.gains
    for j in range(covariance.n_waiting[0], N_PENDING):
        gains[j] = 0.0
    for a in range(len(lower)):
        row = lower[a]
        for j in range(0, N_PENDING, 4):
            k0, k1 = q[j, a] * gains[j], q[j + 1, a] * gains[j + 1]
            k2, k3 = q[j + 2, a] * gains[j + 2], q[j + 3, a] * gains[j + 3]
            q0, q1, q2, q3 = q[j], q[j + 1], q[j + 2], q[j + 3]
            for b in range(a + 1):
                row[b] -= k0 * q0[b] + k1 * q1[b] + k2 * q2[b] + k3 * q3[b]
        row[a] = max(row[a], np.float32(VARIANCE_MIN))
    covariance.n_waiting[0] = 0


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def _mean_of(xs: Float32, mean: Float32) -> None:
    scale = np.float32(1.0 / len(xs))
    for a in range(len(mean)):
        total = np.float32(0.0)
        for c in range(len(xs)):
            total += xs[c, a]
        mean[a] = total * scale


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def _move(weights: Float32, px: Float32, step: float) -> None:
    k = np.float32(step)
    for a in range(len(weights)):
        weights[a] += px[a] * k


@njit(nogil=True, cache=True, _nrt=False)
def learn(
    ys: Float64,
    xs: Float32,
    ids: Int64,
    effect_spreads: Float32,
    weights: Float32,
    covariance: Covariance,
    effects: Float32,
    variances: Float32,
    mean: Float32,
    px: Float32,
) -> bool:
    """One step, as in the module's docstring; False where it was left out.

    Parameters
    ----------
    ys : (T,)
        0 or 1 of each target, below 0 where it is not known: such a target learns nothing.
    xs : (T, D)
    ids : (I,) rows of `effects` and `variances` (T, Q), -1 for none
    effect_spreads : (I,) the sigma of each
    weights : (T, D)
    mean, px : (D,) scratch
    """
    _mean_of(xs, mean)
    of_inputs = spread(covariance, mean, px)
    if not math.isfinite(of_inputs) or of_inputs < 0.0:
        return False
    n, curvature, spreads = 0, 0.0, 0.0
    for c in range(len(ys)):
        z = linear(weights[c], xs[c]) + effects_of(ids, effect_spreads, effects[c])
        s = of_inputs + _variance_of(ids, effect_spreads, variances[c])
        if ys[c] < 0 or not (math.isfinite(z) and math.isfinite(s)):
            continue
        p = sigmoid(z)
        h = max(p * (1.0 - p), H_MIN)
        den = 1.0 / (s + 1.0 / h)
        step = den * min(STEP_MAX, max(-STEP_MAX, (ys[c] - p) / h))
        _move(weights[c], px, step)
        for i in range(len(ids)):
            e = ids[i]
            if e >= 0:
                covaried = effect_spreads[i] * variances[c, e]
                effects[c, e] += covaried * step
                variances[c, e] = max(variances[c, e] - covaried * covaried * den, VARIANCE_MIN)
        n += 1
        curvature += h
        spreads += s
    if n == 0:
        return False
    at = covariance.n_waiting[0]
    for a in range(len(px)):
        covariance.waiting[at, a] = px[a]
    covariance.gains[at] = 1.0 / (spreads / n + n / curvature)
    covariance.n_waiting[0] = at + 1
    if at + 1 == N_PENDING:
        settle(covariance)
    return True


def sigmoid_of(logits: Float32) -> Float32:
    """1 / (1 + exp(-z)) of an array."""
    return (1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0)))).astype(np.float32)
