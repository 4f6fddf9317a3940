"""Histories of a television by time of day."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.household import ENOUGH, NO_TIME, OTHERS, QUARTERS, arrange_rows, quarters_of
from learners.user_state import PartitionState
from schemas.records import SURFACES
from schemas.runs import Int8
from tests.learner_data import event_batch, partition_state

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
MIDNIGHT_MS = 19_000 * DAY_MS
TV, PHONE = SURFACES.index("tv"), SURFACES.index("short_video")
USER = np.zeros(1, dtype=np.int32)


def rows_of(*watched: tuple[int, float, int]) -> list[dict[str, Any]]:
    """Watches (item, hours since midnight, surface) of one user, in order."""
    return [
        {
            "offset": i,
            "item": item,
            "ts_ms": MIDNIGHT_MS + int(hours * HOUR_MS),
            "broker_ts_ms": MIDNIGHT_MS + 10 * DAY_MS,
            "surface": surface,
        }
        for i, (item, hours, surface) in enumerate(watched)
    ]


def state_after(*watched: tuple[int, float, int], **settings: Any) -> PartitionState:
    state = partition_state(1, history=8, lateness_ms=9 * DAY_MS, **settings)
    state.fold(event_batch(rows_of(*watched)))
    return state


def history_of(state: PartitionState) -> list[int]:
    return [item for item in state.contexts(USER)[0].tolist() if item >= 0]


def test_what_was_watched_about_this_time_of_day_stands_last() -> None:
    """Cartoons (1, 2, ...) at eight, films (11, 12, ...) at nine in the evening."""
    state = state_after((1, 8, TV), (11, 21, TV), (2, 24 + 8.5, TV), (12, 24 + 21, TV), (3, 48 + 7.5, TV))
    assert history_of(state) == [11, 12, 1, 2, 3]
    state.fold(event_batch([{**rows_of((13, 48 + 20, TV))[0], "offset": 5}]))
    assert history_of(state) == [2, 3, 11, 12, 13]  # of the other viewer the newest two


def test_the_history_that_an_event_is_learned_with_is_that_of_its_hour() -> None:
    state = partition_state(1, history=4, lateness_ms=9 * DAY_MS)
    watched = [(1, 8, TV), (11, 21, TV), (2, 32, TV), (12, 45, TV)]
    folded = state.fold(event_batch(rows_of(*watched)))
    assert folded.interactions.history.tolist() == [
        [-1, -1, -1, -1],
        [-1, -1, -1, 1],
        [-1, -1, 11, 1],
        [-1, 1, 2, 11],
    ]


def test_midnight_is_no_border() -> None:
    state = state_after((1, 12, TV), (2, 23.5, TV), (3, 36, TV), (4, 48.5, TV))
    assert history_of(state) == [1, 3, 2, 4]


def test_only_television_has_hours() -> None:
    watched = ((1, 8, PHONE), (11, 21, PHONE), (2, 32, PHONE))
    assert history_of(state_after(*watched)) == [1, 11, 2]
    assert history_of(state_after((1, 8, TV), (11, 21, PHONE), (2, 32, TV))) == [11, 1, 2]
    assert history_of(state_after((1, 8, TV), (2, 21, TV), (3, 32, PHONE))) == [1, 2, 3]


def test_it_can_be_turned_off() -> None:
    watched = ((1, 8, TV), (11, 21, TV), (2, 32, TV))
    assert history_of(state_after(*watched, household_hours=-1)) == [1, 11, 2]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(-1, QUARTERS - 1)), min_size=1, max_size=12),
    st.integers(-1, QUARTERS - 1),
    st.integers(-1, 48),
    st.integers(0, 5),
)
def test_arranging_keeps_the_order_of_each_part(
    known: list[tuple[int, int]], quarter: int, near: int, n_padding: int
) -> None:
    items = [-1] * n_padding + [item for item, _ in known]
    times = [NO_TIME] * n_padding + [time for _, time in known]

    def is_near(time: int) -> bool:
        apart = abs(time - quarter)
        return quarter >= 0 and time >= 0 and min(apart, QUARTERS - apart) <= near

    pairs = list(zip(items, times, strict=True))
    here = [item for item, time in pairs if is_near(time)]
    others = [item for item, time in pairs if item >= 0 and not is_near(time)]
    kept = others[-OTHERS:] if len(here) >= ENOUGH else others
    expected = [-1] * (len(items) - len(here) - len(kept)) + kept + here
    out = np.empty((1, len(items)), dtype=np.int32)
    times_of: Int8 = np.array([times], dtype=np.int8)
    arrange_rows(
        np.array([items], dtype=np.int32), times_of, USER, np.array([quarter], dtype=np.int8), near, out
    )
    assert out[0].tolist() == expected


def test_times_of_day() -> None:
    ts_ms = np.array([MIDNIGHT_MS, MIDNIGHT_MS - 1, MIDNIGHT_MS + 14 * 60_000, MIDNIGHT_MS])
    surfaces = np.array([TV, TV, TV, -1], dtype=np.int8)
    assert quarters_of(ts_ms, surfaces).tolist() == [0, 95, 0, -1]


@pytest.mark.parametrize("lost", [(), ("times", "time")])
def test_a_restored_state_has_its_hours_and_an_older_one_none(lost: tuple[str, ...]) -> None:
    state = state_after((1, 8, TV), (11, 21, TV), (2, 32, TV))
    twin = partition_state(0, history=8, lateness_ms=9 * DAY_MS)
    twin.restore({name: array for name, array in state.snapshot().items() if name not in lost})
    assert history_of(twin) == ([1, 11, 2] if lost else [11, 1, 2])
    names = [f"v{i}" for i in range(20)]
    assert (twin.digest(names) == state.digest(names)) is not bool(lost)
