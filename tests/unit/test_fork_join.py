"""Two halves of work at once: results in their place, errors kept until both have ended, the same model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from numba import njit

import learners.transitions
import serving.ranking
from learners.blend import Gate
from learners.popularity import Popularity
from learners.transitions import Transitions
from learners.turns import claim
from schemas.fork_join import ForkJoin
from schemas.learner import Contexts, Interactions
from schemas.runs import Int32, Int64
from serving.ranking import Ranker

WEEK_MS = 7 * 86_400_000


@pytest.mark.parametrize("n", [1, 2])
def test_results_are_in_the_order_of_the_tasks(n: int) -> None:
    fork_join = ForkJoin(n)
    sizes = [3, 50, 1, 7, 20]
    assert fork_join.each([partial(int, i) for i in range(5)], sizes, least=10) == [0, 1, 2, 3, 4]
    assert fork_join.each([], [], least=10) == []


def test_two_threads_share_what_is_large() -> None:
    meeting = threading.Barrier(2, timeout=10)
    ForkJoin(2).both(meeting.wait, meeting.wait)  # each waits for the other
    mine = threading.get_ident()
    small = ForkJoin(2).each([threading.get_ident] * 2, [1, 1], least=10)
    assert small == [mine, mine]
    large = ForkJoin(2).each([meeting.wait] * 2, [6, 6], least=10)
    assert sorted(large) == [0, 1]


def test_who_is_done_takes_the_next_task() -> None:
    others_done, in_order = threading.Event(), []

    def long() -> None:
        assert others_done.wait(10)

    def short(number: int) -> None:
        in_order.append(number)
        if number == 2:
            others_done.set()

    tasks: list[Callable[[], None]] = [partial(short, 0), long, partial(short, 1), partial(short, 2)]
    ForkJoin(2).each(tasks, [4, 9, 3, 2], least=2)  # the long one first, by either thread
    assert in_order == [0, 1, 2]


def test_the_caller_does_not_wait_for_a_thread_that_has_not_begun() -> None:
    fork_join = ForkJoin(2)
    begun, go_on = threading.Event(), threading.Event()

    def busy() -> None:
        begun.set()
        assert go_on.wait(10)

    def another_caller() -> None:
        fork_join.both(lambda: begun.wait(10), busy)

    another = threading.Thread(target=another_caller)
    another.start()
    assert begun.wait(10)
    threads: list[int] = []
    try:
        assert fork_join.both(lambda: 1, lambda: 2) == (1, 2)
        fork_join.helped(lambda: threads.append(1), lambda: threads.append(2))
        assert fork_join.each([threading.get_ident] * 3, [9, 9, 9], least=2) == [threading.get_ident()] * 3
    finally:
        go_on.set()
        another.join()
    assert threads == [1]


def test_an_index_error_of_a_task_is_no_end_of_the_tasks() -> None:
    def fails() -> None:
        raise IndexError("mine")

    with pytest.raises(IndexError, match="mine"):
        ForkJoin(2).each([fails, lambda: None], [9, 9], least=2)


@njit(nogil=True)
def _claim_all(turn: Int64, rows: Int64, n: int, me: int) -> int:
    n_claimed = 0
    start = claim(turn, n)
    while start < len(rows):
        for row in range(start, min(start + n, len(rows))):
            rows[row] += me
            n_claimed += 1
        start = claim(turn, n)
    return n_claimed


def test_each_row_is_claimed_once() -> None:
    _claim_all(np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 1, 1)  # compiled before both run
    turn, rows = np.zeros(1, dtype=np.int64), np.zeros(3_000_001, dtype=np.int64)
    found = ForkJoin(2).both(lambda: _claim_all(turn, rows, 2, 1), lambda: _claim_all(turn, rows, 2, 2))
    assert sum(found) == len(rows)
    assert set(np.unique(rows)) <= {1, 2}
    assert turn[0] >= len(rows)


def test_an_error_is_raised_once_both_have_ended() -> None:
    ended = threading.Event()
    failed = threading.Event()

    def slow() -> None:
        assert failed.wait(10)
        ended.set()

    def fails() -> None:
        failed.set()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ForkJoin(2).both(fails, slow)
    assert ended.is_set()
    with pytest.raises(KeyError, match="mine"):
        ForkJoin(2).both(lambda: None, fails)


def test_more_than_two_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="3 threads"):
        ForkJoin(3)


def visits(n: int, seed: int) -> Interactions:
    rng = np.random.default_rng(seed)
    items = (300 * rng.random(n) ** 3).astype(np.int32)
    history: Int32 = (300 * rng.random((n, 10)) ** 3).astype(np.int32)
    history[rng.random(n) < 0.2, :6] = -1
    return Interactions(
        users=np.zeros(n, dtype=np.int32),
        items=items,
        types=np.zeros(n, dtype=np.int8),
        ts_ms=np.cumsum(rng.integers(0, WEEK_MS // 20, n)),
        weight=rng.choice(np.array([0.3, 1.0, -1.0, 0.0], dtype=np.float32), n),
        history=history,
        fresh=rng.random(n) < 0.9,
        gap_ms=np.zeros(n, dtype=np.int64),
    )


def test_two_threads_learn_and_rank_the_same_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners.transitions, "LEAST_SHARED", 1)
    monkeypatch.setattr(serving.ranking, "LEAST_SHARED", 2)
    lists = []
    digests = []
    for n in (1, 2):
        # Rows of 16 are full soon, and a week's half-life moves the reference within a batch.
        transitions = Transitions(16, half_life_ms=WEEK_MS / 50, fork_join=ForkJoin(n))
        popularity = Popularity((WEEK_MS, 4 * WEEK_MS))
        for seed in range(4):
            transitions.learn_many(visits(700, seed))
            popularity.learn_many(visits(700, seed))
        digests.append(transitions.digest())
        ranker = Ranker(
            transitions, popularity, Gate(), list_size=20, exclude_seen=True, fork_join=ForkJoin(n)
        )
        asked = visits(101, 9)
        contexts = Contexts(users=asked.users, history=asked.history, now_ms=0)
        lists.append(ranker.rank(contexts, asked.history, np.zeros(300, dtype=np.bool_)))
    assert digests[0] == digests[1]
    for name in ("items", "scores", "relevance", "sources", "reasons"):
        assert np.array_equal(getattr(lists[0], name), getattr(lists[1], name)), name
