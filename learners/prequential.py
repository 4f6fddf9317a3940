"""Prequential evaluation of recorded streams: rank, score, then learn, in order, once.

Events come in micro-batches of 128. Before a batch is learned, every contender ranks the target of
each of its rows among all items that were met so far. A user's history is immediate: it holds
what the same batch brought before the row; what a contender has learned lags by at most one batch.

A row is asked for when it is a target, its item has an earlier event, and the user may be shown the
item: where seen items are left out, a repeated one cannot be ranked. Rows of users without an
earlier event are asked for, too, but reported apart. Where a catalogue says when items enter it
(`Stream.listed_ms`), all that is in it by then is ranked, and a row is asked for when its item entered
before the event, watched by somebody or not.

Ties: the rank counts everyone who scores as much as the target before it. With `ties_together`,
events of one user at one time are asked for with the history that the first of them had, and never
learned before the last of them was asked for.

References
----------
Gama, Sebastião and Rodrigues, On evaluating stream learning algorithms, Machine Learning 2013.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, runtime_checkable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.learner import Contexts, Interactions
from schemas.runs import Float32, Float64, Int8, Int32, Int64

from .signals import IMPRESSION
from .stream_kernels import Past, fill_last, fold_stream
from .user_kernels import FRESH_WINDOW

MICRO_BATCH: Final = 128
HISTORY: Final = 50

Bools = NDArray[np.bool_]


class Asked(Struct, kw_only=True):
    """B rows to be ranked, as things were before their events."""

    contexts: Contexts
    ts_ms: Int64  # (B,)
    targets: Int32  # (B,) item slots, all < n_items
    seen: Int32  # (B, S) items that must not be ranked, each once, -1 padded; S = 0 where repeats are allowed
    n_items: int  # slots 0 .. n_items - 1 are the candidates

    def __len__(self) -> int:
        return len(self.targets)


@runtime_checkable
class Contender(Protocol):
    """A recommender that is measured."""

    @property
    def name(self) -> str:
        """What the report calls it."""

    def ranks(self, asked: Asked) -> Int32:
        """0-based place of each target among all candidates, ties against it; (B,).

        -1 where the target is beyond what the contender looks at, at least 100 places.
        """

    def learn(self, batch: Interactions) -> None:
        """Learn a micro-batch, after its rows were ranked."""


@runtime_checkable
class Taught(Protocol):
    """A contender that learns from questions, not from events alone."""

    def teach(self, asked: Asked) -> None:
        """What would be asked before the next `learn`, where nothing is ranked."""


@runtime_checkable
class Lister(Protocol):
    """A contender whose lists can be looked at, for coverage, novelty and diversity."""

    def lists(self, asked: Asked, k: int) -> Int32:
        """The first `k` places of each row's list, -1 padded (B, k); called right after `ranks`."""


class Stream(Struct, kw_only=True):
    """N recorded events in order, as columns.

    Item slots are numbered as items are first met, or, with `listed_ms`, as they enter the catalogue; so
    slots below a bound are the items known by then.
    """

    name: str
    users: Int32  # (N,)
    items: Int32  # (N,)
    types: Int8  # (N,) index into EVENT_TYPES
    ts_ms: Int64  # (N,)
    weight: Float32  # (N,) interest weight
    target: Bools  # (N,) rows that are scored
    watch_share: Float32  # (N,) part of the item that was watched, in [0, 1]; nan unknown
    n_users: int
    n_items: int
    fresh_window: int = FRESH_WINDOW
    """A positive is fresh when its item is not among so many newest of the history."""
    history: int = HISTORY
    """Newest positives of the user that learners are handed with an event or a question."""
    listed_ms: Int64 | None = None  # (n_items,), never falling: when each slot's item enters the catalogue

    def __len__(self) -> int:
        return len(self.users)


