"""Prequential evaluation of probabilities over impressions: predict, score, then learn, in order of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from learners.history_attention import histories_of, train_attention
from learners.history_attention_kernels import Attentions
from learners.impressions import LONG, Impressions, rows_of
from learners.logistic_filter import sigmoid_of
from learners.probability import Probability, ProbabilityOptions
from learners.probability_kernels import Seen
from learners.probability_metrics import (
    auc,
    calibration_error,
    decided,
    log_loss,
    reliability,
    repeats_of,
    score_decisions,
    user_auc,
)
from learners.target_statistics import N_TARGETS
from schemas.runs import Float64, Int8, Int32

from .impression_data import ImpressionData

Target = Literal["is_click", "long_view"]
TARGETS: Final[tuple[Target, ...]] = ("is_click", "long_view")
"""By column of the learner's outcomes."""

SCORED_FROM: Final = 0.3
"""Metrics are of the rest of the impressions."""

PRIOR_PASSES: Final = 4
STEP: Final = 5_000

Say = Callable[[str], None]


class Predicted(Struct, kw_only=True):
    """What a model said of every impression before it learned it."""

    probabilities: Float64  # (N, T)
    scores: Float64 | None = None
    """(N, T) of the ranking head; None where the probabilities rank."""
    us_per_event: float = 0.0


def build(
    data: ImpressionData, *, seed: int = 0, say: Say | None = None, options: ProbabilityOptions | None = None
) -> Probability:
    """The learner, taught the prior history: attention trained and frozen, then everything in order."""
    options = options or ProbabilityOptions(
        categories=data.categories, numbers=data.numbers, user_numbers=data.user_numbers, seed=seed
    )
    prior = data.prior
    if prior is None:
        return Probability(options)
    learner = Probability(options, attention_of(data, seed=seed, say=say))
    learner.learn(prior)
    for _ in range(PRIOR_PASSES - 1):
        learner.replay(prior)
    return learner


def attention_of(data: ImpressionData, *, seed: int = 0, say: Say | None = None) -> Attentions | None:
    """Two attentions trained on the prior history, from seeds of their own; None without a history."""
    prior = data.prior
    if prior is None or not len(prior):
        return None
    watched = histories_of(prior.users, prior.items, prior.outcomes[:, LONG].astype(np.int32))

    def show(step: int, steps: int, loss: float) -> None:
        if say is not None:
            say(f"attention: step {step:>5} of {steps}, loss {loss:.4f}")

    live, before = (
        train_attention(watched, data.attributes, seed=2 * seed + at, on_progress=show) for at in range(2)
    )
    return Attentions(live, before)


def play_learner(
    learner: Probability, impressions: Impressions, say: Say | None = None, seen: Seen | None = None
) -> Predicted:
    """Predict and learn every impression once; progress is told every `STEP` of them."""
    n = len(impressions)
    learner.logits(rows_of(impressions, 0, 1))  # compiled before the clock starts
    logits = np.zeros((n, 2 * N_TARGETS), dtype=np.float32)
    spent = 0.0
    start = 0
    while start < n:
        end = min(start + STEP, n)
        while end < n and _tied(impressions, end):
            end += 1
        part = rows_of(impressions, start, end)
        view = None if seen is None else Seen(seen.inputs[start:end], seen.opinions[start:end])
        began = time.thread_time()
        logits[start:end] = learner.learn(part, view)
        spent += time.thread_time() - began
        if say is not None:
            say(_progress(part.outcomes, logits[start:end], end, n))
        start = end
    p = sigmoid_of(logits).astype(np.float64)
    return Predicted(
        probabilities=p[:, :N_TARGETS],
        scores=logits[:, N_TARGETS:].astype(np.float64),
        us_per_event=1e6 * spent / max(n, 1),
    )


def _tied(impressions: Impressions, at: int) -> bool:
    return bool(
        impressions.users[at] == impressions.users[at - 1]
        and impressions.ts_ms[at] == impressions.ts_ms[at - 1]
    )


def _progress(outcomes: Int8, logits: NDArray[np.float32], step: int, steps: int) -> str:
    parts = [f"step {step:>7,} of {steps:,}"]
    p = sigmoid_of(logits).astype(np.float64)
    for c, target in enumerate(TARGETS):
        y = outcomes[:, c]
        accuracy = float(((p[:, c] >= 0.5) == (y == 1)).mean())
        loss = log_loss(y, p[:, c])
        parts.append(f"{target}: loss {loss:.4f} AUC {auc(y, p[:, c]):.4f} accuracy {accuracy:.4f}")
    return ", ".join(parts)


def figures_of(
    y: Int8, p: Float64, scores: Float64 | None, users: Int32, chosen: NDArray[np.bool_]
) -> dict[str, Any]:
    """Every metric over the chosen impressions; decisions are made over all of them in order."""
    decisions, has_one = decided(y, p)
    rows = chosen & has_one
    decision = score_decisions(y[rows], decisions[rows])
    y, p, users = y[chosen], p[chosen], users[chosen]
    bins = reliability(y, p)
    found = {
        "n": len(y),
        "auc": auc(y, p),
        "user_auc": user_auc(y, p if scores is None else scores[chosen], users),
        "user_auc_of_probability": user_auc(y, p, users),
        "logloss": log_loss(y, p),
        "ece": calibration_error(bins),
        "accuracy": decision.accuracy,
        "precision": decision.precision,
        "recall": decision.recall,
        "f1": decision.f1,
        "bins": [{"n": b.n, "predicted": b.predicted, "observed": b.observed} for b in bins],
    }
    return {
        key: (None if value != value else round(value, 6)) if isinstance(value, float) else value
        for key, value in found.items()
    }


def impressions_report(
    data: ImpressionData, predicted: dict[str, Predicted], targets: tuple[Target, ...] = TARGETS
) -> dict[str, Any]:
    """Figures by target and model, over the last 70 % of the impressions, with and without repeats."""
    impressions = data.impressions
    scored = np.arange(len(impressions)) >= int(SCORED_FROM * len(impressions))
    fresh = scored & ~repeats_of(impressions.users, impressions.items)
    found: dict[str, Any] = {}
    for target in targets:
        c = TARGETS.index(target)
        y = impressions.outcomes[:, c]
        found[target] = {}
        for name, one in predicted.items():
            scores = None if one.scores is None else one.scores[:, c]
            entry = figures_of(y, one.probabilities[:, c], scores, impressions.users, scored)
            entry["without_repeats"] = figures_of(
                y, one.probabilities[:, c], scores, impressions.users, fresh
            )
            entry["us_per_event"] = round(one.us_per_event, 2)
            found[target][name] = entry
    return {
        "protocol": "impressions",
        "stream": {
            "name": data.name,
            "impressions": len(impressions),
            "prior": 0 if data.prior is None else len(data.prior),
            "scored": int(scored.sum()),
        },
        "targets": found,
    }


def evaluate_impressions(
    folder: Path,
    *,
    prior: Path | None = None,
    targets: tuple[Target, ...] = TARGETS,
    limit: int | None = None,
    seed: int = 0,
    say: Say | None = None,
) -> dict[str, Any]:
    """Load a KuaiRand folder, teach the prior history, and evaluate our learner."""
    from .impression_data import load_impressions

    data = load_impressions(folder, prior, limit)
    learner = build(data, seed=seed, say=say)
    predicted = {"reelflow": play_learner(learner, data.impressions, say)}
    return impressions_report(data, predicted, targets)
