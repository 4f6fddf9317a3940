"""The compiled steps of the probability learner: describe, predict and learn groups of tied rows."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit

from schemas.compiled import kernel
from schemas.runs import Float32, Float64, Int8, Int32, Int64, UInt64

from . import impression_memory as memories
from .calibration_curve import calibrated, follow
from .factorisation import logit_of, step
from .hashed_rows import claim, find, hash_keys, mixed
from .history_attention_kernels import Attentions, attention_logit
from .impression_memory import Memory, recall, remember, unrolled
from .impressions import CLICK, LONG
from .logistic_filter import Covariance, effects_of, learn, linear, sigmoid
from .target_statistics import N_FEATURES, N_TARGETS, count, describe, follow_rates

MS_AN_HOUR: Final = 3_600_000.0
MAX_TIED: Final = 64
"""Rows predicted together at most; of a longer tie the rest is another."""

CLIP: Final = 4.0
N_OPINIONS: Final = 3
"""Inputs that are predictions themselves: of the factorisation, and of attention over all and prior."""

_SPREAD_MIN: Final = 1e-6


class Knowledge(NamedTuple):
    """Arrays that learning changes; T targets, D inputs, R rows, Q factorisation rows, I effects."""

    owners: UInt64  # (R,)
    table: Float32  # (R, 16)
    rate_sums: Float64  # (5,)
    rate_counts: Float64
    rates: Float64
    means: Float64  # (S,) of the inputs that are scaled
    squares: Float64  # (S,) sum of squared differences
    n_seen: Float64  # (1,)
    weights: Float32  # (T, D)
    covariance: Float32  # (D, D), and what `logistic_filter.Covariance` has beside it
    waiting: Float32
    gains: Float32
    n_waiting: Int64
    effects: Float32  # (T, Q)
    variances: Float32  # (T, Q), 1 at first
    curves: Float64  # (T, N_KNOTS), and their variances
    curve_variances: Float64
    head_weights: Float32  # (T, D')
    head_covariance: Float32  # (D', D')
    head_waiting: Float32
    head_gains: Float32
    head_n_waiting: Int64
    head_effects: Float32  # (T, Q)
    head_variances: Float32  # (T, Q)
    biases: Float64  # (T, 1)
    linear: Float32  # (T, Q)
    linear_squares: Float32  # (T, Q)
    factors: Float32  # (T, Q, d)
    factor_squares: Float32  # (T, Q)


class Plan(NamedTuple):
    """What does not change."""

    keys: Int32  # (K, 3) columns of the categories, -1 padded
    shrinkage: Float64  # (K,)
    effect_columns: Int32  # categories with an effect of their own
    effect_spreads: Float32  # sigma of each
    head_effects: Int32  # keys with an effect of their own in the ranking head
    head_spreads: Float32
    n_head_levels: int  # the first of them, which are learned and not scored
    products: Int32  # (M, 2) scaled inputs whose products are inputs
    factor_columns: Int32  # categories of the factorisation, those of the user first
    n_user_columns: int
    n_hidden: int  # hidden units of each attention that are inputs
    head_inputs: Int32  # inputs of the ranking head
    half_life_h: float
    prior_rates: tuple[float, float]  # of the factorisation: linear, vectors
    rates: tuple[float, float]


class Scratch(NamedTuple):
    """Arrays that are overwritten."""

    hashes: UInt64  # (K,)
    rows: Int64  # (K,)
    raw: Float32  # (MAX_TIED, S)
    inputs: Float32  # (MAX_TIED, D)
    opinions: Float32  # (MAX_TIED, T, N_OPINIONS)
    effect_rows: Int64  # (MAX_TIED, I)
    head_rows: Int64  # (MAX_TIED, I')
    factor_rows: Int64  # (MAX_TIED, J)
    total: Float32  # (d,)
    history: Int32  # (50,)
    work: Float32  # (4, 128)
    px: Float32  # (D,)
    mean: Float32  # (D,)
    own: Float32  # (T, D)
    head: Float32  # (T, D')
    ys: Float64  # (T,)
    missed: Float64  # (T,)
    uncalibrated: Float64  # (MAX_TIED, T) logits before the curve


class Seen(NamedTuple):
    """What the predictions were made of, for comparison with other models; empty where nobody asks."""

    inputs: Float32  # (N, S) before scaling
    opinions: Float32  # (N, T, N_OPINIONS)


@kernel
def hashed_rows(categories: Int32, columns: Int32, n_rows: int, rows: Int64) -> None:
    """Rows of single categories in a table of 2^n rows that is shared by hashing."""
    mask = np.uint64(n_rows - 1)
    for j in range(len(columns)):
        value = categories[columns[j]]
        rows[j] = -1
        if value >= 0:
            rows[j] = np.int64(mixed(mixed(np.uint64(7), columns[j] + 1), value + 1) & mask)


@njit(nogil=True, cache=True, _nrt=False, fastmath={"contract", "arcp"})
def scale_inputs(raw: Float32, know: Knowledge, products: Int32, inputs: Float32) -> None:
    """Write `raw` (S,), scaled and cut, the products, cut too, and the constant to `inputs`."""
    n = know.n_seen[0]
    for j in range(len(raw)):
        scale = math.sqrt(know.squares[j] / n + _SPREAD_MIN)
        inputs[j] = min(CLIP, max(-CLIP, (raw[j] - know.means[j]) / scale))
    at = len(raw)
    for j in range(len(products)):
        product = inputs[products[j, 0]] * inputs[products[j, 1]]
        inputs[at + j] = min(CLIP, max(-CLIP, product))
    inputs[at + len(products)] = 1.0


@njit(nogil=True, cache=True, _nrt=False, fastmath={"contract", "arcp"})
def _observe(raw: Float32, know: Knowledge) -> None:
    know.n_seen[0] += 1.0
    n = know.n_seen[0]
    for j in range(len(raw)):
        difference = raw[j] - know.means[j]
        know.means[j] += difference / n
        know.squares[j] += difference * (raw[j] - know.means[j])


@kernel
def _place(inputs: Float32, opinions: Float32, plan: Plan, own: Float32, head: Float32) -> None:
    """Inputs of each target, with its own opinions, and those of the ranking head."""
    first = len(inputs) - N_OPINIONS
    for c in range(N_TARGETS):
        for j in range(first):
            own[c, j] = inputs[j]
        for j in range(N_OPINIONS):
            own[c, first + j] = opinions[c, j]
        for j in range(len(plan.head_inputs)):
            head[c, j] = own[c, plan.head_inputs[j]]


@kernel
def _keep(raw: Float32, opinions: Float32, inputs: Float32, kept: Float32) -> None:
    for j in range(len(raw)):
        inputs[j] = raw[j]
    for c in range(N_TARGETS):
        for j in range(N_OPINIONS):
            kept[c, j] = opinions[c, j]


@kernel
def describe_row(
    i: int,
    user: int,
    item: int,
    ts_ms: int,
    tied: bool,
    categories: Int32,
    numbers: Float32,
    know: Knowledge,
    memory: Memory,
    tables: Attentions,
    plan: Plan,
    use: Scratch,
) -> None:
    """Write the inputs of an impression to place `i` of the scratch arrays."""
    hash_keys(categories, plan.keys, use.hashes)
    find(know.owners, use.hashes, use.rows)
    raw = use.raw[i]
    n_keys, n_numbers = len(plan.keys), len(numbers)
    first = n_keys * N_FEATURES
    describe(know.table, use.rows, plan.shrinkage, ts_ms / MS_AN_HOUR, plan.half_life_h, know.rates, raw)
    for j in range(n_numbers):
        raw[first + j] = numbers[j]
    recall(memory, user, item, ts_ms, tied, raw[first + n_numbers :])
    hashed_rows(categories, plan.effect_columns, know.effects.shape[1], use.effect_rows[i])
    mask = np.uint64(know.head_effects.shape[1] - 1)
    for j in range(len(plan.head_effects)):
        h = use.hashes[plan.head_effects[j]]
        use.head_rows[i, j] = np.int64(h & mask) if h != np.uint64(0) else np.int64(-1)
    hashed_rows(categories, plan.factor_columns, know.linear.shape[1], use.factor_rows[i])
    n = unrolled(memory.rings, memory.counts, user, len(tables.live.keys), use.history)
    live = attention_logit(tables.live, item, use.history[:n], use.work)
    at = len(raw) - 2 * plan.n_hidden
    for j in range(plan.n_hidden):
        raw[at + j] = use.work[3, j]
    n = unrolled(memory.prior_rings, memory.prior_counts, user, len(tables.prior.keys), use.history)
    before = attention_logit(tables.prior, item, use.history[:n], use.work)
    for j in range(plan.n_hidden):
        raw[at + plan.n_hidden + j] = use.work[3, j]
    scale_inputs(raw, know, plan.products, use.inputs[i])
    for c in range(N_TARGETS):
        use.opinions[i, c, 0] = logit_of(
            use.factor_rows[i], know.biases[c, 0], know.linear[c], know.factors[c], use.total
        )
        use.opinions[i, c, 1] = live
        use.opinions[i, c, 2] = before


@kernel
def predict_row(i: int, know: Knowledge, plan: Plan, use: Scratch, logits: Float32) -> None:
    """Logits of each target, then those of the ranking head, for place `i`; `logits` is (2 T,)."""
    _place(use.inputs[i], use.opinions[i], plan, use.own, use.head)
    first = plan.n_head_levels
    rows, spreads = use.head_rows[i, first:], plan.head_spreads[first:]
    for c in range(N_TARGETS):
        of_ids = effects_of(use.effect_rows[i], plan.effect_spreads, know.effects[c])
        use.uncalibrated[i, c] = linear(know.weights[c], use.own[c]) + of_ids
        logits[c] = calibrated(use.uncalibrated[i, c], know.curves[c])
        of_ids = effects_of(rows, spreads, know.head_effects[c])
        logits[N_TARGETS + c] = linear(know.head_weights[c], use.head[c]) + of_ids


@kernel
def learn_row(
    i: int,
    user: int,
    item: int,
    ts_ms: int,
    categories: Int32,
    outcomes: Int8,
    logits: Float32,
    know: Knowledge,
    memory: Memory,
    plan: Plan,
    use: Scratch,
) -> None:
    """Learn the impression in place `i`, which was predicted with `logits`."""
    shown = outcomes[CLICK] >= 0
    rates = plan.rates if shown else plan.prior_rates
    if shown:
        for c in range(N_TARGETS):
            use.ys[c] = outcomes[c]
            use.missed[c] = 0.0
            if outcomes[c] >= 0:
                use.missed[c] = outcomes[c] - sigmoid(logits[c])
                follow(use.uncalibrated[i, c], outcomes[c], know.curves[c], know.curve_variances[c])
        _place(use.inputs[i], use.opinions[i], plan, use.own, use.head)
        learn(
            use.ys, use.own, use.effect_rows[i], plan.effect_spreads, know.weights,
            Covariance(know.covariance, know.waiting, know.gains, know.n_waiting),
            know.effects, know.variances, use.mean, use.px,
        )  # fmt: skip
        n = len(plan.head_inputs)
        learn(
            use.ys, use.head, use.head_rows[i], plan.head_spreads, know.head_weights,
            Covariance(know.head_covariance, know.head_waiting, know.head_gains, know.head_n_waiting),
            know.head_effects, know.head_variances, use.mean[:n], use.px[:n],
        )  # fmt: skip
    else:
        for c in range(N_TARGETS):
            use.missed[c] = 0.0
    for c in range(N_TARGETS):
        y = outcomes[c] if shown else outcomes[LONG]
        if y < 0:
            continue
        step(
            y, use.factor_rows[i], plan.n_user_columns if shown else 0, know.biases[c], know.linear[c],
            know.linear_squares[c], know.factors[c], know.factor_squares[c], rates[0], rates[1], use.total,
        )  # fmt: skip
    if shown:
        _observe(use.raw[i], know)
    hash_keys(categories, plan.keys, use.hashes)
    claim(know.owners, know.table, use.hashes, use.rows)
    count(know.table, use.rows, ts_ms / MS_AN_HOUR, plan.half_life_h, outcomes, use.missed)
    follow_rates(outcomes, know.rate_sums, know.rate_counts, know.rates)
    remember(memory, user, item, ts_ms, outcomes)


@kernel
def play(
    users: Int32,
    items: Int32,
    ts_ms: Int64,
    categories: Int32,
    numbers: Float32,
    outcomes: Int8,
    ends: Int64,
    learning: bool,
    know: Knowledge,
    memory: Memory,
    tables: Attentions,
    plan: Plan,
    use: Scratch,
    logits: Float32,
    seen: Seen,
) -> None:
    """Predict every group of tied rows and, where `learning`, learn it before the next one.

    `logits` (N, 2 T) is written where the click is known or nothing is learned. Of prior history only
    what it teaches is computed. `seen` is written where `logits` is, unless it is empty.
    """
    n, last = 0, len(users)
    while n < last:
        end = min(ends[n], n + MAX_TIED)
        for row in range(n, end):
            i = row - n
            if learning and outcomes[row, CLICK] < 0:
                hashed_rows(categories[row], plan.factor_columns, know.linear.shape[1], use.factor_rows[i])
                continue
            describe_row(
                i, users[row], items[row], ts_ms[row], end - n > 1, categories[row], numbers[row],
                know, memory, tables, plan, use,
            )  # fmt: skip
            predict_row(i, know, plan, use, logits[row])
            if len(seen.inputs):
                _keep(use.raw[i], use.opinions[i], seen.inputs[row], seen.opinions[row])
        if learning:
            for row in range(n, end):
                learn_row(
                    row - n, users[row], items[row], ts_ms[row], categories[row], outcomes[row],
                    logits[row], know, memory, plan, use,
                )  # fmt: skip
        n = end


@kernel
def replay(outcomes: Int8, categories: Int32, know: Knowledge, plan: Plan, use: Scratch) -> None:
    """Teach the factorisation a prior history once more."""
    for row in range(len(outcomes)):
        if outcomes[row, LONG] < 0:
            continue
        hashed_rows(categories[row], plan.factor_columns, know.linear.shape[1], use.factor_rows[0])
        for c in range(N_TARGETS):
            step(
                outcomes[row, LONG], use.factor_rows[0], 0, know.biases[c], know.linear[c],
                know.linear_squares[c], know.factors[c], know.factor_squares[c],
                plan.prior_rates[0], plan.prior_rates[1], use.total,
            )  # fmt: skip


N_MEMORY: Final = memories.N_FEATURES
