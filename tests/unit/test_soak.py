"""What the soak counts, and when it calls a change noticed and made good."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift.__main__ import accepted, described
from benchmarks.drift.soak import MINUTE_MS, MINUTES, Alarm, HitCount, judged
from schemas.records import Event, EventType


def event(kind: EventType, minute: float, item: str, snapshot: str | None = "s") -> Event:
    return Event(
        event_id=f"{kind}{minute}",
        user_id="u",
        item_id=item,
        type=kind,
        ts_ms=round(minute * MINUTE_MS),
        snapshot_id=snapshot,
    )


def test_views_of_listed_items_are_counted_where_they_began() -> None:
    count = HitCount(0)
    count.add([event("impression", 0.5, "a"), event("watch", 1.5, "a")])
    count.add([event("impression", 2.1, "b"), event("impression", 2.2, "c"), event("skip", 2.3, "c")])
    count.add([event("impression", 3.1, "d", None), event("watch", 3.2, "d")])  # no list named it
    count.add([event("impression", 4.0, "e"), event("like", 4.1, "e"), event("join", 4.2, "e")])
    assert count.views[:5].tolist() == [1, 0, 2, 0, 1]
    assert count.hits[:5].tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("flipped", [False, True])
def test_a_run_is_judged_by_what_it_was_before(flipped: bool) -> None:
    rate = np.full(MINUTES, 0.5)
    rate[:20] = 0.9  # does not count
    rate[30:36] = 0.2, 0.3, 0.35, 0.4, 0.44, 0.47  # means of two: .25 .325 .375 .42 .455 .485
    alarms = [Alarm("short_video", 30.4), Alarm("audio", 31.0)]
    run = judged(3, flipped, 6_000, alarms, rate, np.full(MINUTES, 100.0))
    assert run.former == pytest.approx(0.5)
    assert run.lowest == pytest.approx(0.25)
    assert run.noticed_after_min == (pytest.approx(0.4) if flipped else None)
    assert run.recovered_after_min == (6.0 if flipped else None)  # minutes 34 and 35
    assert described(run)["hit_rate"][30] == 0.2
    verdict = accepted([run], []) if flipped else accepted([], [run])
    assert verdict == {
        "noticed_within_a_minute": True if flipped else None,
        "back_within_ten_minutes": True if flipped else None,
        "no_alarm_without_flip": None if flipped else False,
    }


def test_what_is_never_made_good_is_not_accepted() -> None:
    rate = np.full(MINUTES, 0.5)
    rate[30:] = 0.3
    run = judged(0, True, 6_000, [], rate, np.full(MINUTES, 100.0))
    assert (run.noticed_after_min, run.recovered_after_min) == (None, None)
    verdict = accepted([run], [])
    assert verdict["noticed_within_a_minute"] is verdict["back_within_ten_minutes"] is False
