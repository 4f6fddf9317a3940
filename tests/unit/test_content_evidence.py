"""What content says of candidates, against plain arithmetic; which new items are proposed."""

from __future__ import annotations

import numpy as np
import pytest

from learners.content_evidence import NEW, ContentEvidence
from learners.content_facts import DIMS, FACTS, facts_vector
from learners.content_fusion import ContentFusion
from learners.content_items import REFRESHED, ContentItems
from learners.content_kernels import (
    MOST_EVENTS,
    N_CONTENT,
    N_OWN,
    SHARED,
    UNPUBLISHED,
    Known,
    Profiles,
    fill_ages,
    fill_content,
)
from learners.embeddings import Embeddings
from learners.mixture import INITIAL_CONTENT, Mixture
from learners.mixture_candidates import Gathered
from learners.mixture_features import N_SOURCES
from learners.popularity import Popularity
from schemas.errors import StateError
from schemas.learner import Contexts, Interactions
from schemas.runs import Float32, Int32

DAY_MS = 86_400_000
SIZES = {"text": 8, FACTS: DIMS}
KINDS = 3
N_OLD, N_NEW = 24, 9
NOW_MS = 1_000 * DAY_MS


def known_items(rng: np.random.Generator) -> Known:
    return Known(
        near=rng.normal(size=(6, 4)).astype(np.float32),
        facts=rng.normal(size=(6, 3)).astype(np.float32),
        fused=rng.normal(size=(6, 5)).astype(np.float32),
        has=np.array([3, 1, 2, 0, 3, 3], dtype=np.int32),
        log_age=np.array([1.0, -1.0, 3.0, 2.0, 0.0, 1.2], dtype=np.float32),
        support=np.array([0, 2, MOST_EVENTS + 1, 9], dtype=np.int32),  # none of 4 and 5 yet
    )


def test_features_are_those_of_the_equations() -> None:
    rng = np.random.default_rng(1)
    known = known_items(rng)
    shifts = np.array([[0.1, 2.0, -0.2, 3.0, 0.5]], dtype=np.float32)
    users = Profiles(
        near=rng.normal(size=(1, 4)).astype(np.float32),
        facts=rng.normal(size=(1, 3)).astype(np.float32),
        vectors=rng.normal(size=(1, 5)).astype(np.float32),
        shifts=shifts,
        ages=np.array([[1.1, -1.0, 2.5, -1.0, -1.0]], dtype=np.float32),
    )
    ids = np.array([[0, 1, 2, 3, 4, 9]], dtype=np.int32)  # 9 is not known at all
    x = rng.normal(size=(1, N_SOURCES + N_CONTENT, 6)).astype(np.float32)
    before = x.copy()
    fill_content(1, np.array([6], dtype=np.int32), ids, known, users, N_SOURCES, x)
    np.testing.assert_array_equal(x[:, :N_SOURCES], before[:, :N_SOURCES])
    for c, item in enumerate(ids[0].tolist()):
        y = x[0, N_SOURCES:, c]
        inside = item < 6
        bits = int(known.has[item]) if inside else 0
        n = int(known.support[item]) if item < 4 else 0
        nu = np.exp(-n / 3) if n <= MOST_EVENTS else 0.0
        wanted = np.zeros(N_CONTENT)
        if bits & 1:
            wanted[0] = 2.0 * (users.near[0] @ known.near[item] - 0.1)
        if bits & 2:
            wanted[1] = 3.0 * (users.facts[0] @ known.facts[item] + 0.2)
        if bits:
            wanted[4] = np.clip(users.vectors[0] @ known.fused[item] - 0.5, -6.0, 10.0)
        age = float(known.log_age[item]) if inside else -1.0
        if age >= 0:
            close = [np.exp(-((age - a) ** 2) / (2 * 0.3**2)) for a in (1.1, 2.5)]
            wanted[2], wanted[3], wanted[12] = close[0], np.mean(close), age / 2
        wanted[5:10] = nu * wanted[:5]
        wanted[10], wanted[11], wanted[13] = nu, n == 0, nu * wanted[12]
        wanted[N_OWN:] = 0.5 * nu * before[0, list(SHARED), c]
        np.testing.assert_allclose(y, wanted, atol=2e-4, err_msg=str(item))


def test_ages_are_logarithms_of_days_and_unknown_where_nothing_is_said() -> None:
    published = np.array([NOW_MS - 9 * DAY_MS, UNPUBLISHED, NOW_MS + DAY_MS, -50 * DAY_MS], dtype=np.int64)
    out = np.zeros(4, dtype=np.float32)
    fill_ages(published, NOW_MS, out)
    np.testing.assert_allclose(out, [np.log(10.0), -1.0, 0.0, np.log(1_051.0)], atol=1e-4)


def vectors_of(item: int) -> dict[str, Float32]:
    kind = item % KINDS
    noise = np.random.default_rng([5, item]).normal(size=8)
    means = np.random.default_rng(4).normal(size=(KINDS, 8))[kind]
    return {"text": (means + 0.2 * noise).astype(np.float32), FACTS: facts_vector([f"tag {kind}"])}


