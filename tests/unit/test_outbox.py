"""Who owes a snapshot since when: compiled queues against a plain dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.runs import Int32, Int64
from streams.outbox import MARK_EVERY_MS, Outbox, Told

INTERVAL = 500


def users_of(*users: int) -> Int32:
    return np.array(users, dtype=np.int32)


def times(*times_ms: int) -> Int64:
    return np.array(times_ms, dtype=np.int64)


def taken(outbox: Outbox, now_ms: int, limit: int = 10, interval_ms: int = INTERVAL) -> Told:
    found = outbox.take(now_ms, interval_ms, limit)
    assert found is not None
    return found[1]


def test_first_event_counts_and_interval_holds_back() -> None:
    outbox = Outbox()
    outbox.touch(users_of(3, 3, 5), times(100, 200, 150))
    told = taken(outbox, 1_000)
    assert told.users.tolist() == [3, 5]
    assert told.since_ms.tolist() == [100, 150]
    assert told.n_first == 2
    assert outbox.n_pending == 0
    outbox.touch(users_of(3), times(1_100))
    assert outbox.take(1_400, INTERVAL, 10) is None
    assert outbox.n_pending == 1
    told = taken(outbox, 1_500)
    assert (told.since_ms.tolist(), told.due_ms.tolist()) == ([1_100], [1_500])
    assert told.n_first == 0
    assert outbox.n_pending == 0


def test_limit_takes_the_longest_waiting_first() -> None:
    outbox = Outbox()
    outbox.touch(users_of(9), times(10_000))
    outbox.touch(users_of(1, 2), times(10_001, 10_002))
    assert taken(outbox, 20_000, 2).users.tolist() == [9, 1]
    outbox.touch(users_of(9), times(20_001))
    assert taken(outbox, 20_600, 2).users.tolist() == [2, 9]  # 2 has waited since before 9 rested


def test_the_longest_wait_is_that_of_the_first_in_the_queue() -> None:
    outbox = Outbox()
    assert outbox.longest_wait_ms(5) == 0
    outbox.touch(users_of(1, 2), times(1, 1))  # events of long ago: a replay makes nobody wait
    assert taken(outbox, 50_000, 1).users.tolist() == [1]
    outbox.touch(users_of(3), times(1))
    assert outbox.longest_wait_ms(50_300) == 300
    assert taken(outbox, 50_300, 1).users.tolist() == [2]
    assert outbox.longest_wait_ms(50_300 + MARK_EVERY_MS) == MARK_EVERY_MS
    assert taken(outbox, 50_400, 1).users.tolist() == [3]
    assert outbox.longest_wait_ms(60_000) == 0


def test_owed_until_acknowledged_and_owed_the_same_by_who_takes_over() -> None:
    outbox = Outbox()
    outbox.touch(users_of(4, 7, 2), times(100, 110, 120))
    first = outbox.take(1_000, INTERVAL, 2)
    outbox.touch(users_of(7), times(1_010))
    second = outbox.take(2_000, INTERVAL, 1)
    assert first is not None
    assert second is not None
    assert second[1].users.tolist() == [2]
    users, since_ms = outbox.owed()
    assert (users.tolist(), since_ms.tolist()) == ([2, 4, 7], [120, 100, 110])
    outbox.acknowledge(first[0])
    users, since_ms = outbox.owed()
    assert (users.tolist(), since_ms.tolist()) == ([2, 7], [120, 1_010])
    successor = Outbox()
    successor.touch(users, since_ms)
    assert taken(successor, 3_000).since_ms.tolist() == [120, 1_010]
    outbox.acknowledge(second[0])
    assert outbox.owed()[0].tolist() == [7]


steps = st.lists(
    st.tuples(
        st.lists(st.integers(0, 3_000), min_size=1, max_size=20),
        st.integers(0, 400),
        st.sampled_from([0, 3, 10_000]),
    ),
    max_size=30,
)


@given(steps)
def test_equals_a_dictionary(script: list[tuple[list[int], int, int]]) -> None:
    outbox = Outbox()
    since: dict[int, int] = {}
    published: dict[int, int] = {}
    now = 1_000_000
    for users, pause, limit in script:
        now += pause
        times_ms = [now + i for i in range(len(users))]
        outbox.touch(users_of(*users), times(*times_ms))
        for user, time_ms in zip(users, times_ms, strict=True):
            since.setdefault(user, time_ms)
        now += len(users)
        due = {user for user in since if user not in published or published[user] + INTERVAL <= now}
        found = outbox.take(now, INTERVAL, limit) if limit else None
        assert (found is not None) == bool(due and limit)
        if found is not None:
            told = found[1]
            chosen = told.users.tolist()
            assert set(chosen) == due if limit > len(due) else len(set(chosen) & due) == limit
            assert told.since_ms.tolist() == [since[u] for u in chosen]
            assert told.due_ms.tolist() == [max(since[u], published.get(u, 0) + INTERVAL) for u in chosen]
            assert told.n_first == sum(u not in published for u in chosen)
            for user in chosen:
                del since[user]
                published[user] = now
        assert outbox.n_pending == len(since)
