"""What people would use instead, on the same impressions in the same order.

=================  ===========================================================================
item_ctr           shrunk click (long view) rate of the item so far, decayed by a day
river_logistic     river's logistic regression on ids and context, one-hot
river_fm           river's factorisation machine on the same
fm                 our factorisation machine alone, the prior history replayed first
lightgbm_6h        LightGBM refitted on all impressions so far every six hours of event time,
                   on every input our learner has, its factorisation and attention included
=================  ===========================================================================

Each predicts the impressions of a tie together and learns them afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import numpy as np

from learners.impressions import Impressions, group_ends
from learners.logistic_filter import sigmoid_of
from learners.probability_kernels import Seen
from learners.target_statistics import N_TARGETS
from schemas.runs import Int8
from streams.evaluation.impressions import Predicted

HOUR_MS: Final = 3_600_000
REFIT_MS: Final = 6 * HOUR_MS
LIGHTGBM: Final[dict[str, Any]] = {
    "objective": "binary",
    "num_leaves": 31,
    "learning_rate": 0.05,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "verbosity": -1,
}
ROUNDS: Final = 150
SHRINKAGE: Final = 20.0
CTR_HALF_LIFE_H: Final = 24.0


def targets_of(impressions: Impressions) -> Int8:
    """Outcomes (N, T) of the targets."""
    return impressions.outcomes[:, :N_TARGETS]


def item_ctr(impressions: Impressions) -> Predicted:
    """Shrunk, decayed rate of the item."""
    y = targets_of(impressions).astype(np.float64)
    began = time.thread_time()
    n_items = int(impressions.items.max(initial=0)) + 1
    sums, counts = np.zeros((n_items, N_TARGETS)), np.zeros(n_items)
    last_h = np.zeros(n_items)
    total, n = np.full(N_TARGETS, 3.0), 10.0
    p = np.zeros(y.shape)
    ends = group_ends(impressions.users, impressions.ts_ms)
    hours = impressions.ts_ms / HOUR_MS
    start = 0
    while start < len(p):
        end = int(ends[start])
        for row in range(start, end):
            item = impressions.items[row]
            fade = 2.0 ** ((last_h[item] - hours[row]) / CTR_HALF_LIFE_H)
            p[row] = (sums[item] * fade + SHRINKAGE * total / n) / (counts[item] * fade + SHRINKAGE)
        for row in range(start, end):
            item = impressions.items[row]
            fade = 2.0 ** ((last_h[item] - hours[row]) / CTR_HALF_LIFE_H)
            sums[item] = sums[item] * fade + y[row]
            counts[item] = counts[item] * fade + 1.0
            last_h[item] = hours[row]
            total += y[row]
            n += 1.0
        start = end
    return Predicted(probabilities=p, us_per_event=_us(began, len(p)))


def river_model(kind: str, impressions: Impressions, categories: tuple[str, ...]) -> Predicted:
    """River's ``logistic`` regression or ``fm``, one model a target."""
    y = targets_of(impressions)
    rows = [
        {f"{name}={value}": 1.0 for name, value in zip(categories, row, strict=True) if value >= 0}
        for row in impressions.categories.tolist()
    ]
    make = _logistic if kind == "logistic" else _machine
    models = [make() for _ in range(N_TARGETS)]
    ends = group_ends(impressions.users, impressions.ts_ms)
    p = np.zeros(y.shape)
    began = time.thread_time()
    start = 0
    while start < len(p):
        end = int(ends[start])
        for c, model in enumerate(models):
            for row in range(start, end):
                p[row, c] = model.predict_proba_one(rows[row]).get(True, 0.5)
            for row in range(start, end):
                model.learn_one(rows[row], bool(y[row, c]))
        start = end
    return Predicted(probabilities=p, us_per_event=_us(began, len(p)))


def _logistic() -> Any:
    from river import linear_model, optim

    return linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.1), l2=1e-5)


def _machine() -> Any:
    from river import facto, optim

    return facto.FMClassifier(
        n_factors=16,
        weight_optimizer=optim.AdaGrad(0.1),
        latent_optimizer=optim.AdaGrad(0.05),
        seed=0,
    )


def factorisation_alone(seen: Seen, us_per_event: float) -> Predicted:
    """Our factorisation machine, as its opinions were before each impression."""
    return Predicted(
        probabilities=sigmoid_of(seen.opinions[:, :, 0]).astype(np.float64), us_per_event=us_per_event
    )


def lightgbm(impressions: Impressions, seen: Seen, say: Callable[[str], None] | None = None) -> Predicted:
    """Refitted every six hours on everything so far; .5 and running rates before the first fit."""
    import lightgbm as lgb

    y = targets_of(impressions)
    ts_ms = impressions.ts_ms
    p = np.zeros(y.shape)
    began = time.thread_time()
    bounds = np.arange(int(ts_ms[0]) + REFIT_MS, int(ts_ms[-1]) + REFIT_MS, REFIT_MS)
    starts = [0, *np.searchsorted(ts_ms, bounds).tolist()]
    for start, end in pairwise(starts):
        for c in range(N_TARGETS):
            if start == end:
                continue
            if start == 0:
                p[start:end, c] = 0.5
                continue
            data = lgb.Dataset(_inputs(seen, c, 0, start), label=y[:start, c])
            model = lgb.train(LIGHTGBM, data, num_boost_round=ROUNDS)
            p[start:end, c] = model.predict(_inputs(seen, c, start, end), num_threads=1)
        if say is not None:
            say(f"lightgbm: {end:,} of {len(p):,} impressions")
    return Predicted(probabilities=p, us_per_event=_us(began, len(p)))


def _inputs(seen: Seen, c: int, start: int, end: int) -> Any:
    return np.concatenate([seen.inputs[start:end], seen.opinions[start:end, c]], axis=1)


def _us(began: float, n: int) -> float:
    return 1e6 * (time.thread_time() - began) / max(n, 1)
