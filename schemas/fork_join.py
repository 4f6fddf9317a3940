"""Compiled work by two threads at once: fork, do both, join.

Functions compiled by `schemas.compiled` run without the interpreter's lock, so a second thread of the
same process gives a second core. The two must write to different places, and must not depend on each
other: then the outcome is that of one after the other, bit by bit, and nobody needs a lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

A = TypeVar("A")
B = TypeVar("B")

MOST: Final = 2


class ForkJoin:
    """Runs two functions at once, on the caller's thread and on one of its own.

    The thread begins with the first call and ends with the process; several callers take turns.

    Parameters
    ----------
    n : int
        1 or 2 threads in all; with 1 the two functions follow each other.

    Notes
    -----
    Waking the other thread and waiting for it costs something beside the work: callers have thresholds.

    >>> ForkJoin(2).both(lambda: 1, lambda: "a")
    (1, 'a')
    """

    def __init__(self, n: int = 1) -> None:
        if not 1 <= n <= MOST:
            raise ValueError(f"{n} threads: 1 or {MOST}")
        self.n = n
        self._other = ThreadPoolExecutor(1, thread_name_prefix="second-half") if n > 1 else None

    def both(self, mine: Callable[[], A], other: Callable[[], B]) -> tuple[A, B]:
        """Results of both; returns, or raises what one of them raised, once both have ended.

        Where the other thread has not begun when `mine` has ended, the caller does `other` as well.
        """
        if self._other is None:
            return mine(), other()
        future = self._other.submit(other)
        found = self._until_ended(mine, future)
        return found, other() if future.cancel() else future.result()

    def helped(self, mine: Callable[[], None], other: Callable[[], None]) -> None:
        """Both, which share work between them: either returns when nothing of it is left to begin.

        So `other` is left out where the other thread has not begun when `mine` has ended.
        """
        if self._other is None:
            mine()
            return
        future = self._other.submit(other)
        self._until_ended(mine, future)
        if not future.cancel():
            future.result()

    def each(self, tasks: Sequence[Callable[[], A]], sizes: Sequence[int], least: int) -> list[A]:
        """Results of all `tasks`, in their order; two threads share them where that is worth it.

        Parameters
        ----------
        tasks : sequence of N callables
            Two threads take them one by one, the largest first.
        sizes : sequence of N int
            How much there is to do for each.
        least : int
            With less than this in all, or one task, the caller does everything, in order.

        >>> ForkJoin(2).each([lambda: "a", lambda: "b", lambda: "c"], [1, 5, 3], least=2)
        ['a', 'b', 'c']
        """
        if self.n < MOST or len(tasks) < MOST or sum(sizes) < least:
            return [task() for task in tasks]
        left = deque(sorted(range(len(tasks)), key=lambda i: -sizes[i]))
        results: dict[int, A] = {}

        def take() -> None:
            while (place := _next(left)) is not None:
                results[place] = tasks[place]()

        self.helped(take, take)
        return [results[place] for place in range(len(tasks))]

    @staticmethod
    def _until_ended(mine: Callable[[], A], future: Future[B]) -> A:
        try:
            return mine()
        except BaseException:
            if not future.cancel():
                future.exception()  # whoever handles the error may write where the other still does
            raise


def _next(places: deque[int]) -> int | None:
    try:
        return places.popleft()  # asking first whether there is one would race with the other thread
    except IndexError:
        return None


ALONE: Final = ForkJoin(1)
"""One thread, for who does not say."""
