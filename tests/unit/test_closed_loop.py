"""Simulated viewers of the closed loop, the lists they are served, and what is counted of them."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.closed_loop.__main__ import config_of, serve
from benchmarks.closed_loop.served import PopularLists, RandomLists, ReelflowLists
from benchmarks.closed_loop.tally import Tally, estimate, ratio_of, relative, resamples
from schemas.codec import decode_event
from schemas.records import SURFACES, Event, EventType
from streams.sources.sim_config import HOUR_MS, SimulatorConfig
from streams.sources.sim_items import ItemWorld
from streams.sources.simulator import Platform, Simulator
from streams.sources.source import item_record

CONFIG = SimulatorConfig(users=40, items=60, seed=3, sessions_per_day=24.0, duplicates=0.0, late=0.0)


def event(kind: EventType, at_ms: int, session: str, watch_ms: int | None = None) -> Event:
    return Event(
        event_id=f"e{kind}{at_ms}",
        user_id="su0",
        item_id="si1",
        type=kind,
        ts_ms=at_ms,
        watch_ms=watch_ms,
        session_id=session,
    )


def test_tally_by_hand() -> None:
    tally = Tally(2, from_ms=1_000, until_ms=10 * HOUR_MS)
    tally.add([event("impression", 500, "a"), event("watch", 900, "a", 400)])  # before what counts
    tally.add([event("watch", 1_500, "b", 300), event("impression", 1_200, "b")])
    tally.add([event("impression", 1_600, "b"), event("like", 1_700, "b"), event("skip", 1_800, "b", 50)])
    tally.add([event("impression", 1_800 + HOUR_MS, "c")])  # back within the hour
    tally.close()
    assert tally.watched_ms.tolist() == [350, 0]
    assert (int(tally.views[0]), int(tally.likes[0]), int(tally.skips[0])) == (3, 1, 1)
    assert int(tally.sessions[0]) == 2
    assert (int(tally.ended[0]), int(tally.returned[0])) == (2, 1)  # nobody came back after c
    assert ratio_of([tally], "watch_s_per_session")[0] == pytest.approx(0.175)
    assert tally.n_shown == 1


def test_intervals_hold_the_value_and_twins_do_not_differ() -> None:
    rng = np.random.default_rng(0)
    tally = Tally(200, 0, HOUR_MS)
    tally.sessions = rng.integers(1, 5, 200)
    tally.watched_ms = tally.sessions * rng.integers(500, 1_500, 200)
    weights = resamples(200)
    found = estimate([tally], "watch_s_per_session", weights)
    assert found.low < found.value < found.high
    same = relative([tally], [tally], "watch_s_per_session", weights)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def world() -> tuple[Platform, list[ItemWorld]]:
    platform = Platform(CONFIG)
    return platform, [platform.items]


@pytest.mark.parametrize("kind", ["random", "popular"])
def test_a_viewer_is_not_shown_an_item_again_while_there_is_another(kind: str) -> None:
    platform, items = world()
    lists = (
        RandomLists(CONFIG.users, lambda: items[0], 0)
        if kind == "random"
        else PopularLists(CONFIG.users, lambda: items[0])
    )
    everybody = np.arange(CONFIG.users)
    recent = np.full((CONFIG.users, 1), -1, dtype=np.int64)
    shown: list[set[int]] = [set() for _ in everybody]
    for _ in range(20):
        lists.observe([], [], CONFIG.start_ms)
        chosen, _ = lists.choose(everybody, recent, platform.items.alive)
        for user, item in enumerate(chosen.tolist()):
            assert item >= 0
            assert item not in shown[user]
            shown[user].add(item)
    assert lists.n_left == 0


def test_refit_lists_change_with_the_hour_only() -> None:
    platform, items = world()
    fresh = ReelflowLists(CONFIG.users, lambda: items[0])
    refit = ReelflowLists(CONFIG.users, lambda: items[0], refit_ms=HOUR_MS)
    opening = [item_record(platform.items.item(n)) for n in range(len(platform.items))]
    counts = {"fresh": 0, "refit": 0}
    for lists in (fresh, refit):
        lists.observe(opening, [], CONFIG.start_ms)
    for _ in range(30):  # half an hour
        records = list(platform.step(60_000))
        for name, lists in (("fresh", fresh), ("refit", refit)):
            before = lists.items.copy()
            lists.observe(records, [], platform.now_ms)
            counts[name] += int((lists.items != before).any())
    assert counts["fresh"] > 5
    assert counts["refit"] == 0
    refit.observe([], [], CONFIG.start_ms + HOUR_MS)
    told = fresh.snapshot >= 0
    assert told.any()
    assert (told == (refit.snapshot >= 0)).all()
    assert refit.core.held.positions() == fresh.core.held.positions()


@pytest.mark.parametrize("surface", SURFACES)
def test_a_platform_of_one_surface_has_no_other(surface: str) -> None:
    config = replace(config_of(surface, users=30, items=50, seed=1), step_ms=None)
    source = Simulator(config, duration_ms=2 * HOUR_MS)
    events = [decode_event(r.value) for r in source.events() if r.kind == "event" and r.value is not None]
    assert events
    assert {e.surface for e in events} == {surface}


def test_all_tastes_flip_at_once_and_not_before() -> None:
    config = replace(CONFIG, flip_after_s=1_800.0, drift=0.0, step_ms=60_000)
    platform = Platform(config)
    before = platform.users.taste.copy()
    for minute in range(31):
        assert (platform.users.taste == before).all(), minute
        for _ in platform.step(60_000):
            pass
    assert (platform.users.taste != before).any(axis=1).mean() > 0.95


def test_who_was_pleased_comes_back_sooner() -> None:
    platform = Platform(replace(CONFIG, users=4_000, loyalty=2.0))
    users = platform.users
    everybody = np.arange(4_000)
    users.n_views[:] = 1
    users.pleasure[:] = np.where(everybody < 2_000, 0.9, 0.1)
    now = np.full(4_000, CONFIG.start_ms)
    users.end_sessions(everybody, now)
    pauses = users.next_ms - CONFIG.start_ms
    assert np.median(pauses[:2_000]) * 2 < np.median(pauses[2_000:])


def test_serving_ends_and_counts() -> None:
    config = config_of("short_video", users=20, items=600, seed=0)
    tally = serve("popularity", replace(config, step_ms=60_000), hours=1.0, warm_h=0.0)
    assert tally.views.sum() > 0
    assert tally.left_ratio == 0.0
    assert (tally.returned <= tally.ended).all()
