"""The tagger: what it learns, what it says of tags without an example, why, and how good it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.content_vectors import ContentVectors, content_of
from learners.recursive_ridge import RecursiveRidge
from learners.tag_metrics import TagMetrics, average_precision
from learners.tag_thresholds import WINDOW, TagThresholds
from learners.tag_vocabulary import TagVocabulary
from learners.tagger import Tagger, TaggerOptions, TagScores
from schemas.errors import StateError
from schemas.runs import Float32

DIMS = {"text": 12, "image": 20}
TAGS = ("cat", "dog", "tree", "boat")


def _items(
    n: int, seed: int = 0, tags: tuple[str, ...] = TAGS, noise: float = 0.6
) -> tuple[ContentVectors, list[list[str]]]:
    """Items with one or two tags, which both modalities show with noise of their own."""
    random = np.random.default_rng(seed)
    chosen = random.random((n, len(tags))) < 0.25
    chosen[np.arange(n), random.integers(len(tags), size=n)] = True
    vectors = {}
    for name, size in DIMS.items():
        means = np.stack([_mean(tag, name, size) for tag in tags])
        vectors[name] = (chosen @ means + noise * random.normal(size=(n, size))).astype(np.float32)
    return content_of(n, vectors, DIMS), [[tags[t] for t in np.flatnonzero(row)] for row in chosen]


def _mean(tag: str, modality: str, size: int) -> Float32:
    seed = [ord(letter) for letter in tag + modality]
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def _labels(tagger: Tagger, tags: list[list[str]]) -> Float32:
    return np.array([[name in names for name in tagger.tags] for names in tags], dtype=np.float32)


def _accuracy(tagger: Tagger, content: ContentVectors, tags: list[list[str]]) -> float:
    return float((tagger.predict(content).given == (_labels(tagger, tags) > 0)).mean())


def test_two_modalities_say_more_than_one_and_one_that_lacks_costs_only_accuracy() -> None:
    tagger = Tagger(DIMS)
    tagger.learn(*_items(700))
    content, tags = _items(400, seed=1)
    both = _accuracy(tagger, content, tags)
    one = [
        _accuracy(tagger, ContentVectors(content.vectors, np.tile(np.arange(2) == m, (400, 1))), tags)
        for m in range(2)
    ]
    assert both > max(one) > 0.75
    assert both > 0.9
    nothing = tagger.predict(ContentVectors(content.vectors, np.zeros((400, 2), np.bool_)))
    assert np.isfinite(nothing.probabilities).all()


def test_probabilities_are_frequencies() -> None:
    tagger, metrics = Tagger(DIMS), TagMetrics()
    tagger.learn(*_items(600))
    content, tags = _items(1_000, seed=2)
    metrics.add(tagger.predict(content), _labels(tagger, tags))
    assert metrics.figures().ece < 0.05


def test_what_is_returned_was_thought_before_it_was_learned() -> None:
    content, tags = _items(64)
    tagger, twin = Tagger(DIMS), Tagger(DIMS)
    found = tagger.learn(content, tags)
    first = twin.learn(content.take(slice(0, 32)), tags[:32])
    np.testing.assert_array_equal(found.probabilities[:32], first.probabilities)
    assert not first.given[0].any()
    np.testing.assert_array_equal(
        found.probabilities[32:], twin.predict(content.take(slice(32, 64))).probabilities
    )


def test_a_tag_without_an_example_is_recognised_by_its_text() -> None:
    content, tags = _items(600)
    tagger = Tagger(DIMS)
    for tag in (*TAGS, "whale", "kite"):
        tagger.set_tag_text(tag, _mean(tag, "text", DIMS["text"]))
    tagger.learn(content, tags)
    unseen, truth = _items(200, seed=5, tags=("whale", "kite"))
    p = tagger.predict(unseen).probabilities
    is_whale = np.array(["whale" in names for names in truth])
    whale = p[:, tagger.tags.index("whale")]
    assert tagger.examples["whale"] == 0
    assert whale[is_whale].mean() > 3 * whale[~is_whale].mean()
    (said,) = tagger.explain(unseen.take(slice(0, 1)), ["whale"])
    assert said[0].modalities == {"text": 0.0, "image": 0.0}  # only the text can have spoken


def test_what_speaks_for_a_tag_adds_up_to_its_logit() -> None:
    tagger = Tagger(DIMS)
    for tag in TAGS:
        tagger.set_tag_text(tag, _mean(tag, "text", DIMS["text"]))
    tagger.learn(*_items(300))
    content, _ = _items(20, seed=3)
    present = np.tile([True, True], (20, 1))
    present[::2, 1] = False
    content = ContentVectors(content.vectors, present)
    p = tagger.predict(content).probabilities
    for row, said in enumerate(tagger.explain(content, [*TAGS, "unknown"])):
        assert [one.tag for one in said] == list(TAGS)
        for one in said:
            z = one.bias + sum(one.modalities.values()) + one.tag_text
            assert 1 / (1 + np.exp(-z)) == pytest.approx(p[row, tagger.tags.index(one.tag)], abs=1e-5)
            assert (one.modalities["image"] == 0.0) == (row % 2 == 0)


def test_the_modality_that_knows_is_the_one_that_speaks() -> None:
    content, tags = _items(600)
    noise = np.random.default_rng(1).normal(size=content.vectors["image"].shape).astype(np.float32)
    content = ContentVectors({**content.vectors, "image": noise}, content.present)
    tagger = Tagger(DIMS)
    tagger.learn(content, tags)
    said = tagger.explain(content.take(slice(0, 50)), ["cat"])
    by_text, by_image = ([abs(one[0].modalities[name]) for one in said] for name in DIMS)
    assert np.mean(by_text) > 3 * np.mean(by_image)


def test_tags_are_bounded_and_those_that_came_once_make_room() -> None:
    tagger = Tagger(DIMS, TaggerOptions(max_tags=6))
    content, tags = _items(64)
    tagger.learn(content, tags)
    sizes = set()
    for k in range(20):
        tagger.learn(content.take(slice(0, 1)), [[f"passing {k}", "cat"]])
        sizes.add(sum(array.nbytes for name, array in tagger.snapshot().items() if name != "tags.names"))
    assert set(TAGS) <= set(tagger.tags)
    assert len(tagger.tags) == 6
    assert len(sizes) <= 2


def test_an_item_without_tags_teaches_nothing_about_tags() -> None:
    content, tags = _items(64)
    tagger = Tagger(DIMS)
    tagger.learn(content, tags)
    before = tagger.predict(content).probabilities
    tagger.learn(content, [[] for _ in tags])
    np.testing.assert_array_equal(tagger.predict(content).probabilities, before)


def test_nothing_that_is_not_finite_gets_in() -> None:
    content, tags = _items(64)
    poisoned = ContentVectors(
        {**content.vectors, "image": np.full_like(content.vectors["image"], np.inf)}, content.present
    )
    tagger = Tagger(DIMS)
    tagger.learn(poisoned, tags)
    assert tagger.discarded_steps == 0
    assert all(np.isfinite(array).all() for array in tagger.snapshot().values())
    snapshot = tagger.snapshot()
    snapshot["gate.shared"][0] = np.nan
    with pytest.raises(StateError, match=r"gate\.shared"):
        tagger.restore(snapshot)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 1_000))
def test_the_recursion_is_the_ridge_regression_of_all_rows(n: int, block: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 5)).astype(np.float32)
    y = random.normal(size=(n, 3)).astype(np.float32)
    ridge = RecursiveRidge(5, 2, ridge=0.3)
    for start in range(0, n, block):
        ridge.widen(3)
        assert ridge.learn(x[start : start + block], y[start : start + block])
    full = np.append(x, np.ones((n, 1)), axis=1).astype(np.float64)
    weights = np.linalg.solve(0.3 * np.eye(6) + full.T @ full, full.T @ y)
    np.testing.assert_allclose(ridge.predict(x), full @ weights, rtol=1e-3, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4), max_size=12))
def test_the_vocabulary_holds_what_it_says(batches: list[list[str]]) -> None:
    tags = TagVocabulary(3, 2)
    for batch in batches:
        for name in batch:
            column, is_new = tags.admit(name)
            assert tags.names[column] == name
            assert not (is_new and tags.counts[column])
            tags.counts[column] += 1
    assert len(tags) == len(set(tags.names)) <= 3
    twin = tags.restored({f"t.{key}": array for key, array in tags.arrays().items()}, "t")
    assert twin.names == tags.names
    assert [twin.column(name) for name in tags.names] == list(range(len(tags)))


def test_thresholds_come_from_a_window_that_is_over() -> None:
    thresholds = TagThresholds()
    thresholds.widen(1)
    p = np.linspace(0.0, 0.4, WINDOW, dtype=np.float32)[:, None]
    y = (p > 0.3).astype(np.float32)
    thresholds.add(p[:-1], y[:-1])
    assert thresholds.values[0] == 0.5
    thresholds.add(p[-1:], y[-1:])
    assert thresholds.values[0] == pytest.approx(p[y > 0].min())


def test_figures_of_known_decisions() -> None:
    metrics = TagMetrics()
    p = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.4]], dtype=np.float32)
    labels = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    metrics.add(TagScores(p[:2], p[:2] >= 0.5), labels[:2])
    metrics.add(TagScores(p[2:], p[2:] >= 0.5), labels[2:])
    found = metrics.figures()
    assert found.n_items == 3
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.top_accuracy == pytest.approx(2 / 3)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(2 / 3)
    assert found.mean_precision == pytest.approx((1.0 + 0.5) / 2)
    assert found.macro_f1 == pytest.approx(0.5)


def test_average_precision_breaks_ties_against_us() -> None:
    y = np.array([1, 0, 0], np.int8)
    assert average_precision(y, np.array([0.5, 0.5, 0.1])) == 0.5
    assert average_precision(y, np.array([0.5, 0.4, 0.1])) == 1.0
