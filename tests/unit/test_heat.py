"""Heat of live rooms, and the draw of a room for a list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from learners.heat import RoomHeat
from learners.signals import JOIN, LEAVE
from schemas.errors import StateError
from schemas.learner import Interactions
from schemas.runs import Float64, Int32
from serving.ranking import EXPLORATION, POPULARITY, Ranked
from serving.rooms import PLACE, Rooms, place_rooms
from tests.learner_data import T0_MS

MINUTE_MS = 60_000


def batch_of(*events: tuple[int, int, float], weight: float = 0.5) -> Interactions:
    """Events (item, type, minutes since the beginning)."""
    n = len(events)
    return Interactions(
        users=np.zeros(n, np.int32),
        items=np.array([item for item, _, _ in events], np.int32),
        types=np.array([kind for _, kind, _ in events], np.int8),
        ts_ms=np.array([T0_MS + int(minute * MINUTE_MS) for _, _, minute in events], np.int64),
        weight=np.full(n, weight, np.float32),
        history=np.full((n, 4), -1, np.int32),
        fresh=np.zeros(n, np.bool_),
        gap_ms=np.full(n, -1, np.int64),
    )


def heat_after(*events: tuple[int, int, float], at: float, weight: float = 0.5) -> list[float]:
    heat = RoomHeat(5.0 * MINUTE_MS)
    heat.learn_many(batch_of(*events, weight=weight))
    found: Float64 = heat.at(np.arange(3, dtype=np.int32), T0_MS + int(at * MINUTE_MS))
    return [float(value) for value in found.round(6)]


def test_heat_halves_in_its_half_life() -> None:
    joins = [(0, JOIN, 0.0)] * 8
    assert heat_after(*joins, at=0) == [8, 0, 0]
    assert heat_after(*joins, at=5) == [4, 0, 0]
    assert heat_after(*joins, at=35) == [0.0625, 0, 0]
    assert heat_after(*joins, at=-3) == [8, 0, 0]  # the room is ahead of whoever asks


def test_older_joins_count_for_less_in_whatever_order_they_come() -> None:
    assert heat_after((0, JOIN, 0), (0, JOIN, 5), at=5) == [1.5, 0, 0]
    assert heat_after((0, JOIN, 5), (0, JOIN, 0), at=5) == [1.5, 0, 0]


def test_who_leaves_cools_the_room() -> None:
    stayed = heat_after((0, JOIN, 0), (0, JOIN, 0), at=0)
    left = heat_after((0, JOIN, 0), (0, JOIN, 0), (0, LEAVE, 0), (0, LEAVE, 0), at=0)
    assert (stayed[0], left[0]) == (2, 1)
    assert heat_after((1, LEAVE, 0), at=0) == [0, 0, 0]


def test_a_join_that_nobody_chose_is_none() -> None:
    assert heat_after((0, JOIN, 0), at=0, weight=0.0) == [0, 0, 0]


def test_another_half_life_is_refused() -> None:
    with pytest.raises(StateError, match="half-life"):
        RoomHeat(1.0).restore(RoomHeat(2.0).snapshot())
    with pytest.raises(ValueError, match="positive"):
        RoomHeat(0.0)


def lists_of(n: int, k: int = 6) -> Ranked:
    return Ranked(
        items=np.tile(np.arange(100, 100 + k, dtype=np.int32), (n, 1)),
        scores=np.zeros((n, k), np.float32),
        relevance=np.full((n, k), 0.5, np.float32),
        sources=np.full((n, k), POPULARITY, np.int8),
        reasons=np.full((n, k), -1, np.int32),
    )


def rooms_of(*heat: float) -> Rooms:
    slots: Int32 = np.arange(len(heat), dtype=np.int32)
    return Rooms(slots, slots + 10, np.array(heat))


def placed(n: int, rooms: Rooms, exploration: float = 0.5, **changes: Any) -> Ranked:
    ranked = lists_of(n, changes.pop("k", 6))
    wanted = np.ones(n, dtype=np.bool_)
    given = {"wanted": wanted, "seen": np.full((n, 2), -1, np.int32), "keys": np.arange(n)} | changes
    place_rooms(ranked, rooms, exploration=exploration, **given)
    return ranked


def test_rooms_are_drawn_by_heat_and_say_with_what_chance() -> None:
    n = 20_000
    ranked = placed(n, rooms_of(8.0, 1.0, 0.0))
    drawn = ranked.items[:, PLACE] - 10
    expected = np.array([8.5, 1.5, 0.5]) / 10.5
    assert np.bincount(drawn, minlength=3) / n == pytest.approx(expected, abs=0.01)
    assert ranked.propensities is not None
    assert ranked.propensities[:, PLACE] == pytest.approx(expected[drawn], abs=1e-6)
    assert (ranked.sources[:, PLACE] == EXPLORATION).all()
    others = np.delete(ranked.items, PLACE, axis=1)
    assert (others == np.arange(100, 105)).all()  # the last one has gone
    assert (np.delete(ranked.propensities, PLACE, axis=1) == 1).all()
    again = placed(n, rooms_of(8.0, 1.0, 0.0))
    assert (again.items == ranked.items).all()


def test_who_wants_none_gets_none() -> None:
    wanted = np.array([False, True])
    ranked = placed(2, rooms_of(1.0), wanted=wanted)
    assert (ranked.items[:, PLACE] >= 100).tolist() == [True, False]
    assert (placed(2, rooms_of()).items >= 100).all()
    assert (placed(2, rooms_of(0.0), exploration=0.0).items >= 100).all()


def test_a_seen_or_listed_room_is_not_placed() -> None:
    seen = np.array([[0, -1]], dtype=np.int32)
    for key in range(50):
        keys = np.array([key])
        assert placed(1, rooms_of(1.0), seen=seen, keys=keys).propensities is not None
        assert (placed(1, rooms_of(1.0), seen=seen, keys=keys).items >= 100).all()
        assert 10 not in placed(1, rooms_of(50.0, 1.0), seen=seen, keys=keys).items
    rooms = Rooms(np.zeros(1, np.int32), np.array([103], np.int32), np.ones(1))
    assert (placed(1, rooms).items == np.arange(100, 106)).all()


def test_short_lists() -> None:
    assert placed(1, rooms_of(1.0), k=2).items.tolist() == [[100, 10]]
    assert placed(1, rooms_of(1.0), k=1).items.tolist() == [[10]]
