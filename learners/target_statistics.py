"""Shrunk, decayed statistics of what came of earlier impressions, by key.

A row keeps of the impressions with its key's value, at event time t:

====================  ==========================================================================
n                     impressions
n', s'_c              decayed impressions, and those with outcome c: each weighs 2^(-age / half_life),
                      with a half-life `SLOW` times that of n~
m, m_long             watches, and long ones: known from a prior history too, where clicks are not
n~                    decayed impressions
r_c, r~_c             sum of what the predictions missed, y_c - p_c, plain and decayed; click and long
====================  ==========================================================================

With running rates g_c of all impressions and a shrinkage k of the key, it gives `N_FEATURES` inputs::

    log(1 + n),  log(1 + m)
    logit((s'_c + k g_c) / (n' + k))          c = click, long
    logit((m_long + k g) / (m + k))
    r_c / (n + k),  r~_c / (n~ + k)           c = click, long

Rates fade slowly: a user or item has few impressions, and forgetting them costs more than their age. What
is new shows in r~, which fades fast.

A row that is absent is the one of a value never met: its rates are the running rates.

References
----------
Micci-Barreca, A preprocessing scheme for high-cardinality categorical attributes, SIGKDD
Explorations 2001 (shrinkage). Cormode et al., Forward decay, ICDE 2009.
"""

from __future__ import annotations

import math
from typing import Final

from schemas.compiled import kernel
from schemas.runs import Float32, Float64, Int8, Int64

from .impressions import CLICK, LONG, OUTCOMES

N_TARGETS: Final = 2
"""Outcomes with predictions of their own, the first of OUTCOMES: click and long."""

N_OUTCOMES: Final = len(OUTCOMES)
N_DESCRIBED: Final = 2
"""Outcomes whose rate is an input, the first of OUTCOMES: likes are too few, completions like long views."""

SHOWN, RATE = 0, 1
WATCH_RATE: Final = RATE + N_DESCRIBED
MISS: Final = WATCH_RATE + 1
RECENT_MISS: Final = MISS + N_TARGETS
WATCHES: Final = RECENT_MISS + N_TARGETS
N_FEATURES: Final = WATCHES + 1
"""Places of a key's inputs, those of an outcome c at RATE + c, MISS + c and RECENT_MISS + c."""

N_RATES: Final = N_OUTCOMES + 1
"""Running rates: those of OUTCOMES, and of long among watches."""

HOUR, N, DECAYED, SUMS, WATCHED, MISSED, MISSED_DECAYED, RECENT = 0, 1, 2, 3, 7, 9, 11, 13
N_COLUMNS: Final = 16
"""A row is one line of the processor's cache; two columns are spare."""

SLOW: Final = 10.0
_RATE_WINDOW: Final = 2_000_000.0
"""Long: inputs that lean on the running rates move with them, and the filter has to follow."""

_RATE_PRIOR: Final = 200.0
FIRST_RATES: Final = (0.44, 0.31, 0.2, 0.02, 0.36)


@kernel
def _logit(p: float) -> float:
    return math.log(p / (1.0 - p))


@kernel
def describe(
    table: Float32,
    rows: Int64,
    shrinkage: Float64,
    hour: float,
    half_life_h: float,
    rates: Float64,
    inputs: Float32,
) -> None:
    """Write the inputs of an event at `hour` to `inputs` (K N_FEATURES,)."""
    for key in range(len(rows)):
        r, k = rows[key], shrinkage[key]
        at = N_FEATURES * key
        if r < 0:
            inputs[at + SHOWN] = 0.0
            for c in range(N_DESCRIBED):
                inputs[at + RATE + c] = _logit(rates[c])
            inputs[at + WATCH_RATE] = _logit(rates[N_OUTCOMES])
            for c in range(2 * N_TARGETS):
                inputs[at + MISS + c] = 0.0
            inputs[at + WATCHES] = 0.0
            continue
        row = table[r]
        age = max(0.0, hour - row[HOUR]) / half_life_h
        fade, slow = 2.0**-age, 2.0 ** (-age / SLOW)
        n, decayed, recent = row[N], row[DECAYED] * slow, row[RECENT] * fade
        inputs[at + SHOWN] = math.log(1.0 + n)
        for c in range(N_DESCRIBED):
            inputs[at + RATE + c] = _logit((row[SUMS + c] * slow + k * rates[c]) / (decayed + k))
        watched = (row[WATCHED + 1] + k * rates[N_OUTCOMES]) / (row[WATCHED] + k)
        inputs[at + WATCH_RATE] = _logit(watched)
        inputs[at + WATCHES] = math.log(1.0 + row[WATCHED])
        for c in range(N_TARGETS):
            inputs[at + MISS + c] = row[MISSED + c] / (n + k)
            inputs[at + RECENT_MISS + c] = row[MISSED_DECAYED + c] * fade / (recent + k)


@kernel
def count(
    table: Float32, rows: Int64, hour: float, half_life_h: float, outcomes: Int8, missed: Float64
) -> None:
    """Count an event's outcomes, -1 for unknown, in its rows; `missed` (N_TARGETS,) is y - p."""
    for r in rows:
        if r < 0:
            continue
        row = table[r]
        if hour > row[HOUR]:
            age = (hour - row[HOUR]) / half_life_h
            fade, slow = 2.0**-age, 2.0 ** (-age / SLOW)
            row[HOUR] = hour
            row[DECAYED] *= slow
            row[RECENT] *= fade
            for c in range(N_OUTCOMES):
                row[SUMS + c] *= slow
            for c in range(N_TARGETS):
                row[MISSED_DECAYED + c] *= fade
        if outcomes[CLICK] >= 0:
            row[N] += 1.0
            row[DECAYED] += 1.0
            row[RECENT] += 1.0
            for c in range(N_OUTCOMES):
                row[SUMS + c] += max(outcomes[c], 0)
            for c in range(N_TARGETS):
                row[MISSED + c] += missed[c]
                row[MISSED_DECAYED + c] += missed[c]
        if outcomes[CLICK] != 0 and outcomes[LONG] >= 0:
            row[WATCHED] += 1.0
            row[WATCHED + 1] += outcomes[LONG]


@kernel
def follow_rates(outcomes: Int8, sums: Float64, counts: Float64, rates: Float64) -> None:
    """Move the running rates (N_RATES,), of the last two million impressions or so, by an event."""
    for c in range(N_RATES):
        y = outcomes[c] if c < N_OUTCOMES else (outcomes[LONG] if outcomes[CLICK] != 0 else -1)
        if y < 0 or (c < N_OUTCOMES and outcomes[CLICK] < 0):
            continue
        sums[c] += y
        counts[c] += 1.0
        if counts[c] > _RATE_WINDOW:
            sums[c] *= 0.9
            counts[c] *= 0.9
        rates[c] = sums[c] / counts[c]


def first_rates() -> tuple[Float64, Float64, Float64]:
    """Sums, counts and rates (N_RATES,) each, before anything was seen."""
    import numpy as np

    rates = np.array(FIRST_RATES)
    counts = np.full(N_RATES, _RATE_PRIOR)
    return rates * counts, counts, rates
