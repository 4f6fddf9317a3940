"""Which act belongs to which showing, and what is told of it when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.attribution import (
    CLOSE,
    LIKED_NOW,
    OPENED,
    SETTLE,
    STEP_MS,
    Exposures,
    attribute,
    no_exposures,
    room_for,
)
from learners.signals import DEFAULT_SIGNALS
from schemas.records import EVENT_TYPES

WINDOW_MS = 100_000
Act = tuple[Any, ...]  # user, item, type, ts_ms, weight


def told(of: Exposures, *acts: Act, rate: float = 0.0, most_ratio: float = 1.0) -> list[tuple[Any, ...]]:
    """What is told of acts: (user, item, what, outcomes that are known by name)."""
    n = len(acts)
    columns = list(zip(*acts, strict=True)) if acts else [()] * 5
    out = room_for(of, n)
    m = attribute(
        np.array(columns[0], dtype=np.int32),
        np.array(columns[1], dtype=np.int32),
        np.array([EVENT_TYPES.index(kind) for kind in columns[2]], dtype=np.int8),
        np.array(columns[3], dtype=np.int64),
        np.array(columns[4], dtype=np.float32),
        np.full(n, -1, dtype=np.int8),
        WINDOW_MS,
        rate,
        most_ratio,
        of,
        out,
    )
    names = ("click", "long", "complete", "like")
    return [
        (
            int(out.users[i]),
            int(out.items[i]),
            int(out.what[i]),
            {name: int(y) for name, y in zip(names, out.outcomes[i], strict=True) if y >= 0},
        )
        for i in range(m)
        if out.what[i] != OPENED
    ]


WATCHED = {"click": 1, "long": 1, "complete": 0}
NOTHING = {"click": 0, "long": 0, "complete": 0}


def test_an_impression_waits_for_its_act() -> None:
    of = no_exposures(8)
    assert told(of, (1, 7, "impression", 1_000, 0.0), (1, 8, "impression", 1_000, 0.0)) == []
    assert told(of, (1, 7, "watch", 9_000, 1.0)) == [(1, 7, SETTLE, WATCHED)]
    assert told(of, (1, 8, "skip", 9_500, -1.0)) == [(1, 8, SETTLE, NOTHING)]


def test_an_act_without_an_impression_implies_one() -> None:
    of = no_exposures(8)
    assert told(of, (1, 7, "watch", 1_000, 1.25)) == [(1, 7, SETTLE, {"click": 1, "long": 1, "complete": 1})]
    assert told(of, (1, 7, "watch", 2_000, -0.5)) == [(1, 7, SETTLE, NOTHING)]  # watched again: shown again
    assert told(of, (2, 7, "skip", 2_000, -1.0)) == [(2, 7, SETTLE, NOTHING)]


def test_an_impression_of_another_user_or_item_is_another() -> None:
    of = no_exposures(8)
    told(of, (1, 7, "impression", 1_000, 0.0))
    assert told(of, (2, 7, "watch", 2_000, 1.0)) == [(2, 7, SETTLE, WATCHED)]
    assert told(of, (1, 7, "skip", 3_000, -1.0)) == [(1, 7, SETTLE, NOTHING)]


def test_what_nobody_acted_on_is_no_click_when_the_window_is_over() -> None:
    of = no_exposures(8)
    told(of, (1, 7, "impression", 1_000, 0.0))
    assert told(of, (2, 9, "impression", 1_000 + STEP_MS, 0.0)) == []
    assert told(of, (2, 9, "watch", 1_001 + WINDOW_MS, 1.0)) == [
        (1, 7, SETTLE, NOTHING),
        (1, 7, CLOSE, {"like": 0}),
        (2, 9, SETTLE, WATCHED),
    ]


def test_a_like_is_told_at_once_and_again_when_the_exposure_closes() -> None:
    of = no_exposures(8)
    told(of, (1, 7, "watch", 1_000, 1.0))
    assert told(of, (1, 7, "like", 5_000, 1.5), (1, 7, "like", 6_000, 1.5)) == [
        (1, 7, LIKED_NOW, {"like": 1})
    ]
    later = [(2, 9, "watch", 1_000 + i * STEP_MS, 0.0) for i in range(1, 4)]  # says nothing but the time
    assert told(of, *later) == [(1, 7, CLOSE, {"like": 1})]
    # It is over: a like now is of another showing, of which nothing else is known yet.
    assert told(of, (1, 7, "like", 1_000 + 3 * STEP_MS, 1.5)) == []


def test_a_like_before_the_watch_waits_for_it() -> None:
    of = no_exposures(8)
    told(of, (1, 7, "impression", 1_000, 0.0))
    assert told(of, (1, 7, "like", 5_000, 1.5)) == []
    assert told(of, (1, 7, "watch", 9_000, 0.5)) == [
        (1, 7, SETTLE, {"click": 1, "long": 0, "complete": 0}),
        (1, 7, LIKED_NOW, {"like": 1}),
    ]


def test_a_like_alone_is_a_click_of_unknown_length() -> None:
    of = no_exposures(1)
    told(of, (1, 7, "like", 1_000, 1.5))
    assert told(of, (1, 8, "impression", 2_000, 0.0)) == [
        (1, 7, SETTLE, {"click": 1}),
        (1, 7, LIKED_NOW, {"like": 1}),
        (1, 7, CLOSE, {"like": 1}),
    ]


def test_who_goes_into_a_room_clicked_however_short_the_stay() -> None:
    of = no_exposures(8)
    assert told(of, (1, 7, "impression", 1_000, 0.0), (1, 7, "join", 2_000, 0.5)) == []
    assert told(of, (1, 7, "leave", 4_000, -0.25)) == [(1, 7, SETTLE, {"click": 1, "long": 0, "complete": 0})]


def test_an_impression_that_comes_late_is_the_one_of_its_watch() -> None:
    of = no_exposures(8)
    told(of, (1, 7, "watch", 5_000, 1.0))
    told(of, (1, 7, "impression", 4_000, 0.0))
    assert int(of.numbers[0]) == 1
    told(of, (1, 7, "impression", 6_000, 0.0))
    assert int(of.numbers[0]) == 2


def test_acts_that_say_nothing_open_nothing() -> None:
    of = no_exposures(8)
    assert told(of, (1, 7, "watch", 1_000, 0.0), (1, 7, "leave", 1_000, 0.0)) == []
    assert int(of.numbers[0]) == 0


def test_the_oldest_makes_room() -> None:
    of = no_exposures(4)
    shown = [(1, item, "impression", 1_000 + item, 0.0) for item in range(6)]
    assert told(of, *shown) == [
        (1, 0, SETTLE, NOTHING),
        (1, 0, CLOSE, {"like": 0}),
        (1, 1, SETTLE, NOTHING),
        (1, 1, CLOSE, {"like": 0}),
    ]


def test_one_wrong_clock_closes_little() -> None:
    of = no_exposures(8)
    told(of, (1, 7, "impression", 1_000, 0.0), (9, 9, "impression", 10**12, 0.0))
    assert told(of, (1, 7, "watch", 2_000, 1.0)) == [(1, 7, SETTLE, WATCHED)]


def test_no_more_are_chosen_than_the_rate_allows_and_fairly() -> None:
    """Sixteen showings a second, every fifth watched: of those told as many."""
    of = no_exposures(1 << 13)
    n = 20_000
    told(of, *((99, i, "impression", i * 1_000 // 16, 0.0) for i in range(3_000)), rate=2.0)
    found: list[tuple[Any, ...]] = []
    for i in range(0, n, 100):
        acts: list[Act] = []
        for j in range(i, i + 100):
            ts_ms = 187_500 + j * 1_000 // 16
            acts.append((j % 50, j, "impression", ts_ms, 0.0))
            acts += [(j % 50, j, "watch", ts_ms + 20, 1.0)] if j % 5 == 0 else []
        found += told(of, *acts, rate=2.0)
    settled = [row[3]["click"] for row in found if row[2] == SETTLE and row[0] != 99]
    assert len(settled) == pytest.approx(n / 8, rel=0.15)
    assert np.mean(settled) == pytest.approx(0.2, abs=0.02)


def test_a_share_of_a_batch_is_spread_over_it() -> None:
    of = no_exposures(1 << 10)
    shown = [(1, item, "watch", 1_000, 1.0) for item in range(400)]
    chosen = [row[1] for row in told(of, *shown, most_ratio=0.1)]
    assert 39 <= len(chosen) <= 40
    assert max(np.diff(chosen)) <= 11


_ACTS = st.tuples(
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from(["impression", "watch", "like", "skip", "join", "leave", "share"]),
    st.integers(0, 300_000),
    st.sampled_from([-1.0, 0.0, 0.3, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_ACTS, max_size=60), st.sampled_from([1, 4, 16]), st.integers(1, 9))
def test_batches_do_not_matter_and_every_exposure_ends_once(
    acts: list[Act], capacity: int, size: int
) -> None:
    whole, parts = no_exposures(capacity), no_exposures(capacity)
    all_told = told(whole, *acts)
    assert all_told == [row for i in range(0, len(acts), size) for row in told(parts, *acts[i : i + size])]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    whats = [row[2] for row in all_told]
    n_closed = int(whole.numbers[1])
    assert whats.count(CLOSE) == n_closed
    assert n_closed <= whats.count(SETTLE) <= int(whole.numbers[0])
    liked = sum(row[3]["like"] for row in all_told if row[2] == CLOSE)
    assert liked <= whats.count(LIKED_NOW) <= whats.count(SETTLE)


def test_likes_weigh_for_their_item_by_default() -> None:
    """An act for the item is told by a weight above 0: the table of signals must say so."""
    assert (DEFAULT_SIGNALS.acts[:, EVENT_TYPES.index("like")] > 0).all()