class Rules(Struct, frozen=True, kw_only=True):
    """What is asked.

    Parameters
    ----------
    exclude_seen : bool
        Whether consumed items are left out of the ranking.
    ties_together : bool
        Whether events of one user at one time are predicted together.
    score_from : float
        Targets before this share of the stream's targets are learned without being ranked.
    teach_every : int
        Where nothing is ranked, contenders that learn from questions are asked those of rows whose number
        this divides: a question costs several times what learning an event does.
    """

    exclude_seen: bool = True
    ties_together: bool = False
    score_from: float = 0.0
    teach_every: int = 1


class Played(Struct, kw_only=True):
    """What came of a run: R asked rows and every contender's place for each."""

    rows: Int64  # (R,) rows of the stream
    ranks: dict[str, Int32]  # (R,)
    lists: dict[str, Int32]  # (R, k), of those contenders that show their lists
    rank_s: dict[str, float]  # seconds spent ranking, by contender
    learn_s: dict[str, float]  # seconds spent learning


def past_of(stream: Stream) -> Past:
    """What was known before each event of a stream; 0.1 microseconds an event and 30 seen items."""
    n, n_users = len(stream), stream.n_users
    starts = np.zeros(n_users + 1, dtype=np.int64)
    starts[1:] = np.cumsum(np.bincount(stream.users, minlength=n_users))
    numbers = [np.zeros(n, dtype=np.int32) for _ in range(5)]
    past = Past(
        fresh=np.zeros(n, dtype=np.bool_),
        gap_ms=np.zeros(n, dtype=np.int64),
        tie=np.zeros(n, dtype=np.int32),
        n_positives=numbers[0],
        n_consumed=numbers[1],
        n_events=numbers[2],
        n_visits=numbers[3],
        n_known=numbers[4],
        repeated=np.zeros(n, dtype=np.bool_),
        starts=starts,
        positives=np.full(n, -1, dtype=np.int32),
        consumed=np.full(n, -1, dtype=np.int32),
    )
    fold_stream(
        stream.users,
        stream.items,
        stream.ts_ms,
        stream.types,
        stream.weight,
        IMPRESSION,
        stream.fresh_window,
        np.full((n_users, 2), -1, dtype=np.int64),
        np.zeros(stream.n_items, dtype=np.int32),
        np.zeros((n_users, 4), dtype=np.int32),
        past,
    )
    return past


def interactions_of(stream: Stream, past: Past, rows: slice | Int64) -> Interactions:
    """Some events of a stream as learners take them, with the history each of them had."""
    users = stream.users[rows]
    history = np.full((len(users), stream.history), -1, dtype=np.int32)
    fill_last(past.positives, past.starts[users], past.n_positives[rows], history)
    return Interactions(
        users=users,
        items=stream.items[rows],
        types=stream.types[rows],
        ts_ms=stream.ts_ms[rows],
        weight=stream.weight[rows],
        history=history,
        fresh=past.fresh[rows],
        gap_ms=past.gap_ms[rows],
    )


def asked_of(stream: Stream, past: Past, rows: Int64, rules: Rules) -> Asked:
    """Some rows of a stream as questions."""
    users = stream.users[rows]
    # A tied row knows what the first of its tie knew.
    known = rows
    if rules.ties_together:
        known = first_of_ties(stream, past)[rows]
    starts = past.starts[users]
    history = np.full((len(rows), stream.history), -1, dtype=np.int32)
    fill_last(past.positives, starts, past.n_positives[known], history)
    n_seen = past.n_consumed[known] if rules.exclude_seen else np.zeros(len(rows), dtype=np.int32)
    seen = np.full((len(rows), int(n_seen.max(initial=0))), -1, dtype=np.int32)
    fill_last(past.consumed, starts, n_seen, seen)
    return Asked(
        contexts=Contexts(users=users, history=history, now_ms=int(stream.ts_ms[rows[-1]])),
        ts_ms=stream.ts_ms[rows],
        targets=stream.items[rows],
        seen=seen,
        n_items=_n_known(stream, past, int(rows[-1])),
    )


