"""The table of interest weights."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from learners.signals import DEFAULT_SIGNALS, SignalTable, interest_weights, is_evidence, signal_table
from schemas.records import EVENT_TYPES, SURFACES
from schemas.signals import ROWS, LiveSignals, SignalSettings
from tests.learner_data import T0_MS, event_batch, partition_state

FILM_MS = 5_400_000


def _weight(
    kind: str,
    watch_ms: int = -1,
    duration_ms: int = -1,
    *,
    surface: str = "other",
    autoplay: bool = False,
    gift: int = -1,
    table: SignalTable = DEFAULT_SIGNALS,
) -> float:
    code = -1 if surface == "other" else SURFACES.index(surface)
    found = interest_weights(
        table,
        np.array([EVENT_TYPES.index(kind)], dtype=np.int8),
        np.array([watch_ms]),
        np.array([duration_ms]),
        np.array([code], dtype=np.int8),
        np.array([autoplay], dtype=np.int8),
        np.array([gift]),
    )
    return float(found[0])


@pytest.mark.parametrize("surface", ROWS)
def test_acts_speak_for_or_against(surface: str) -> None:
    for kind in ("watch", "like", "favourite", "comment", "share", "follow", "gift", "join"):
        assert _weight(kind, surface=surface) > 0
    for kind in ("skip", "dislike"):
        assert _weight(kind, surface=surface) < 0
    for kind in ("impression", "leave"):
        assert _weight(kind, surface=surface) == 0


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
        (30_000, 15_000, 1.25),  # watched twice
        (45_000, 15_000, 1.5),
        (150_000, 15_000, 1.5),
        (300_000, 6_000_000, 1.0),  # five minutes of a film
        (2_000, -1, -0.5),
        (15_000, -1, 0.7),
        (15_000, 0, 0.7),
    ],
)
@pytest.mark.parametrize("kind", ["watch", "leave"])
def test_time_watched(kind: str, watch_ms: int, duration_ms: int, expected: float) -> None:
    assert _weight(kind, watch_ms, duration_ms) == pytest.approx(expected, abs=1e-6)


def test_ten_seconds_of_a_clip_are_more_than_of_a_film() -> None:
    clip = _weight("watch", 10_000, 12_000, surface="short_video")
    for surface in ("long_video", "tv"):
        assert clip > 0 > _weight("watch", 10_000, FILM_MS, surface=surface)
        assert 0 < _weight("watch", 60_000, FILM_MS, surface=surface) < 1
    assert clip > _weight("watch", 10_000, FILM_MS)


@pytest.mark.parametrize("surface", ROWS)
def test_what_started_by_itself_and_was_not_watched_says_nothing(surface: str) -> None:
    for watch_ms, duration_ms in ((-1, -1), (0, 15_000), (1_000, 15_000), (500, -1), (900, FILM_MS)):
        for kind in ("watch", "leave"):
            assert _weight(kind, watch_ms, duration_ms, surface=surface, autoplay=True) == 0
    assert _weight("join", surface=surface, autoplay=True) == 0
    assert _weight("skip", surface=surface, autoplay=True) < 0


def test_what_started_by_itself_counts_for_less_but_in_a_feed() -> None:
    for surface, factor in (("short_video", 1.0), ("long_video", 0.5), ("tv", 0.5), ("other", 0.5)):
        chosen = _weight("watch", 400_000, 600_000, surface=surface)
        assert _weight("watch", 400_000, 600_000, surface=surface, autoplay=True) == factor * chosen


def test_gifts_count_by_their_value() -> None:
    values = [_weight("gift", gift=value, surface="live") for value in (-1, 0, 1, 9, 99, 999, 10**9)]
    assert values == pytest.approx([1.5, 1.5, 1.6505, 2.0, 2.5, 3.0, 3.0], abs=1e-4)
    assert _weight("like", gift=99) == _weight("like")


def test_time_changes_nothing_for_other_types() -> None:
    for kind in set(EVENT_TYPES) - {"watch", "leave"}:
        assert _weight(kind, 100, 10_000) == _weight(kind)


@pytest.mark.parametrize("surface", ROWS)
def test_more_time_is_never_less_interest(surface: str) -> None:
    times = np.arange(0, 60_000, 100)
    n = len(times)
    kinds = np.full(n, EVENT_TYPES.index("watch"), dtype=np.int8)
    surfaces = np.full(n, ROWS.index(surface) if surface != "other" else -1, dtype=np.int8)
    none = np.zeros(n, dtype=np.int8)
    for duration_ms in (-1, 5_000, 30_000, 3_600_000):
        lengths = np.full(n, duration_ms)
        weights = interest_weights(DEFAULT_SIGNALS, kinds, times, lengths, surfaces, none, times)
        assert (np.diff(weights) >= 0).all()


def test_every_entry_can_be_set() -> None:
    """Each field of a surface is an entry of the table that the weights are made from."""
    live = SURFACES.index("live")
    acts, shape = DEFAULT_SIGNALS
    for field in LiveSignals.__struct_fields__:
        value = getattr(LiveSignals(), field)
        changed = LiveSignals(**{field: value + 1 if value >= 0 else value - 1})
        table = signal_table(SignalSettings(live=changed))
        differs = np.concatenate([table.acts != acts, table.shape != shape], axis=1)
        assert differs.sum() == 1
        assert differs[live].any()


def test_a_set_weight_is_used() -> None:
    table = signal_table(msgspec.convert({"live": {"gift": 2.0, "skip": -3}}, SignalSettings))
    assert _weight("gift", surface="live", table=table) == 2.0
    assert _weight("skip", surface="live", table=table) == -3.0
    assert _weight("gift", surface="tv", table=table) == 1.5


def test_an_act_of_no_weight_changes_no_history_and_consumes_nothing() -> None:
    state = partition_state(1)
    rows: list[dict[str, Any]] = [
        {"offset": 0, "item": 1, "ts_ms": T0_MS},
        {"offset": 1, "item": 2, "ts_ms": T0_MS + 1, "autoplay": 1},
        {"offset": 2, "item": 3, "ts_ms": T0_MS + 2, "autoplay": 1, "watch_ms": 500, "duration_ms": 60_000},
        {"offset": 3, "item": 4, "ts_ms": T0_MS + 3, "type": "leave"},
    ]
    folded = state.fold(event_batch(rows))
    users = np.zeros(1, dtype=np.int32)
    assert state.contexts(users)[0, -2:].tolist() == [-1, 1]
    assert state.seen_rows(users)[0, -2:].tolist() == [-1, 1]
    assert len(folded.rows) == 4  # each is known, and in the receipt
    assert state.last_offset[0] == 3
    interactions = folded.interactions
    assert is_evidence(interactions.types, interactions.weight).tolist() == [True, False, False, False]


def test_no_events() -> None:
    none = np.zeros(0, dtype=np.int64)
    kinds = none.astype(np.int8)
    assert interest_weights(DEFAULT_SIGNALS, kinds, none, none, kinds, kinds, none).shape == (0,)
