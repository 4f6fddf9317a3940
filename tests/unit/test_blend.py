"""The blend's kernels against plain numpy, and the gate's learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.blend import (
    INITIAL_WEIGHTS,
    Gate,
    make_work,
    prepare_popular,
    rescored,
)
from learners.blend_kernels import (
    N_BUCKETS,
    N_FEATURES,
    NEVER_AGAIN,
    POPULARITY,
    TRANSITIONS,
    Lists,
    Popular,
    Rows,
    Work,
    bucket_of,
    exp32,
    log32,
)
from learners.blend_lists import fill_unseen, rank_sparse
from learners.blend_select import LANES, count_above, select_best
from schemas.errors import StateError
from schemas.runs import Float32, Float64, Int32

N, K, H, S, P = 40, 6, 12, 5, 10


@dataclass
class World:
    """A small state of all sources, and some users."""

    rows: Rows
    shares: Float32
    popular: Popular
    weights: Float32
    history: Int32
    seen: Int32
    withdrawn: NDArray[np.bool_]


def a_world(seed: int, n_users: int = 7) -> World:
    rng = np.random.default_rng(seed)
    nbr = np.full((N, K), -1, dtype=np.int32)
    for a in range(N):
        n = int(rng.integers(0, K + 1))
        nbr[a, :n] = rng.permutation(np.delete(np.arange(N), a))[:n]
    w = (rng.exponential(1.0, (N, K, 3)) * (nbr >= 0)[:, :, None]).astype(np.float32)
    rows = Rows(
        nbr, w, w.sum(axis=1), np.array([0.4, 0.6, 0.7], dtype=np.float32), 5.0, float(rng.uniform(0.1, 2)), 4
    )
    shares = rng.dirichlet(np.full(N, 0.3), 2).astype(np.float32)
    weights = rng.normal(0.2, 0.2, (N_BUCKETS, N_FEATURES)).astype(np.float32)
    tops = np.argsort(-shares, axis=1)[:, : P // 2].ravel().astype(np.int32)
    lengths = rng.integers(0, H + 1, n_users)
    history = rng.integers(0, N, (n_users, H)).astype(np.int32)
    history[np.arange(H)[None, :] < H - lengths[:, None]] = -1
    return World(
        rows=rows,
        shares=shares,
        popular=prepare_popular(shares, tops, weights),
        weights=weights,
        history=history,
        seen=rng.integers(-1, N, (n_users, S)).astype(np.int32),
        withdrawn=rng.random(N - 1) < 0.1,
    )


def expected_scores(world: World, i: int, *, exclude_seen: bool) -> dict[int, float]:
    """Scores of all candidates of user i, written as the documentation says it."""
    rows, popular = world.rows, world.popular
    history = [int(item) for item in world.history[i] if item >= 0]
    newest = history[::-1]
    s = np.zeros((N, 3))
    for j, a in enumerate(newest[: rows.n_last]):
        for k, b in enumerate(rows.nbr[a]):
            if b >= 0:
                s[b] += (
                    rows.gammas**j * rows.w[a, k] * rows.scale / (rows.rowsum[a] * rows.scale + rows.kappa)
                )
    candidates = {int(b) for a in newest[: rows.n_last] for b in rows.nbr[a] if b >= 0}
    candidates |= {int(b) for b in popular.items[0]}
    blocked = {b for b in range(len(world.withdrawn)) if world.withdrawn[b]}
    if exclude_seen:
        blocked |= set(history) | {int(b) for b in world.seen[i] if b >= 0}
    else:
        blocked |= set(newest[:NEVER_AGAIN])
        candidates |= set(history)
    theta = world.weights[bucket_of(len(history))].astype(np.float64)
    scores = {}
    for b in candidates - blocked:
        x = np.zeros(N_FEATURES)
        x[:3] = np.log1p(s[b] / 1e-4)
        x[3:5] = np.log1p(world.shares[:, b] / 1e-5)
        x[5] = float(not exclude_seen and b in history)
        scores[b] = float(theta @ x)
    return scores


def lists(n_users: int, k: int) -> Lists:
    return Lists(
        np.full((n_users, k), 99, dtype=np.int32),
        np.zeros((n_users, k), dtype=np.float32),
        np.zeros((n_users, k), dtype=np.float32),
        np.zeros((n_users, k), dtype=np.int8),
        np.zeros((n_users, k), dtype=np.int32),
    )


def a_work(k: int) -> Work:
    return make_work(N, 4 * K + H + P, k, 4 * K)


def ranked(world: World, k: int, *, exclude_seen: bool, work: Work | None = None) -> tuple[Lists, Work]:
    out, work = lists(len(world.history), k), a_work(k) if work is None else work
    users, turn = np.arange(len(world.history), dtype=np.int32), np.zeros(1, dtype=np.int64)
    rank_sparse(
        users, turn, world.history, world.seen, world.withdrawn, exclude_seen, world.rows, world.popular,
        world.weights, work, out,
    )  # fmt: skip
    return out, work


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    k=st.sampled_from([1, 3, 20, 60]),
    exclude_seen=st.booleans(),
)
def test_lists_are_the_best_of_the_documented_scores(seed: int, k: int, exclude_seen: bool) -> None:
    world = a_world(seed)
    out, _ = ranked(world, k, exclude_seen=exclude_seen)
    for i in range(len(world.history)):
        scores = expected_scores(world, i, exclude_seen=exclude_seen)
        got = [int(b) for b in out.items[i] if b >= 0]
        assert len(got) == min(k, len(scores)) == len(set(got))
        assert set(got) <= set(scores)
        best = sorted(scores.values(), reverse=True)[: len(got)]
        np.testing.assert_allclose(out.scores[i, : len(got)], best, atol=2e-4)
        np.testing.assert_allclose([scores[b] for b in got], best, atol=2e-4)
        assert (out.items[i, len(got) :] == -1).all()
        assert ((out.relevance[i, : len(got)] > 0) & (out.relevance[i, : len(got)] < 1)).all()


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), exclude_seen=st.booleans())
def test_source_and_reason_say_what_contributed_most(seed: int, exclude_seen: bool) -> None:
    world = a_world(seed)
    out, _ = ranked(world, 20, exclude_seen=exclude_seen)
    rows = world.rows
    for i, j in zip(*np.nonzero(out.items >= 0), strict=True):
        b, source, reason = out.items[i, j], out.sources[i, j], out.reasons[i, j]
        assert source in {TRANSITIONS, POPULARITY}
        assert (reason >= 0) == (source == TRANSITIONS)
        if source == TRANSITIONS:
            newest = world.history[i][world.history[i] >= 0][::-1][: rows.n_last]
            added: dict[int, float] = {}
            for place, a in enumerate(newest):
                t = (rows.nbr[a] == b) @ rows.w[a] * rows.scale / (rows.rowsum[a] * rows.scale + rows.kappa)
                added[int(a)] = max(added.get(int(a), 0.0), float((rows.gammas**place * t).sum()))
            assert added[int(reason)] == pytest.approx(max(added.values()), rel=1e-4)


def test_relevance_of_the_sparse_path_is_a_probability_over_its_candidates() -> None:
    world = a_world(11)
    out, _ = ranked(world, 60, exclude_seen=True)
    assert (out.relevance.sum(axis=1) <= 1.0 + 60 * 1e-4).all()
    better = out.scores[:, :-1] >= out.scores[:, 1:]
    assert (better | (out.items[:, 1:] < 0)).all()


def test_a_list_does_not_depend_on_whom_the_scratch_memory_served_before() -> None:
    """Nothing is cleared between users; when the stamps run out they begin anew."""
    used = a_work(5)
    used.stamp[0] = 32_700
    for seed in range(20):
        world = a_world(seed)
        out, _ = ranked(world, 5, exclude_seen=True, work=used)
        fresh, _ = ranked(world, 5, exclude_seen=True)
        for name, column in out._asdict().items():
            assert np.array_equal(column, getattr(fresh, name)), name
    assert used.stamp[0] < 32_700


def test_more_candidates_than_can_be_numbered_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        make_work(10, 70_000, 20, 0)


@settings(deadline=None, max_examples=200)
@given(
    values=st.lists(
        st.sampled_from([-1.0, 0.0, 0.5, 0.25, 3.0, 1e-7, -40.0]) | st.floats(-50, 50, width=32), max_size=700
    ),
    k=st.sampled_from([1, 5, 20, 64]),
)
def test_selection_is_a_stable_sort(values: list[float], k: int) -> None:
    work = make_work(1, 700, k, 0)
    work.score[: len(values)] = values
    work.ids[: len(values)] = np.arange(len(values))
    n = select_best(len(values), k, work)
    order = np.argsort(-np.array(values, dtype=np.float32), kind="stable")[:k]
    assert n == len(order)
    assert work.top_items[:n].tolist() == order.tolist()
    assert work.top_scores[:n].tolist() == np.array(values, dtype=np.float32)[order].tolist()


def test_ranks_of_equal_values_are_equal() -> None:
    values = np.full(LANES, -np.inf, dtype=np.float32)
    values[:4] = 1.0, 2.0, 1.0, 0.0
    above = np.zeros(4, dtype=np.int32)
    count_above(4, values, above)
    assert above.tolist() == [1, 0, 1, 3]


def test_polynomials_are_near_enough() -> None:
    x = np.exp(np.linspace(-8, 14, 500)).astype(np.float32)
    assert max(abs(float(log32(v)) - np.log(v)) for v in x) < 2e-5
    assert log32(np.float32(1.0)) == 0.0
    y = np.linspace(-79, 60, 500).astype(np.float32)
    assert max(abs(float(exp32(v)) / np.exp(np.float64(v)) - 1) for v in y) < 2e-5
    assert 0.0 < exp32(np.float32(-1e9)) < 1e-30


@pytest.mark.parametrize(
    ("length", "bucket"), [(0, 0), (1, 1), (2, 2), (4, 2), (5, 3), (14, 3), (15, 4), (49, 4), (50, 5)]
)
def test_buckets(length: int, bucket: int) -> None:
    assert bucket_of(length) == bucket


def test_popular_items_are_ordered_by_each_buckets_weights() -> None:
    world = a_world(3)
    changed = world.weights[::-1].copy()
    popular = rescored(world.popular, changed)
    for bucket in range(N_BUCKETS):
        scores = world.popular.features[popular.items[bucket]] @ changed[bucket, 3:5]
        np.testing.assert_allclose(popular.scores[bucket], scores, rtol=1e-5)
        assert (np.diff(popular.scores[bucket]) <= 0).all()
        assert sorted(popular.items[bucket]) == sorted(world.popular.items[0])


def test_no_popular_items_yet() -> None:
    empty = prepare_popular(
        np.zeros((2, 0), dtype=np.float32), np.full(4, -1, dtype=np.int32), Gate().weights
    )
    out = lists(1, 3)
    nothing = np.full((1, H), -1, dtype=np.int32)
    rank_sparse(
        np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int64), nothing, nothing,
        np.zeros(0, dtype=np.bool_), True, a_world(0).rows,
        empty, Gate().weights, a_work(3), out,
    )  # fmt: skip
    assert out.items.tolist() == [[-1, -1, -1]]


def test_unseen_popular_items_fill_a_list() -> None:
    out = np.full((3, 2), -1, dtype=np.int32)
    seen = np.array([[-1, 4], [-1, -1], [5, 6]], dtype=np.int32)
    fill_unseen(np.array([4, 5, 6], dtype=np.int32), seen, out)
    assert out.tolist() == [[5, 6], [4, 5], [4, -1]]


# -- learning ---------------------------------------------------------------------------------------


def learn(gate: Gate, world: World, targets: Int32) -> int:
    return gate.learn(
        np.arange(len(targets), dtype=np.int32), targets, world.history, world.seen, world.withdrawn, True,
        world.rows, world.popular, a_work(1),
    )  # fmt: skip


def reference_step(gate: Gate, world: World, target: int) -> tuple[Float64, Float64]:
    """Shared and bucket weights after one Adagrad step for user 0, in float64."""
    history = world.history[0]
    bucket = bucket_of(int((history >= 0).sum()))
    theta = gate.weights[bucket].astype(np.float64)
    base = {b: features_of(world, b) for b in expected_scores(world, 0, exclude_seen=True)}
    x = np.stack(list(base.values()))
    z = x @ theta
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    g = p @ x - base[target]
    step = 0.05 * g / np.sqrt(0.01 + g * g)
    state = gate.snapshot()
    own = state["own"].astype(np.float64)
    own[bucket] -= step
    return state["shared"].astype(np.float64) - step, own


def features_of(world: World, b: int) -> NDArray[np.float64]:
    """Features of item b for user 0, one at a time through unit weights."""
    probe = World(**(vars(world) | {"weights": np.zeros_like(world.weights)}))
    x = np.zeros(N_FEATURES)
    for f in range(N_FEATURES):
        probe.weights[:] = 0
        probe.weights[:, f] = 1
        x[f] = expected_scores(probe, 0, exclude_seen=True)[b]
    return x


@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_adagrad_on_listwise_cross_entropy(seed: int) -> None:
    world = a_world(seed, n_users=1)
    world.history[0, -3:] = [1, 2, 3]  # not a cold user
    candidates = sorted(expected_scores(world, 0, exclude_seen=True))
    gate = Gate()
    target = candidates[seed % len(candidates)]
    shared, own = reference_step(gate, world, target)
    assert learn(gate, world, np.array([target], dtype=np.int32)) == 1
    state = gate.snapshot()
    np.testing.assert_allclose(state["shared"].astype(np.float64), shared, atol=1e-4)
    np.testing.assert_allclose(state["own"].astype(np.float64), own, atol=1e-4)


def test_a_target_that_is_no_candidate_teaches_nothing() -> None:
    world = a_world(4, n_users=1)
    gate = Gate()
    before = gate.digest()
    missing = set(range(N)) - set(expected_scores(world, 0, exclude_seen=True))
    for target in [*missing, -1, N + 100]:
        assert learn(gate, world, np.array([target], dtype=np.int32)) == 0
    assert gate.digest() == before
    assert gate.touched().dense == ()


def test_it_learns_which_source_to_trust() -> None:
    """Users always watch the item that transitions rank highest; popularity is noise."""
    rng = np.random.default_rng(0)
    gate = Gate()
    losses = []
    for step in range(60):
        world = a_world(step, n_users=16)
        world.history[:, -3:] = rng.integers(0, N, (16, 3))
        targets = np.full(16, -1, dtype=np.int32)
        only_rows = World(**(vars(world) | {"weights": np.tile([1.0, 1, 1, 0, 0, 0], (N_BUCKETS, 1))}))
        for i in range(16):
            scores = expected_scores(only_rows, i, exclude_seen=True)
            if scores and max(scores.values()) > 0:
                targets[i] = max(scores, key=lambda b: scores[b])
        world.weights = gate.weights
        world.popular = rescored(world.popular, world.weights)
        out, _ = ranked(world, 1, exclude_seen=True)
        known = targets >= 0
        losses.append(float((out.items[known, 0] != targets[known]).mean()))
        learn(gate, world, targets)
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])
    weights = gate.weights[3]
    assert weights[:3].sum() > weights[3:5].sum()
    assert gate.touched().dense == ("gate",)


def test_same_calls_same_bits_and_restore_is_identity() -> None:
    world = a_world(5)
    targets = np.array([world.popular.items[0, i % P] for i in range(7)], dtype=np.int32)
    one, other, restored = Gate(), Gate(), Gate()
    for gate in (one, other):
        learn(gate, world, targets)
    assert one.n_learned > 0
    assert one.digest() == other.digest()
    taken = one.snapshot()
    restored.restore(taken)
    assert restored.digest() == one.digest()
    taken["shared"][:] = 0
    assert restored.digest() == one.digest()
    learn(one, world, targets)
    learn(restored, world, targets)
    assert restored.digest() == one.digest()


def test_state_of_another_build_is_refused_whole() -> None:
    gate = Gate()
    before = gate.digest()
    state = gate.snapshot()
    state["own"] = state["own"][:, :-1]
    with pytest.raises(StateError, match="own"):
        gate.restore(state)
    state = gate.snapshot()
    state["shared"][0] = np.nan
    with pytest.raises(StateError, match="not finite"):
        gate.restore(state)
    assert gate.digest() == before


def test_turns_are_counted_across_calls() -> None:
    gate = Gate()
    rows = np.arange(7, dtype=np.int32)
    assert gate.take_turns(rows, 3).tolist() == [0, 3, 6]
    assert gate.take_turns(rows, 3).tolist() == [2, 5]
    assert gate.take_turns(rows, 1).tolist() == rows.tolist()


def test_in_the_beginning_popularity_leads() -> None:
    """One transition seen once does not pass an item with a tenth of all visits."""
    once = np.log1p(np.array([1.0, 1.0, 0.0]) / 6.0 / 1e-4)
    theta = np.array(INITIAL_WEIGHTS)
    seen_once = theta[:3] @ once + theta[3:5] @ np.log1p(np.full(2, 1e-4) / 1e-5)
    popular = theta[3:5] @ np.log1p(np.full(2, 0.1) / 1e-5)
    assert popular > seen_once