def _n_known(stream: Stream, past: Past, row: int) -> int:
    """How many items there are at an event, its own included."""
    if stream.listed_ms is None:
        return int(past.n_known[row])
    return int(np.searchsorted(stream.listed_ms, stream.ts_ms[row], side="right"))


def first_of_ties(stream: Stream, past: Past) -> Int64:
    """For each event the first event of the same user and time; (N,)."""
    order = np.argsort(stream.users, kind="stable")
    firsts = np.empty(len(stream), dtype=np.int64)
    firsts[order] = order[np.arange(len(order)) - past.tie[order]]
    return firsts


def batches_of(stream: Stream, rules: Rules, size: int = MICRO_BATCH) -> Iterator[slice]:
    """Micro-batches; with `ties_together` one is longer where it would cut events of one time."""
    start = 0
    while start < len(stream):
        end = min(start + size, len(stream))
        while rules.ties_together and end < len(stream) and stream.ts_ms[end] == stream.ts_ms[end - 1]:
            end += 1
        yield slice(start, end)
        start = end


def is_asked(stream: Stream, past: Past, rules: Rules) -> Bools:
    """Which events are ranked; (N,)."""
    known: Bools = past.n_visits > 0
    if stream.listed_ms is not None:
        known = known | (stream.listed_ms[stream.items] < stream.ts_ms)
    asked: Bools = stream.target & known
    if rules.exclude_seen:
        asked &= ~past.repeated
    order = np.cumsum(stream.target) - 1
    asked &= order >= rules.score_from * int(stream.target.sum())
    return asked


def play(
    stream: Stream,
    contenders: Sequence[Contender],
    rules: Rules,
    clock: Callable[[], float],
    *,
    k: int = 20,
    on_progress: Callable[[int], None] | None = None,
) -> Played:
    """Run a stream through all contenders, prequentially.

    Parameters
    ----------
    stream : Stream
    contenders : sequence of Contender
        New ones, of different names.
    rules : Rules
    clock : callable
        Seconds, for what ranking and learning took.
    k : int
        Places kept of the lists of contenders that show them.
    on_progress : callable, optional
        Told how many events are done.
    """
    names = [contender.name for contender in contenders]
    if len(set(names)) < len(names):
        raise ValueError(f"contenders need different names: {names}")
    past = past_of(stream)
    wanted = is_asked(stream, past, rules)
    rows = np.flatnonzero(wanted)
    ranks = {name: np.full(len(rows), -1, dtype=np.int32) for name in names}
    lists = {
        contender.name: np.full((len(rows), k), -1, dtype=np.int32)
        for contender in contenders
        if isinstance(contender, Lister)
    }
    rank_s, learn_s = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    done = 0
    for part in batches_of(stream, rules):
        batch = interactions_of(stream, past, part)
        here = np.flatnonzero(wanted[part]) + part.start
        asked = asked_of(stream, past, here, rules) if len(here) else None
        place = slice(done, done + len(here))
        done += len(here)
        for contender in contenders:
            name = contender.name
            at = clock()
            if asked is not None:
                ranks[name][place] = contender.ranks(asked)
                if isinstance(contender, Lister):
                    lists[name][place] = contender.lists(asked, k)
            between = clock()
            contender.learn(batch)
            rank_s[name] += between - at
            learn_s[name] += clock() - between
        if on_progress is not None:
            on_progress(part.stop)
    return Played(rows=rows, ranks=ranks, lists=lists, rank_s=rank_s, learn_s=learn_s)


def tail_of(stream: Stream, rows: Int64, share: float = 0.2) -> Bools:
    """Which of the asked `rows` are among the last `share` of the stream's targets."""
    place = np.cumsum(stream.target) - 1
    found: Bools = place[rows] >= (1.0 - share) * int(stream.target.sum())
    return found


def recall(ranks: Int32, k: int) -> Float64:
    """1 where the target is among the first k places, else 0; (R,)."""
    return ((ranks >= 0) & (ranks < k)).astype(np.float64)
