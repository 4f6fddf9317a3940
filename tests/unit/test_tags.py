"""The tag chain: the worked example, learning from moves, bounds, item tags."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from learners.tags import TagChain
from schemas.learner import Contexts
from tests.learner_data import T0_MS, interactions, split
from tests.unit.test_transitions import context, visits

HOUR_MS = 3_600_000
STATES = ["entertainment", "education", "technology"]
ROWS = [[0.2, 0.5, 0.3], [0.4, 0.1, 0.5], [0.3, 0.2, 0.5]]


def test_the_worked_example() -> None:
    chain = TagChain.from_probabilities(STATES, ROWS)
    np.testing.assert_allclose(chain.probabilities(), ROWS)
    for row, state in enumerate(STATES):
        for steps in range(6):
            expected = np.linalg.matrix_power(np.array(ROWS), steps)[row]
            np.testing.assert_allclose(chain.distribution(state, steps), expected)
    np.testing.assert_allclose(chain.distribution("entertainment", 2), [0.33, 0.21, 0.46])


def test_the_worked_example_learned_from_moves() -> None:
    chain = TagChain()
    for item, state in enumerate(STATES):
        chain.set_item_tags(item, [state])
    for a, row in enumerate(ROWS):
        for b, probability in enumerate(row):
            for _ in range(round(10 * probability)):
                move = visits([a, b])
                if a == b:  # a move between two items of one tag
                    chain.set_item_tags(9, [STATES[b]])
                    move = visits([a, 9])
                chain.learn_many(move)
    np.testing.assert_allclose(chain.distribution("entertainment"), ROWS[0])
    np.testing.assert_allclose(chain.distribution("entertainment", 2), [0.33, 0.21, 0.46])


def test_a_move_is_spread_over_all_pairs() -> None:
    chain = TagChain()
    chain.set_item_tags(0, ["a", "b"])
    chain.set_item_tags(1, ["b", "c", "d"])
    chain.learn_many(visits([0, 1], weights=[1.0, 0.6]))
    matrix = np.asarray(chain.snapshot()["matrix"], dtype=np.float64)
    a, b, c, d = (chain.tags.find(tag) for tag in "abcd")
    for g in (a, b):
        for h in (b, c, d):
            assert matrix[g, h] == pytest.approx(0.1)
    assert matrix.sum() == pytest.approx(0.6)


def test_rows_sum_to_one_also_where_nothing_was_learned() -> None:
    chain = TagChain(HOUR_MS)
    for item in range(30):
        chain.set_item_tags(item, [f"t{item % 5}", f"t{item % 7}"])
    chain.set_item_tags(1_000, ["never left"])
    np.testing.assert_allclose(chain.probabilities(), 1 / 8)
    for part in split(interactions(seed=31, n=3_000), 200):
        chain.learn_many(part)
    p = chain.probabilities()
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    matrix = np.asarray(chain.snapshot()["matrix"], dtype=np.float64)
    np.testing.assert_allclose(p[chain.tags.find("never left")], matrix.sum(axis=0) / matrix.sum())
    np.testing.assert_allclose(chain.distribution("t3", 50).sum(), 1.0)
    rowsum = np.asarray(chain.snapshot()["rowsum"], dtype=np.float64)
    np.testing.assert_allclose(rowsum, matrix.sum(axis=1))


def test_old_moves_fade() -> None:
    chain = TagChain(HOUR_MS)
    for item in range(3):
        chain.set_item_tags(item, [f"t{item}"])
    chain.learn_many(visits([0, 1], ts_ms=[T0_MS] * 2))
    chain.learn_many(visits([0, 2], ts_ms=[T0_MS + 2 * HOUR_MS] * 2))
    np.testing.assert_allclose(chain.distribution("t0"), [0.0, 0.2, 0.8])
    chain.learn_many(visits([0, 1], ts_ms=[T0_MS + 500 * HOUR_MS] * 2))
    np.testing.assert_allclose(chain.distribution("t0"), [0.0, 1.0, 0.0], atol=1e-12)


def test_negatives_and_items_without_tags_teach_nothing() -> None:
    chain = TagChain()
    chain.set_item_tags(0, ["a"])
    chain.set_item_tags(1, ["b"])
    batch = visits([0, 1, 5, 0], weights=[1.0, -1.0, 1.0, 1.0])
    chain.learn_many(batch)
    assert not np.asarray(chain.snapshot()["matrix"]).any()


def test_item_scores_follow_the_tags_of_the_history() -> None:
    chain = TagChain.from_probabilities(STATES, ROWS)
    for item, tags in enumerate([STATES[:1], STATES[1:2], STATES[2:], STATES[:2], []]):
        chain.set_item_tags(item, tags)
    items = np.array([0, 1, 2, 3, 4, 99, -1], dtype=np.int32)
    np.testing.assert_allclose(chain.predict(context(0), items), [[0.2, 0.5, 0.3, 0.35, 0, 0, 0]], rtol=1e-6)
    mixed = (np.array(ROWS[1]) + 0.7 * np.array(ROWS[0])) / 1.7
    np.testing.assert_allclose(chain.next_tags(context(0, 1).history[0]), mixed)
    two_tags = (np.array(ROWS[0]) + np.array(ROWS[1])) / 2
    np.testing.assert_allclose(chain.next_tags(context(3).history[0]), two_tags)
    nothing: Contexts = context(4)
    assert not chain.predict(nothing, items).any()
    assert not chain.predict(context(), items).any()


def test_tags_beyond_the_maximum_are_counted_and_left_out() -> None:
    chain = TagChain(max_tags=3)
    chain.set_item_tags(0, ["a", "b"])
    chain.set_item_tags(1, ["c", "d", "e"])
    assert chain.n_refused == 2
    assert chain.item_tags(1) == ["c"]
    chain.learn_many(visits([0, 1]))
    assert chain.distribution("a").tolist() == [0.0, 0.0, 1.0]


def test_many_tags_and_items() -> None:
    chain = TagChain(max_tags=500)
    expected: dict[int, list[str]] = {}
    rng = np.random.default_rng(0)
    for _ in range(20_000):  # items change their tags often enough for the pool to be packed
        item = int(rng.integers(0, 3_000))
        tags = [f"t{tag}" for tag in rng.integers(0, 500, int(rng.integers(0, 6)))]
        chain.set_item_tags(item, tags)
        expected[item] = list(dict.fromkeys(tags))
    assert {item: chain.item_tags(item) for item in expected} == expected
    assert len(chain.tags) == 500
    assert len(chain._items.pool) < 60_000
    chain.learn_many(visits([1, 2, 3, 4, 5]))
    twin = TagChain(max_tags=500)
    twin.restore(chain.snapshot())
    assert {item: twin.item_tags(item) for item in expected} == expected
    twin.set_item_tags(10_000, ["t1", "t2"])
    assert twin.item_tags(10_000) == ["t1", "t2"]
    assert twin.item_tags(9_999) == twin.item_tags(-1) == []
    with pytest.raises(KeyError):
        chain.distribution("unheard of")
    with pytest.raises(ValueError, match="-1 steps"):
        chain.distribution("t1", -1)


def test_a_tag_named_twice_counts_once() -> None:
    chain = TagChain()
    chain.set_item_tags(0, ["a", "a", "b"])
    assert chain.item_tags(0) == ["a", "b"]


@pytest.mark.parametrize(
    ("tags", "rows"),
    [(["a"], [[0.5]]), (["a", "b"], [[1.0, 0.0]]), (["a", "b"], [[1.5, -0.5], [0.0, 1.0]])],
)
def test_a_matrix_that_is_none_of_probabilities_is_refused(tags: list[str], rows: Any) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        TagChain.from_probabilities(tags, rows)


@pytest.mark.parametrize("wrong", [{"half_life_ms": 0.0}, {"max_tags": 0}])
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive"):
        TagChain(**wrong)
