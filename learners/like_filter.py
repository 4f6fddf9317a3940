"""Probability of a like: a small filter on the click's and the long view's logits, and on like rates.

Likes are few and late, so they are no third target beside clicks and long views, whose hundreds of
inputs they could not fill with meaning. With the running like rate g, the two logits z that the
exposure had before it was learned, and for each of `LIKE_KEYS` its like rate r::

    r = (s'_like + k g) / (n' + k)
    x = [1, logit g, z_click, z_long, logit r_1 - logit g, ..., logit r_K - logit g]
    p = sigmoid(w.x)                 w: `learners.logistic_filter`, from [0, 1, 0, 0, 1/4, ..., 1/4]

x is kept with the exposure (`learners.attribution`) and learned when it closes; a like counts in the
rates at once. So is what was remembered of the user, for click and long view: an impression that
nobody acted on is settled late. Cost: about a microsecond an exposure.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from schemas.compiled import kernel
from schemas.runs import Float32, Float64, Int32, Int64, UInt64

from .attribution import LIKED_NOW, OPENED, SETTLE, Told
from .hashed_rows import find, hash_keys
from .history_attention_kernels import Attentions
from .impression_memory import Memory, recall
from .impressions import LIKE
from .logistic_filter import N_PENDING, Covariance, learn, linear, settle
from .probability_kernels import (
    MS_AN_HOUR,
    N_MEMORY,
    Knowledge,
    Plan,
    Scratch,
    describe_row,
    learn_row,
    predict_row,
    scale_inputs,
)
from .target_statistics import DECAYED, HOUR, SLOW, SUMS

LIKE_KEYS: Final[tuple[tuple[str, ...], ...]] = (
    ("user",),
    ("item",),
    ("creator",),
    ("tag",),
    ("surface",),
    ("user", "creator"),
    ("user", "tag"),
    ("item", "surface"),
)
N_BEFORE: Final = 4
"""Inputs before those of the keys."""

N_INPUTS: Final = N_BEFORE + len(LIKE_KEYS)
_PRIOR_VARIANCE: Final = 0.05
_CUT: Final = 6.0
_RATE_WINDOW: Final = 20_000.0


class LikeFilter(NamedTuple):
    """What is learned of likes beside the rates, and the inputs of exposures that are open."""

    weights: Float32  # (1, L)
    covariance: Float32  # (L, L)
    inputs: Float32  # (C, L) by place of the exposure
    recalled: Float32  # (C, N_MEMORY) what was remembered of its user when it opened


class LikeRoom(NamedTuple):
    """Arrays that are overwritten, and the keys."""

    keys: Int64  # (K,) which of the plan's keys
    hashes: UInt64  # (all keys,)
    rows: Int64
    end: Int64  # (1,) a group of one
    none: Int64  # (0,)
    no_spreads: Float32  # (0,)
    nothing: Float32  # (1, 0)
    px: Float32  # (L,)
    mean: Float32  # (L,)
    y: Float64  # (1,)
    waiting: Float32  # (N_PENDING, L) and the next two: changes of the covariance, made at once
    gains: Float32
    n_waiting: Int64


def no_likes(capacity: int) -> LikeFilter:
    """Nothing was liked yet."""
    weights = np.full((1, N_INPUTS), 1.0 / 4.0, dtype=np.float32)
    weights[0, :N_BEFORE] = 0.0, 1.0, 0.0, 0.0
    return LikeFilter(
        weights=weights,
        covariance=np.eye(N_INPUTS, dtype=np.float32) * np.float32(_PRIOR_VARIANCE),
        inputs=np.zeros((capacity, N_INPUTS), dtype=np.float32),
        recalled=np.zeros((capacity, N_MEMORY), dtype=np.float32),
    )


def like_room(chosen: list[int], n_keys: int) -> LikeRoom:
    """Scratch for keys `chosen` of a plan's `n_keys`."""
    return LikeRoom(
        keys=np.array(chosen, dtype=np.int64),
        hashes=np.zeros(n_keys, dtype=np.uint64),
        rows=np.zeros(n_keys, dtype=np.int64),
        end=np.ones(1, dtype=np.int64),
        none=np.zeros(0, dtype=np.int64),
        no_spreads=np.zeros(0, dtype=np.float32),
        nothing=np.zeros((1, 0), dtype=np.float32),
        px=np.zeros(N_INPUTS, dtype=np.float32),
        mean=np.zeros(N_INPUTS, dtype=np.float32),
        y=np.zeros(1),
        waiting=np.zeros((N_PENDING, N_INPUTS), dtype=np.float32),
        gains=np.zeros(N_PENDING, dtype=np.float32),
        n_waiting=np.zeros(1, dtype=np.int64),
    )


@kernel
def _logit(p: float) -> float:
    return math.log(p / (1.0 - p))