def events(n: int, seed: int) -> Interactions:
    """Users who stay with items of one kind."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(KINDS, size=n)
    items = (KINDS * rng.integers(N_OLD // KINDS, size=(n, 9)) + kind[:, None]).astype(np.int32)
    return Interactions(
        users=rng.integers(30, size=n).astype(np.int32),
        items=items[:, 8].copy(),
        types=np.zeros(n, dtype=np.int8),
        ts_ms=NOW_MS - n + np.arange(n, dtype=np.int64),
        weight=np.ones(n, dtype=np.float32),
        history=items[:, :8].copy(),
        fresh=np.ones(n, dtype=np.bool_),
        gap_ms=np.full(n, -1, dtype=np.int64),
    )


class World:
    """Items of three kinds, the last nine of them new."""

    def __init__(self) -> None:
        self.embeddings = Embeddings(dim=16, history=8, seed=1)
        self.popularity = Popularity(tuple(float(DAY_MS * k) for k in (1, 10, 0.1, 100, 1_000)))
        self.items = ContentItems(ContentFusion(SIZES, 16, seed=2), self.embeddings)
        for item in range(N_OLD + N_NEW):
            self.items.set_item(item, vectors_of(item), published_ms=NOW_MS - item * DAY_MS)
        self.evidence = ContentEvidence(self.items, self.embeddings, self.popularity)
        for seed in range(5):
            self.learn(events(400, seed))

    def learn(self, batch: Interactions) -> None:
        self.items.learn_many(batch)
        self.popularity.learn_many(batch)
        self.embeddings.learn_many(batch)


def asked(n: int = 6) -> tuple[Contexts, Int32]:
    batch = events(n, 77)
    return Contexts(users=batch.users, history=batch.history, now_ms=NOW_MS), batch.items % KINDS


NOBODY = np.zeros(0, dtype=np.bool_)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_only_new_items_that_may_be_shown_are_proposed(world: World) -> None:
    contexts, _ = asked()
    proposed = world.evidence.propose(contexts, NOBODY)
    assert set(proposed.ravel().tolist()) == set(range(N_OLD, N_OLD + N_NEW))
    gone = np.zeros(N_OLD + 2, dtype=np.bool_)
    gone[N_OLD + 1] = True
    assert N_OLD + 1 not in world.evidence.propose(contexts, gone)
    assert (world.embeddings.support[:N_OLD] > NEW).all()


def test_new_items_of_the_kind_that_was_watched_are_nearest(world: World) -> None:
    contexts, kinds = asked(40)
    world.evidence.propose(contexts, NOBODY)
    x = np.zeros((40, N_SOURCES + N_CONTENT, N_NEW), dtype=np.float32)
    new = np.arange(N_OLD, N_OLD + N_NEW, dtype=np.int32)
    none: Int32 = np.zeros(40, dtype=np.int32)
    filled: Int32 = np.full(40, N_NEW, dtype=np.int32)
    ids: Int32 = np.tile(new, (40, 1))
    world.evidence.fill(Gathered(ids=ids, x=x, logit=x[:, 0], filled=filled, bucket=none), 40)
    for feature in (0, 1, 4):
        best = new[x[:, N_SOURCES + feature].argmax(axis=1)] % KINDS
        assert (best == kinds).mean() > 0.9, feature


def test_what_is_found_follows_from_the_state(world: World) -> None:
    other = World.__new__(World)
    other.embeddings = Embeddings(dim=16, history=8, seed=1)
    other.embeddings.restore(world.embeddings.snapshot())
    other.popularity = Popularity(tuple(float(DAY_MS * k) for k in (1, 10, 0.1, 100, 1_000)))
    other.popularity.restore(world.popularity.snapshot())
    other.items = ContentItems(ContentFusion(SIZES, 16, seed=2), other.embeddings)
    other.items.restore(world.items.snapshot())
    other.evidence = ContentEvidence(other.items, other.embeddings, other.popularity)
    contexts, _ = asked()
    np.testing.assert_array_equal(
        world.evidence.propose(contexts, NOBODY), other.evidence.propose(contexts, NOBODY)
    )
    assert other.items.digest() == world.items.digest()


def test_fused_vectors_are_made_anew_while_the_fusion_learns() -> None:
    world = World()
    n = N_OLD + N_NEW
    assert n < REFRESHED
    new = np.arange(n, dtype=np.int32)
    np.testing.assert_allclose(
        world.items.fused, world.items.fusion.vectors(world.items.content(new)), atol=1e-6
    )
    before = world.items.fused.copy()
    world.learn(events(400, 9))
    assert (world.items.fused != before).any()


def test_a_part_of_an_item_may_change_alone() -> None:
    items = ContentItems(ContentFusion(SIZES, 16, seed=2), Embeddings(dim=16, history=8, seed=1))
    items.set_part(3, {FACTS: facts_vector(["chess"])}, published_ms=5)
    items.set_part(3, {"text": np.ones(8, dtype=np.float32)})
    assert items.present[3].tolist() == [True, True]
    assert items.published_ms[3] == 5
    items.set_part(3, {"text": np.full(1, np.nan, dtype=np.float32)})
    assert items.present[3].tolist() == [False, True]
    with pytest.raises(ValueError, match="none of"):
        items.set_part(3, {"text": np.ones(7, dtype=np.float32)})


def test_weights_of_content_come_and_go_with_a_restored_gate() -> None:
    plain, knowing = Mixture(), Mixture(INITIAL_CONTENT)
    state = plain.snapshot()
    state["shared"][:] = 0.5
    state["own"][:] = 0.25
    knowing.restore(state)
    assert (knowing.weights[:, :N_SOURCES] == 0.75).all()
    np.testing.assert_allclose(knowing.weights[0, N_SOURCES:], INITIAL_CONTENT)
    plain.import_dense(knowing.export_dense())
    assert plain.weights.shape[1] == N_SOURCES
    assert (plain.weights == 0.75).all()
    with pytest.raises(StateError):
        knowing.restore({**state, "shared": state["shared"][:-1]})
