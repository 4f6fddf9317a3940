"""Fusion of modalities: what it learns, what lacking modalities cost, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.content_fusion import ContentFusion, FusionOptions, FusionStep, share_of_row
from learners.content_vectors import ContentVectors, content_of, normalised
from schemas.errors import StateError
from schemas.runs import Float32

DIMS = {"text": 16, "image": 24}
DIM = 8
N = 256


def _world(seed: int = 0) -> tuple[ContentVectors, Float32]:
    """Items whose rows are half in their text, half in their picture."""
    random = np.random.default_rng(seed)
    vectors = {name: random.normal(size=(N, size)).astype(np.float32) for name, size in DIMS.items()}
    maps = [
        np.random.default_rng(9 + k).normal(size=(size, DIM)) * (np.arange(DIM) % 2 == k)
        for k, size in enumerate(DIMS.values())
    ]
    unit = [normalised(x, np.ones(N, np.bool_)) for x in vectors.values()]
    rows = sum(x @ a for x, a in zip(unit, maps, strict=True))
    return content_of(N, vectors, DIMS), np.asarray(rows, dtype=np.float32)


def _step(content: ContentVectors, rows: Float32, *, support: int = 60, users: int = 0) -> FusionStep:
    n = len(content)
    return FusionStep(
        content=content,
        rows=rows,
        support=np.full(n, support, dtype=np.int32),
        users=rows[:users] * 2.0,
        target=np.arange(users, dtype=np.int32),
        log_q=np.zeros(n, dtype=np.float32),
    )


def _learned(options: FusionOptions, *, epochs: int = 60) -> ContentFusion:
    content, rows = _world()
    fusion = ContentFusion(DIMS, DIM, seed=1, options=options)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(N).astype(np.int32)
        for start in range(0, N, 64):
            part = order[start : start + 64]
            fusion.learn(_step(content.take(part), rows[part]))
    return fusion


def _unexplained(fusion: ContentFusion, content: ContentVectors, rows: Float32) -> float:
    """Share of the rows' variance that g does not explain."""
    return float(((fusion.vectors(content) - rows) ** 2).sum() / ((rows - rows.mean(0)) ** 2).sum())


def test_rows_of_items_never_seen_are_found_from_their_content() -> None:
    content, rows = _world(seed=77)
    fusion = _learned(FusionOptions())
    both = _unexplained(fusion, content, rows)
    present = content.present.copy()
    present[:, 1] = False
    text_only = _unexplained(fusion, ContentVectors(content.vectors, present), rows)
    assert both < 0.35
    assert both < text_only < 1.3  # what lacks costs accuracy, and nothing else
    assert _unexplained(_learned(FusionOptions(kind="concat")), content, rows) < 0.35


def test_the_gate_is_a_share_of_what_is_there() -> None:
    content, _ = _world()
    fusion = _learned(FusionOptions(), epochs=2)
    weights = fusion.weights(content)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    alone = ContentVectors(content.vectors, np.tile([True, False], (N, 1)))
    np.testing.assert_allclose(fusion.weights(alone), np.tile([1.0, 0.0], (N, 1)), rtol=1e-6)
    nothing = ContentVectors(content.vectors, np.zeros((N, 2), dtype=np.bool_))
    assert (fusion.weights(nothing) == 0).all()
    assert np.isfinite(fusion.vectors(nothing)).all()


def test_what_is_absent_or_not_finite_is_not_looked_at() -> None:
    content, rows = _world()
    fusion = _learned(FusionOptions(), epochs=2)
    present = np.tile([True, False], (N, 1))
    honest = fusion.vectors(ContentVectors(content.vectors, present))
    poisoned = dict(content.vectors)
    poisoned["image"] = np.full_like(poisoned["image"], np.nan)
    np.testing.assert_array_equal(fusion.vectors(ContentVectors(poisoned, present)), honest)
    np.testing.assert_array_equal(fusion.vectors(ContentVectors(poisoned, content.present)), honest)
    loss = fusion.learn(_step(ContentVectors(poisoned, content.present), rows, users=3))
    assert np.isfinite(loss)
    assert fusion.discarded_steps == 0


def test_a_step_that_is_not_finite_changes_nothing_but_its_number() -> None:
    content, rows = _world()
    fusion = _learned(FusionOptions(), epochs=1)
    before = fusion.vectors(content)
    broken = rows.copy()
    broken[3, 2] = np.inf
    assert np.isnan(fusion.learn(_step(content, broken)))
    assert fusion.discarded_steps == 1
    np.testing.assert_array_equal(fusion.vectors(content), before)


def test_rows_with_little_support_teach_nothing() -> None:
    content, rows = _world()
    fusion = ContentFusion(DIMS, DIM)
    before = fusion.digest()
    assert np.isnan(fusion.learn(_step(content, rows, support=4)))
    assert fusion.digest() == before


def test_the_main_loss_alone_brings_items_to_their_users() -> None:
    content, rows = _world()
    fusion = ContentFusion(DIMS, DIM, options=FusionOptions(main_loss=1.0))
    step = _step(content.take(slice(0, 64)), np.zeros((64, DIM), np.float32), support=0, users=0)
    step = step._replace(users=rows[:64] * 4.0, target=np.arange(64, dtype=np.int32))
    losses = [fusion.learn(step) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_blend_moves_from_content_to_the_row() -> None:
    content, rows = _world()
    fusion = ContentFusion(DIMS, DIM)
    new = fusion.blended(content, rows, np.zeros(N, np.int32))
    np.testing.assert_array_equal(new, fusion.vectors(content))
    old = fusion.blended(content, rows, np.full(N, 1_000_000, np.int32))
    np.testing.assert_allclose(old, rows, atol=1e-3)


def test_a_state_of_other_modalities_is_refused() -> None:
    fusion = ContentFusion(DIMS, DIM)
    with pytest.raises(StateError, match=r"fusion\.shape"):
        fusion.restore(ContentFusion({"text": 16, "image": 25}, DIM).snapshot())
    with pytest.raises(ValueError, match="modalities"):
        fusion.vectors(content_of(1, {}, {"text": 16}))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(width=32), min_size=4, max_size=4), st.booleans())
def test_whatever_a_vector_holds_the_input_has_length_one_or_none(values: list[float], there: bool) -> None:
    found = normalised(np.array([values], dtype=np.float32), np.array([there]))
    assert np.isfinite(found).all()
    length = float(np.linalg.norm(found))
    assert abs(length - 1.0) < 1e-3 or length == 0.0


def test_the_share_of_the_row_is_half_at_fifteen_events() -> None:
    np.testing.assert_allclose(share_of_row(np.array([0, 5, 15, 45], np.int32)), [0.0, 0.25, 0.5, 0.75])
