"""The prequential loop: what is asked, what ranks mean, and that nothing of the future leaks."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from learners.contenders import MarkovContender, PopularityContender, ScoringContender
from learners.frozen import Phase, play_frozen
from learners.prequential import Asked, Contender, Played, Rules, Stream, asked_of, past_of, play
from learners.stream_kernels import ranks_of
from schemas.learner import Interactions
from schemas.runs import Float32, Int32
from streams.evaluation.columns import stream_of_visits
from streams.evaluation.contender import ReelflowContender
from streams.evaluation.learners import PLAIN


def a_stream(n: int = 1_500, n_users: int = 40, n_items: int = 60, seed: int = 0) -> Stream:
    rng = np.random.default_rng(seed)
    users = rng.integers(n_users, size=n)
    items = (rng.zipf(1.3, size=n) + users % 7) % n_items
    return stream_of_visits("random", users, items)


def played(stream: Stream, contenders: list[Contender], rules: Rules | None = None) -> Played:
    ticks = count()
    return play(stream, contenders, rules or Rules(exclude_seen=False), lambda: float(next(ticks)))


def shuffled_after(stream: Stream, t: int) -> Stream:
    items = stream.items.copy()
    np.random.default_rng(1).shuffle(items[t:])
    kept = {name: getattr(stream, name) for name in Stream.__struct_fields__}
    return Stream(**{**kept, "items": items})


class Knowing(ScoringContender):
    """Cheats: counts of the whole period are its scores."""

    def __init__(self, stream: Stream) -> None:
        super().__init__("knowing")
        self._counts = np.bincount(stream.items, weights=np.arange(len(stream)), minlength=stream.n_items)

    def scores(self, asked: Asked) -> Float32:
        return np.tile(self._counts[: asked.n_items].astype(np.float32), (len(asked), 1))

    def learn(self, batch: Interactions) -> None:
        pass


class Late(ScoringContender):
    """Keeps the questions it was asked."""

    def __init__(self) -> None:
        super().__init__("late")
        self.asked: list[Asked] = []

    def scores(self, asked: Asked) -> Float32:
        self.asked.append(asked)
        return np.zeros((len(asked), asked.n_items), dtype=np.float32)

    def learn(self, batch: Interactions) -> None:
        pass


def ranks_before(t: int, stream: Stream, contender: Contender) -> Int32:
    run = played(stream, [contender])
    return run.ranks[contender.name][run.rows < t]


T = 900


@pytest.mark.parametrize("name", ["popularity", "markov", "reelflow"])
def test_shuffling_what_comes_after_changes_no_earlier_rank(name: str) -> None:
    def make() -> Contender:
        if name == "popularity":
            return PopularityContender(1.0)
        return MarkovContender() if name == "markov" else ReelflowContender(PLAIN, exclude_seen=False)

    stream = a_stream()
    before = ranks_before(T, stream, make())
    assert len(before) > 700
    np.testing.assert_array_equal(before, ranks_before(T, shuffled_after(stream, T), make()))


def test_the_leak_test_notices_statistics_of_the_whole_period() -> None:
    stream = a_stream()
    other = shuffled_after(stream, T)
    assert (ranks_before(T, stream, Knowing(stream)) != ranks_before(T, other, Knowing(other))).any()


def test_questions_hold_what_was_known_before_and_nothing_else() -> None:
    users, items = np.array([0, 1, 0, 0, 1, 0]), np.array([5, 6, 6, 5, 5, 7])
    stream = stream_of_visits("six", users, items)
    late = Late()
    run = played(stream, [late], Rules(exclude_seen=True))
    # 5 again by user 0 is left out as seen, 7 is met for the first time.
    assert run.rows.tolist() == [2, 4]
    (asked,) = late.asked
    assert asked.contexts.history[:, -2:].tolist() == [[-1, 0], [-1, 1]]
    assert asked.seen.tolist() == [[0], [1]]
    assert asked.targets.tolist() == [1, 0]
    assert asked.n_items == 2


def test_tied_events_know_what_the_first_of_them_knew() -> None:
    stream = stream_of_visits("tied", np.zeros(5, dtype=np.int64), np.array([1, 2, 3, 1, 2]))
    stream.ts_ms[:] = [0, 10, 10, 10, 20]
    past = past_of(stream)
    rows = np.arange(5)
    together = asked_of(stream, past, rows, Rules(exclude_seen=True, ties_together=True))
    assert (together.contexts.history >= 0).sum(axis=1).tolist() == [0, 1, 1, 1, 3]
    assert (together.seen >= 0).sum(axis=1).tolist() == [0, 1, 1, 1, 3]
    apart = asked_of(stream, past, rows, Rules(exclude_seen=True))
    assert (apart.contexts.history >= 0).sum(axis=1).tolist() == [0, 1, 2, 3, 3]


def test_tied_events_are_not_learned_before_all_were_asked() -> None:
    n = 300
    stream = stream_of_visits("tied", np.arange(n) % 9, np.arange(n) % 11)
    stream.ts_ms[:] = np.arange(n) // 100

    class Counting(Late):
        n_learned = 0

        def learn(self, batch: Interactions) -> None:
            self.n_learned += len(batch)

        def scores(self, asked: Asked) -> Float32:
            assert self.n_learned <= int(asked.ts_ms[0]) * 100
            return super().scores(asked)

    played(stream, [Counting()], Rules(exclude_seen=False, ties_together=True))


def test_ranks_count_ties_against_the_target_and_skip_seen_items() -> None:
    scores = np.array([[0.5, 0.9, 0.5, 0.1, np.nan]], dtype=np.float32)
    ranks = np.empty(1, dtype=np.int32)
    ranks_of(scores, np.array([0], np.int32), np.zeros((1, 0), np.int32), ranks)
    assert ranks.tolist() == [3]
    ranks_of(scores, np.array([0], np.int32), np.array([[1, 3, -1]], np.int32), ranks)
    assert ranks.tolist() == [2]


def test_what_learns_from_questions_is_taught_where_nothing_is_ranked() -> None:
    stream = a_stream()
    ours = ReelflowContender(PLAIN)
    half = len(stream) // 2
    phases = [Phase(0, half, learned=True), Phase(half, len(stream), learned=False)]
    run = play_frozen(stream, phases, [ours], Rules(), lambda: 0.0)
    assert run.rows.min() >= half
    repeated = past_of(stream).repeated[:half]
    assert 0 < ours._recommender._mixture.n_learned <= np.count_nonzero(~repeated)


def test_every_so_many_th_row_teaches_what_learns_from_questions() -> None:
    class Pupil(Late):
        rows: list[int]

        def teach(self, asked: Asked) -> None:
            self.rows += asked.ts_ms.tolist()

    stream = a_stream()
    stream.ts_ms[:] = np.arange(len(stream))
    half = len(stream) // 2
    phases = [Phase(0, half, learned=True), Phase(half, len(stream), learned=False)]
    rows, ranked = {}, {}
    for every in (1, 4):
        pupil = Pupil()
        pupil.rows = []
        rules = Rules(exclude_seen=False, teach_every=every)
        ranked[every] = play_frozen(stream, phases, [pupil], rules, lambda: 0.0).rows
        rows[every] = pupil.rows
    assert rows[4] == [row for row in rows[1] if row % 4 == 0]
    assert 0 < len(rows[4]) < len(rows[1])
    np.testing.assert_array_equal(ranked[1], ranked[4])
