"""How much of a backlog is learned by gradient: the one place where learning is traded for speed.

A batch is cut into micro-batches. All of them are counted, which is cheap. Encoder steps and the
gate's steps cost more than everything else, so of a large batch only evenly spread micro-batches take
them: all of the first so many, and at least a share of what is there::

    stepped = max(32, n / 4)        taught = max(8, n / 10)        of n micro-batches

Each choice is spread evenly, whatever the other is. Scoring for the board, which `ranker.evaluate_ratio`
asks for, teaches the gate in passing.

From so many micro-batches on that not all take encoder steps (`is_hasty`), lists and gate steps look at
fewer items with the encoder (`learners.item_head.HASTY_HEAD`), EASE is refitted less often, and
publishing gets the share `HASTY` of the thread (`streams.share`) however long users wait: a list made then
lacks the events still to be read.
"""

from __future__ import annotations

from typing import Final

STEPPED: Final = (32, 4)
"""Encoder steps: micro-batches that always take them, and one in so many of a large batch."""

TAUGHT: Final = (8, 10)
"""The same of the gate's."""

EASE_GROWTH: Final = 16_384
"""Events at least from one refit of EASE to the next, in haste."""


def n_chosen(n: int, least_and_one_in: tuple[int, int]) -> int:
    """How many of `n` micro-batches.

    >>> n_chosen(256, STEPPED), n_chosen(20, TAUGHT)
    (64, 8)
    """
    least, one_in = least_and_one_in
    return min(n, max(least, -(-n // one_in)))


def is_hasty(n: int) -> bool:
    """Whether a batch of `n` micro-batches is so large that not all of them take encoder steps."""
    return n > STEPPED[0]


def is_chosen(i: int, n: int, most: int) -> bool:
    """Whether number `i` of `n` is among at most `most` evenly spread ones."""
    return n <= most or i * most // n != (i - 1) * most // n
