"""Compiled features of content, beside those of `mixture_features`; plain arrays only.

With a user's profile p and what stands in `learners.content_evidence`, of candidate c with n events so far::

    y0        = (p . v_c - mean) / std         near by what encoders found: over all new items
    y1        = as y0, by what the catalogue says (`content_facts`)
    y2, y3    = exp(-(a_c - a)^2 / (2 .3^2))   a = log(1 + age in days): against the newest of the history,
                                               and the mean over its last five
    y4        = f_U . g(x_c) - log mean exp    fused, against all new items, within [-6, 10]
    y5..y9    = nu y0..y4                      nu = exp(-n / 3) up to ten events, then 0
    y10, y11  = nu, 1 if n = 0
    y12, y13  = a_c / 2, nu a_c / 2
    y14..y23  = nu x_f / 2                     f in `SHARED`: what others know weighs otherwise for new items

Zero where an item has no content (y0, y1, y4), or its age is not known.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from schemas.compiled import kernel
from schemas.runs import Float32, Int32, Int64

from .blend_kernels import dot, exp32, log32
from .mixture_features import N_SOURCES

SHARED: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12)
N_OWN: Final = 14
N_CONTENT: Final = N_OWN + len(SHARED)
MOST_EVENTS: Final = 10
UNPUBLISHED: Final = np.iinfo(np.int64).min
"""Time of publication of an item of which it is not known."""
N_AGES: Final = 5
N_NEAR: Final = 60
N_MIXED: Final = 100
N_HOT: Final = 30
N_PROPOSED: Final = N_NEAR + N_MIXED + 2 * N_HOT
"""New items proposed to a user, see `content_evidence`."""
FIRST_NEAR: Final = N_SOURCES
N_NEARNESS: Final = 10
"""Features y0..y9 in the mixture's order."""
IS_NEW: Final = N_SOURCES + 10
IS_UNSEEN: Final = N_SOURCES + 11
"""nu, and whether n = 0, in the mixture's order."""
_SHARED: Final = np.array(SHARED, dtype=np.int32)
_LEAST_FUSED: Final = np.float32(-6.0)
_MOST_FUSED: Final = np.float32(10.0)


class Known(NamedTuple):
    """What is known of N items."""

    near: Float32  # (N, D) 0 where an item has no vector
    facts: Float32  # (N, F)
    fused: Float32  # (N, d)
    has: Int32  # (N,) bit 0: near, bit 1: facts
    log_age: Float32  # (N,) -1 unknown
    support: Int32  # (M,) events


class Profiles(NamedTuple):
    """B users."""

    near: Float32  # (B, D) 0 for a user without any
    facts: Float32  # (B, F)
    vectors: Float32  # (B, d) f_U
    shifts: Float32  # (B, 5) mean and 1 / std of near, of facts, and log mean exp of fused
    ages: Float32  # (B, N_AGES) of the newest items, newest first, -1 unknown


@kernel
def closeness(a: np.float32, b: np.float32) -> np.float32:
    """exp(-(a - b)^2 / (2 .3^2))."""
    z = (a - b) * np.float32(1.0 / 0.3)
    return exp32(max(np.float32(-0.5) * z * z, np.float32(-80.0)))


@kernel
def fill_content(
    n_users: int, filled: Int32, ids: Int32, known: Known, users: Profiles, first: int, x: Float32
) -> None:
    """Features `first` .. of `x` (B, F, C) for the candidates `ids` (B, C) of B users."""
    near, facts, fused, has, log_age = known.near, known.facts, known.fused, known.has, known.log_age
    support, zero, half = known.support, np.float32(0.0), np.float32(0.5)
    for i in range(n_users):
        shifts, ages, count = users.shifts[i], users.ages[i], filled[i]
        by_near, by_facts, vector = users.near[i], users.facts[i], users.vectors[i]
        y = x[i, first:]
        for c in range(count):
            b = ids[i, c]
            known_b = b < len(has)
            bits = has[b] if known_b else 0
            y[0, c] = (dot(by_near, near[b]) - shifts[0]) * shifts[1] if bits & 1 else zero
            y[1, c] = (dot(by_facts, facts[b]) - shifts[2]) * shifts[3] if bits & 2 else zero
            y[4, c] = zero
            if bits:
                y[4, c] = min(max(dot(vector, fused[b]) - shifts[4], _LEAST_FUSED), _MOST_FUSED)
            age = log_age[b] if known_b else np.float32(-1.0)
            y[2, c], y[3, c], y[12, c] = zero, zero, zero
            if age >= zero:
                y[12, c] = half * age
                n_ages = 0
                for j in range(len(ages)):
                    if ages[j] >= zero:
                        w = closeness(age, ages[j])
                        y[2, c] = w if j == 0 else y[2, c]
                        y[3, c] += w
                        n_ages += 1
                if n_ages:
                    y[3, c] /= np.float32(n_ages)
            n = support[b] if b < len(support) else 0
            nu = exp32(np.float32(n) * np.float32(-1.0 / 3.0)) if n <= MOST_EVENTS else zero
            for f in range(5):
                y[5 + f, c] = nu * y[f, c]
            y[10, c] = nu
            y[11, c] = np.float32(1.0) if n == 0 else zero
            y[13, c] = nu * y[12, c]
            for f in range(len(_SHARED)):
                y[N_OWN + f, c] = half * nu * x[i, _SHARED[f], c]


@kernel
def fill_closeness(ages: Float32, log_age: Float32, out: Float32) -> None:
    """y2 of every item for every user into `out` (B, P): `ages` (B,), `log_age` (P,), -1 unknown."""
    for i in range(len(ages)):
        for c in range(len(log_age)):
            known = ages[i] >= np.float32(0.0) and log_age[c] >= np.float32(0.0)
            out[i, c] = closeness(ages[i], log_age[c]) if known else np.float32(0.0)


@kernel
def fill_ages(published_ms: Int64, now_ms: int, out: Float32) -> None:
    """log(1 + age in days) of every item into `out` (N,); -1 where `published_ms` says nothing."""
    for i in range(len(published_ms)):
        if published_ms[i] == UNPUBLISHED:
            out[i] = np.float32(-1.0)
        else:
            days = max(now_ms - published_ms[i], 0) / 86_400_000.0
            out[i] = log32(np.float32(1.0 + days))
