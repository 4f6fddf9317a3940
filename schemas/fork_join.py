"""Compiled work in two halves at once: fork, do both, join.

Functions compiled by `schemas.compiled` run without the interpreter's lock, so a second thread of the
same process gives a second core. Halves must write to different places, and must not depend on each
other: then the outcome is that of one after the other, bit by bit, and nobody needs a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
        """Results of both; returns, or raises what one of them raised, once both have ended."""
        if self._other is None:
            return mine(), other()
        future = self._other.submit(other)
        try:
            found = mine()
        except BaseException:
            future.exception()  # whoever handles the error may write where the other still does
            raise
        return found, future.result()

    def each(self, tasks: Sequence[Callable[[], A]], sizes: Sequence[int], least: int) -> list[A]:
        """Results of all `tasks`, in their order; two threads share them where that is worth it.

        Parameters
        ----------
        tasks : sequence of N callables
            Those of one thread are called in order.
        sizes : sequence of N int
            How much there is to do for each; the larger ones are divided first.
        least : int
            With less than this in all, or one task, the caller does everything.

        >>> ForkJoin(2).each([lambda: "a", lambda: "b", lambda: "c"], [1, 5, 3], least=2)
        ['a', 'b', 'c']
        """
        if self.n < MOST or len(tasks) < MOST or sum(sizes) < least:
            return [task() for task in tasks]
        mine: list[int] = []
        other: list[int] = []
        load = [0, 0]
        for place in sorted(range(len(tasks)), key=lambda i: -sizes[i]):
            which = 0 if load[0] <= load[1] else 1
            (other if which else mine).append(place)
            load[which] += sizes[place]
        places = sorted(mine), sorted(other)
        found = self.both(
            lambda: [tasks[i]() for i in places[0]],
            lambda: [tasks[i]() for i in places[1]],
        )
        results = {
            place: result
            for own, done in zip(places, found, strict=True)
            for place, result in zip(own, done, strict=True)
        }
        return [results[place] for place in range(len(tasks))]


ALONE: Final = ForkJoin(1)
"""One thread, for who does not say."""
