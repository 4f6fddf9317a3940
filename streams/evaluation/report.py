"""What an evaluation found, as plain numbers and as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from learners.prequential import Bools, Played, Stream, tail_of
from learners.ranking_metrics import (
    METRICS,
    Mean,
    fading_mean,
    list_measures,
    mean_by_user,
    windows_of,
    worst_window,
)
from learners.stream_kernels import Past
from schemas.runs import Float64, Int32, Int64

WINDOW: Final = 2_000
FADING: Final = 0.9999
K: Final = 20
HISTORY_BUCKETS: Final = ((1, 1), (2, 4), (5, 14), (15, 49), (50, None))
COLD_ITEM: Final = 10
"""An item with fewer earlier events is cold."""

Ranks = Mapping[str, list[Int32]]
"""By learner, the ranks of each of its seeds; (R,) each."""


def values_of(ranks: list[Int32], metric: str) -> Float64:
    """A metric of each event, averaged over seeds; (R,)."""
    function, k = METRICS[metric]
    mean: Float64 = np.mean([function(found, k) for found in ranks], axis=0)
    return mean


def as_numbers(mean: Mean) -> dict[str, float | int | None]:
    """A mean for JSON; null where it is unknown."""
    low, high = mean.interval
    found = {"value": mean.value, "low": low, "high": high, "se": mean.se}
    plain = {key: round(value, 6) if np.isfinite(value) else None for key, value in found.items()}
    return {**plain, "n": mean.n}


def segments_of(stream: Stream, past: Past, rows: Int64) -> dict[str, Bools]:
    """Which asked rows belong to which part of the report; (R,) each.

    ``all`` and everything but ``new_users`` are rows of users with an earlier event.
    """
    n_events, n_visits = past.n_events[rows], past.n_visits[rows]
    known = n_events > 0
    last = np.full(len(rows), -1, dtype=np.int32)
    some = past.n_positives[rows] > 0
    at = past.starts[stream.users[rows]] + past.n_positives[rows] - 1
    last[some] = past.positives[at[some]]
    segments = {
        "last_fifth": known & tail_of(stream, rows),
        "all": known,
        "new_users": ~known,
        "cold_items": known & (n_visits < COLD_ITEM),
        "without_repeats_of_the_newest": known & (stream.items[rows] != last),
    }
    for low, high in HISTORY_BUCKETS:
        name = f"history_{low}+" if high is None else f"history_{low}" + (f"-{high}" if high > low else "")
        segments[name] = known & (n_events >= low) & (n_events <= (high or n_events.max(initial=0)))
    return segments


def prequential_report(
    stream: Stream, past: Past, runs: list[Played], reference: str | None
) -> dict[str, Any]:
    """Everything the command prints of a prequential run, by learner.

    Parameters
    ----------
    runs : list of Played
        One a seed; a learner without seeds is in the first only.
    reference : str or None
        Learner that the others are compared with, event by event.
    """
    rows = runs[0].rows
    users = stream.users[rows]
    segments = segments_of(stream, past, rows)
    known = segments["all"]
    ranks = ranks_by_learner(runs)
    shares = np.bincount(stream.items, minlength=stream.n_items) / max(len(stream), 1)
    similarity = visitor_similarity(stream)
    learners: dict[str, Any] = {}
    for name, found in ranks.items():
        means = {
            segment: {
                metric: as_numbers(mean_by_user(values_of(found, metric)[mask], users[mask]))
                for metric in METRICS
            }
            for segment, mask in segments.items()
        }
        values = values_of(found, "recall_20")[known]
        places, fading = fading_mean(values, FADING)
        seconds = [run for run in runs if name in run.rank_s]
        entry = {
            "segments": means,
            "windows": [
                {"to": int(window.last), **as_numbers(window.mean)}
                for window in windows_of(values, users[known], WINDOW)
            ],
            "fading": {"factor": FADING, "to": places.tolist(), "recall_20": fading.round(6).tolist()},
            "rank_us": 1e6 * seconds[0].rank_s[name] / max(len(rows), 1),
            "learn_us": 1e6 * seconds[0].learn_s[name] / max(len(stream), 1),
            "events_per_s": len(stream) / max(seconds[0].rank_s[name] + seconds[0].learn_s[name], 1e-9),
        }
        lists = runs[0].lists.get(name)
        if lists is not None:
            measures = list_measures(lists, shares, found[0], stream.watch_share[rows], similarity)
            entry["lists"] = {
                key: None if np.isnan(value := getattr(measures, key)) else round(value, 6)
                for key in measures.__struct_fields__
            }
        learners[name] = entry
    return {
        "stream": {
            "name": stream.name,
            "events": len(stream),
            "users": stream.n_users,
            "items": stream.n_items,
            "targets": int(stream.target.sum()),
            "asked": len(rows),
            "targets_on_unseen_items": int((stream.target & (past.n_visits == 0)).sum()),
        },
        "learners": learners,
        "differences": differences_of(ranks, users, segments["last_fifth"], known, reference),
    }


def ranks_by_learner(runs: list[Played]) -> dict[str, list[Int32]]:
    """Ranks of every seed, by learner."""
    names = dict.fromkeys(name for run in runs for name in run.ranks)
    return {name: [run.ranks[name] for run in runs if name in run.ranks] for name in names}


def differences_of(
    ranks: Ranks, users: Int32, tail: Bools, known: Bools, reference: str | None
) -> dict[str, Any]:
    """Paired differences of the reference to every other learner, and the worst window of each."""
    if reference is None or reference not in ranks:
        return {}
    found: dict[str, Any] = {}
    for name, theirs in ranks.items():
        if name == reference:
            continue
        entry: dict[str, Any] = {}
        for metric in METRICS:
            difference = values_of(ranks[reference], metric) - values_of(theirs, metric)
            entry[metric] = as_numbers(mean_by_user(difference[tail], users[tail]))
        worst = worst_window(
            values_of(ranks[reference], "recall_20")[known],
            values_of(theirs, "recall_20")[known],
            users[known],
            WINDOW,
        )
        if worst is not None:
            window, standard_errors = worst
            entry["worst_window"] = {
                "from": window.first,
                "to": window.last,
                "standard_errors": round(standard_errors, 3),
                "difference": round(window.mean.value, 6),
            }
        found[name] = entry
    return {"reference": reference, "window": WINDOW, "to": found}


def visitor_similarity(stream: Stream, n_hashes: int = 64) -> Any:
    """Mean pairwise similarity of the items of each list, estimated from who visited them.

    Each item is a vector of `n_hashes` signed counts of its visitors (a random projection seeded
    with 0); similarity is the cosine, floored at 0. It looks back on the whole stream, so it
    describes lists and is a feature of no learner.
    """
    signs = np.random.default_rng(0).choice(
        np.array([-1.0, 1.0], dtype=np.float32), size=(stream.n_users, n_hashes)
    )
    vectors = np.zeros((stream.n_items, n_hashes), dtype=np.float32)
    np.add.at(vectors, stream.items, signs[stream.users])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def similarity(lists: Int32) -> Float64:
        found = np.zeros(len(lists))
        for i, items in enumerate(lists):
            part = vectors[items[items >= 0]]
            n = len(part)
            if n > 1:
                cosine = np.maximum(part @ part.T, 0.0)
                found[i] = (cosine.sum() - np.trace(cosine)) / (n * (n - 1))
        return found

    return similarity


def frozen_report(
    stream: Stream, bounds: list[int], runs: list[Played], reference: str | None
) -> dict[str, Any]:
    """Metrics of every ranked phase and their mean over phases; `bounds` is where each phase ends."""
    rows = runs[0].rows
    users = stream.users[rows]
    phase = np.searchsorted(np.array(bounds), rows, side="right")
    ranks = ranks_by_learner(runs)
    learners: dict[str, Any] = {}
    for name, found in ranks.items():
        metrics: dict[str, Any] = {}
        for metric in METRICS:
            values = values_of(found, metric)
            parts = [mean_by_user(values[phase == p], users[phase == p]) for p in np.unique(phase)]
            n = max(len(parts), 1)
            mean = Mean(
                float(np.mean([part.value for part in parts])) if parts else float("nan"),
                float(np.sqrt(np.sum([part.se**2 for part in parts]))) / n,
                len(values),
            )
            metrics[metric] = {**as_numbers(mean), "phases": [round(part.value, 6) for part in parts]}
        learners[name] = {
            "metrics": metrics,
            "rank_us": 1e6 * runs[0].rank_s.get(name, 0.0) / max(len(rows), 1),
            "learn_us": 1e6 * runs[0].learn_s.get(name, 0.0) / max(len(stream) - len(rows), 1),
        }
    everything = np.ones(len(rows), dtype=np.bool_)
    return {
        "stream": {"name": stream.name, "users": stream.n_users, "items": stream.n_items, "asked": len(rows)},
        "learners": learners,
        "differences": differences_of(ranks, users, everything, everything, reference),
    }