@kernel
def _describe(
    categories: Int32, ts_ms: int, know: Knowledge, plan: Plan, room: LikeRoom, inputs: Float32
) -> None:
    """Write what is known before an exposure, but the two logits, to `inputs` (L,)."""
    hash_keys(categories, plan.keys, room.hashes)
    find(know.owners, room.hashes, room.rows)
    g = know.rates[LIKE]
    inputs[0] = 1.0
    inputs[1] = _logit(g)
    for j in range(len(room.keys)):
        key = room.keys[j]
        r = room.rows[key]
        inputs[N_BEFORE + j] = 0.0
        if r >= 0:
            row = know.table[r]
            fade = 2.0 ** (-max(0.0, ts_ms / MS_AN_HOUR - row[HOUR]) / (SLOW * plan.half_life_h))
            k = plan.shrinkage[key]
            # A like may outlive its impression in a row that another value took: never above all shown.
            n = row[DECAYED] * fade
            rate = (min(row[SUMS + LIKE] * fade, n) + k * g) / (n + k)
            inputs[N_BEFORE + j] = _logit(min(rate, 0.999)) - inputs[1]


@kernel
def _add_logits(logits: Float32, inputs: Float32) -> None:
    for c in range(2):
        inputs[2 + c] = min(_CUT, max(-_CUT, logits[c]))


@kernel
def _count_like(categories: Int32, know: Knowledge, plan: Plan, room: LikeRoom) -> None:
    hash_keys(categories, plan.keys, room.hashes)
    find(know.owners, room.hashes, room.rows)
    for r in room.rows:
        if r >= 0:
            know.table[r, SUMS + LIKE] += 1.0


@kernel
def _follow_rate(y: int, know: Knowledge) -> None:
    sums, counts = know.rate_sums, know.rate_counts
    sums[LIKE] += y
    counts[LIKE] += 1.0
    if counts[LIKE] > _RATE_WINDOW:
        sums[LIKE] *= 0.9
        counts[LIKE] *= 0.9
    know.rates[LIKE] = sums[LIKE] / counts[LIKE]


@kernel
def learn_told(
    n: int,
    told: Told,
    categories: Int32,
    numbers: Float32,
    know: Knowledge,
    memory: Memory,
    tables: Attentions,
    plan: Plan,
    use: Scratch,
    likes: LikeFilter,
    room: LikeRoom,
    logits: Float32,
) -> None:
    """Learn the first `n` entries of `told` in order; `categories` (N, F) and `numbers` (N, 0) are theirs.

    `logits` (2 T,) is written over.
    """
    for i in range(n):
        inputs = likes.inputs[told.places[i]]
        recalled = likes.recalled[told.places[i]]
        if told.what[i] == OPENED:
            recall(memory, told.users[i], told.items[i], told.ts_ms[i], False, recalled)
        elif told.what[i] == SETTLE:
            _describe(categories[i], told.ts_ms[i], know, plan, room, inputs)
            user, item, ts_ms = told.users[i], told.items[i], told.ts_ms[i]
            describe_row(
                0, user, item, ts_ms, False, categories[i], numbers[i], know, memory, tables, plan, use
            )
            # Settled late, it must not know what its user did meanwhile: that says what came of it.
            first = len(use.raw[0]) - 2 * plan.n_hidden - N_MEMORY
            for j in range(N_MEMORY):
                use.raw[0, first + j] = recalled[j]
            scale_inputs(use.raw[0], know, plan.products, use.inputs[0])
            predict_row(0, know, plan, use, logits)
            learn_row(0, user, item, ts_ms, categories[i], told.outcomes[i], logits, know, memory, plan, use)
            _add_logits(logits, inputs)
        elif told.what[i] == LIKED_NOW:
            _count_like(categories[i], know, plan, room)
        else:
            y = told.outcomes[i, LIKE]
            room.y[0] = y
            belief = Covariance(likes.covariance, room.waiting, room.gains, room.n_waiting)
            asked = likes.inputs[told.places[i] : told.places[i] + 1]
            learn(
                room.y,
                asked,
                room.none,
                room.no_spreads,
                likes.weights,
                belief,
                room.nothing,
                room.nothing,
                room.mean,
                room.px,
            )
            settle(belief)
            _follow_rate(y, know)


@kernel
def like_logits(
    ts_ms: Int64,
    categories: Int32,
    know: Knowledge,
    plan: Plan,
    likes: LikeFilter,
    room: LikeRoom,
    logits: Float32,
    found: Float32,
) -> None:
    """Write the logits of a like of N impressions to `found` (N,); `logits` (N, 2 T) has the others'."""
    inputs = room.px  # free while nothing is learned
    for i in range(len(ts_ms)):
        _describe(categories[i], ts_ms[i], know, plan, room, inputs)
        _add_logits(logits[i], inputs)
        found[i] = linear(likes.weights[0], inputs)
