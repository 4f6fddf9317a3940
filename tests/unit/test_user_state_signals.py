"""The table of interest weights."""

from __future__ import annotations

import numpy as np
import pytest

from learners.signals import WEIGHTS, interest_weights
from schemas.records import EVENT_TYPES


def _weight(kind: str, watch_ms: int = -1, duration_ms: int = -1) -> float:
    return float(
        interest_weights(
            np.array([EVENT_TYPES.index(kind)], dtype=np.int8), np.array([watch_ms]), np.array([duration_ms])
        )[0]
    )


def test_every_type_has_a_weight() -> None:
    assert set(WEIGHTS) == set(EVENT_TYPES)
    assert {kind: _weight(kind) for kind in EVENT_TYPES} == WEIGHTS


@pytest.mark.parametrize(
    ("watch_ms", "duration_ms", "expected"),
    [
        (0, 15_000, -0.5),
        (1_400, 15_000, -0.5),  # under 3 s and under a tenth
        (1_500, 15_000, 0.3),  # a tenth
        (2_900, 100_000, -0.5),
        (3_000, 100_000, 0.3),  # 3 s
        (7_500, 15_000, 0.7),
        (15_000, 15_000, 1.0),
        (45_000, 15_000, 1.0),  # watched three times
        (300_000, 6_000_000, 1.0),  # five minutes of a film
        (2_000, -1, -0.5),
        (15_000, -1, 0.7),
        (15_000, 0, 0.7),
    ],
)
@pytest.mark.parametrize("kind", ["watch", "leave"])
def test_time_watched(kind: str, watch_ms: int, duration_ms: int, expected: float) -> None:
    assert _weight(kind, watch_ms, duration_ms) == pytest.approx(expected, abs=1e-6)


def test_time_changes_nothing_for_other_types() -> None:
    for kind in set(EVENT_TYPES) - {"watch", "leave"}:
        assert _weight(kind, 100, 10_000) == WEIGHTS[kind]


def test_more_time_is_never_less_interest() -> None:
    times = np.arange(0, 60_000, 100)
    kinds = np.full(len(times), EVENT_TYPES.index("watch"), dtype=np.int8)
    for duration_ms in (-1, 5_000, 30_000, 3_600_000):
        weights = interest_weights(kinds, times, np.full(len(times), duration_ms))
        assert (np.diff(weights) >= 0).all()
        assert weights.min() == -0.5
        assert weights.max() == 1.0


def test_no_events() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert interest_weights(none.astype(np.int8), none, none).shape == (0,)
