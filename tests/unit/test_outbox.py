"""Who owes a snapshot since when: vectorised state against a plain dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.outbox import Outbox

INTERVAL = 500


def test_first_event_counts_and_interval_holds_back() -> None:
    outbox = Outbox()
    outbox.touch(np.array([3, 3, 5], np.int32), np.array([100, 200, 150], np.int64), sequence=1)
    assert outbox.due(160, INTERVAL, 10).tolist() == []  # published_ms is 0: an interval after the epoch
    assert sorted(outbox.due(1_000, INTERVAL, 10).tolist()) == [3, 5]
    told = outbox.told(np.array([3, 5], np.int32), 1_000, INTERVAL)
    assert told.since_ms.tolist() == [100, 150]
    assert told.n_first == 2
    assert outbox.n_pending == 0
    outbox.touch(np.array([3], np.int32), np.array([1_100], np.int64), sequence=2)
    assert outbox.due(1_400, INTERVAL, 10).tolist() == []
    assert outbox.oldest_sequence() == 2
    told = outbox.told(outbox.due(1_500, INTERVAL, 10), 1_500, INTERVAL)
    assert told.held.tolist() == [True]
    assert (told.n_first, told.sequence) == (0, 2)


def test_limit_takes_the_longest_waiting_first() -> None:
    outbox = Outbox()
    outbox.touch(np.array([9], np.int32), np.array([10_000], np.int64), 1)
    outbox.touch(np.array([1, 2], np.int32), np.array([10_001, 10_002], np.int64), 2)
    assert outbox.due(20_000, 0, 2).tolist() == [9, 1]


steps = st.lists(
    st.tuples(st.lists(st.integers(0, 2_000), min_size=1, max_size=20), st.integers(0, 400), st.booleans()),
    max_size=30,
)


@given(steps)
def test_equals_a_dictionary(script: list[tuple[list[int], int, bool]]) -> None:
    outbox = Outbox()
    since: dict[int, int] = {}
    published: dict[int, int] = {}
    now = 1_000_000
    for sequence, (users, pause, publish) in enumerate(script, start=1):
        now += pause
        times = [now + i for i in range(len(users))]
        outbox.touch(np.array(users, np.int32), np.array(times, np.int64), sequence)
        for user, time_ms in zip(users, times, strict=True):
            since.setdefault(user, time_ms)
        now += len(users)
        if not publish:
            continue
        due = outbox.due(now, INTERVAL, 10_000)
        assert set(due.tolist()) == {u for u in since if published.get(u, 0) + INTERVAL <= now}
        if len(due):
            told = outbox.told(due, now, INTERVAL)
            assert told.since_ms.tolist() == [since[u] for u in due.tolist()]
            assert told.held.tolist() == [published.get(u, 0) + INTERVAL > since[u] for u in due.tolist()]
            assert told.n_first == sum(u not in published for u in due.tolist())
            for user in due.tolist():
                del since[user]
                published[user] = now
        assert outbox.n_pending == len(since)
