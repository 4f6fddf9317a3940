"""The parts of the probability learner against what their equations say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from learners import factorisation, logistic_filter
from learners.hashed_rows import claim, find, hash_keys
from learners.history_attention import DIM, HistoryAttention, histories_of, train_attention
from learners.history_attention_kernels import MAX_HISTORY, attention_logit
from learners.impression_memory import KNOWN
from learners.impressions import Impressions, group_ends, rows_of
from learners.logistic_filter import sigmoid_of
from learners.probability import Probability, ProbabilityOptions
from learners.probability_inputs import CATEGORIES, keys_among, product_pairs
from learners.target_statistics import (
    MISS,
    N_COLUMNS,
    N_FEATURES,
    RATE,
    RECENT_MISS,
    SHOWN,
    SLOW,
    WATCH_RATE,
    WATCHES,
    count,
    describe,
    first_rates,
)


def test_the_filter_is_a_kalman_step() -> None:
    random = np.random.default_rng(0)
    d = 7
    w = random.normal(0, 0.3, d).astype(np.float32)
    root = random.normal(0, 0.2, (d, d))
    p = (root @ root.T + 0.01 * np.eye(d)).astype(np.float32)
    x = random.normal(0, 1, d).astype(np.float32)
    effects, variances = np.array([0.2, -0.1], np.float32), np.array([0.05, 0.02], np.float32)
    ids, spreads = np.array([1, -1], dtype=np.int64), np.array([3.0, 2.0], np.float32)

    prediction = 1.0 / (1.0 + np.exp(-(w @ x + 3 * effects[1])))
    h = prediction * (1 - prediction)
    s = x @ p @ x + 9 * variances[1]
    gain = 1.0 / (s + 1.0 / h)
    w_after = w + p @ x * gain * (1 - prediction) / h
    p_after = p - gain * np.outer(p @ x, p @ x)
    effect_after = effects[1] + 3 * variances[1] * gain * (1 - prediction) / h
    variance_after = variances[1] - gain * (3 * variances[1]) ** 2

    belief = logistic_filter.covariance_of(np.ones(d, np.float32))
    belief.lower[:] = p
    room = np.zeros((2, d), np.float32)
    assert logistic_filter.learn(
        np.array([1.0]), x[None], ids, spreads, w[None], belief, effects[None], variances[None], *room
    )
    np.testing.assert_allclose(w, w_after, rtol=1e-4)
    assert belief.n_waiting[0] == 1
    other = random.normal(0, 1, d).astype(np.float32)
    assert logistic_filter.spread(belief, other, room[0]) == pytest.approx(other @ p_after @ other, rel=1e-4)
    logistic_filter.settle(belief)
    np.testing.assert_allclose(np.tril(belief.lower), np.tril(p_after), atol=1e-6)
    assert effects[1] == pytest.approx(effect_after, rel=1e-4)
    assert variances[1] == pytest.approx(variance_after, rel=1e-4)
    assert effects[0] == np.float32(0.2)


def test_the_filter_leaves_out_what_is_not_finite() -> None:
    w, belief = np.zeros((1, 2), np.float32), logistic_filter.covariance_of(np.ones(2, np.float32))
    x = np.array([[1.0, np.inf]], np.float32)
    nothing, none, room = np.zeros((1, 0), np.float32), np.zeros(0, np.int64), np.zeros((2, 2), np.float32)
    assert not logistic_filter.learn(np.ones(1), x, none, nothing[0], w, belief, nothing, nothing, *room)
    np.testing.assert_array_equal(w, 0)
    np.testing.assert_array_equal(belief.lower, np.eye(2))
    assert belief.n_waiting[0] == 0


def test_the_filter_finds_logistic_models_and_stays_positive_definite() -> None:
    random = np.random.default_rng(1)
    d = 14
    truth = random.normal(0, 0.6, (2, d))
    w, belief = np.zeros((2, d), np.float32), logistic_filter.covariance_of(np.ones(d, np.float32))
    nothing, none, room = np.zeros((2, 0), np.float32), np.zeros(0, np.int64), np.zeros((2, d), np.float32)
    for event in range(20_003):
        x = random.normal(0, 1, d).astype(np.float32)
        ys = (random.random(2) < 1 / (1 + np.exp(-truth @ x))).astype(np.float64)
        if event % 3 == 0:
            ys[1] = -1.0  # not known: teaches the other target alone
        logistic_filter.learn(ys, np.stack([x, x]), none, nothing[0], w, belief, nothing, nothing, *room)
    np.testing.assert_allclose(w, truth, atol=0.15)
    logistic_filter.settle(belief)
    whole = np.tril(belief.lower) + np.tril(belief.lower, -1).T
    assert np.linalg.eigvalsh(whole).min() > 0


def _machine(n_rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "bias": np.array([0.1]),
        "linear": random.normal(0, 0.2, n_rows).astype(np.float32),
        "linear_squares": np.ones(n_rows, np.float32),
        "factors": random.normal(0, 0.2, (n_rows, factorisation.DIM)).astype(np.float32),
        "factor_squares": np.ones(n_rows, np.float32),
    }


def test_the_factorisation_sums_pairs_and_steps_along_the_gradient() -> None:
    m = _machine(6)
    rows = np.array([4, -1, 2, 5], dtype=np.int64)
    total = np.zeros(factorisation.DIM, np.float32)
    present = [4, 2, 5]
    v = m["factors"].astype(np.float64)
    pairs = sum(v[a] @ v[b] for i, a in enumerate(present) for b in present[i + 1 :])
    z = 0.1 + m["linear"][present].sum() + pairs
    assert factorisation.logit_of(rows, 0.1, m["linear"], m["factors"], total) == pytest.approx(z, abs=1e-5)

    g = 1 / (1 + np.exp(-z)) - 1.0
    before = {name: array.copy() for name, array in m.items()}
    factorisation.step(
        1.0, rows, 1, m["bias"], m["linear"], m["linear_squares"], m["factors"], m["factor_squares"],
        0.05, 0.02, total,
    )  # fmt: skip
    slope = g + factorisation.L2 * before["linear"][2]
    assert m["linear"][2] == pytest.approx(
        before["linear"][2] - 0.05 * slope / np.sqrt(1 + slope**2), abs=1e-6
    )
    d = g * (v[4] + v[5]) + factorisation.L2 * v[2]
    np.testing.assert_allclose(m["factors"][2], v[2] - 0.02 * d / np.sqrt(1 + np.mean(d**2)), atol=1e-5)
    # Rows before `first` are the user's, which stay as they are.
    np.testing.assert_array_equal(m["factors"][4], before["factors"][4])


def test_rows_of_keys_are_claimed_once_never_shared_and_the_oldest_goes() -> None:
    owners, values = np.zeros(8, np.uint64), np.zeros((8, N_COLUMNS), np.float32)
    keys = np.array([[0, 1, -1]], dtype=np.int32)
    hashes, rows = np.zeros(1, np.uint64), np.zeros(1, np.int64)
    hash_keys(np.array([3, -1], np.int32), keys, hashes)
    assert hashes[0] == 0  # a part is unknown
    claimed: dict[int, int] = {}
    for value in range(40):
        hash_keys(np.array([3, value], np.int32), keys, hashes)
        find(owners, hashes, rows)
        assert rows[0] == -1
        claim(owners, values, hashes, rows)
        values[rows[0], :2] = value, 1.0
        claimed[int(hashes[0])] = int(rows[0])
        assert len(np.unique(owners[owners > 0])) == (owners > 0).sum()
    assert (values[:, 1] == 1.0).all()
    find(owners, hashes, rows)
    assert rows[0] == claimed[int(hashes[0])]
    assert values[:, 0].min() > 20  # of forty values the table of eight holds late ones


def test_statistics_fade_and_shrink() -> None:
    table, rows = np.zeros((1, N_COLUMNS), np.float32), np.array([0], dtype=np.int64)
    outcomes = np.array([1, 0, 0, 1], dtype=np.int8)
    count(table, rows, 10.0, 24.0, outcomes, np.array([0.4, -0.2]))
    count(table, rows, 34.0, 24.0, np.array([0, 0, 0, 0], np.int8), np.array([-0.1, -0.1]))
    _, _, rates = first_rates()
    inputs = np.full(N_FEATURES, np.nan, np.float32)
    describe(table, rows, np.array([5.0]), 58.0, 24.0, rates, inputs)
    recent = 0.25 + 0.5
    older, newer = 2.0 ** (-2 / SLOW), 2.0 ** (-1 / SLOW)
    assert inputs[SHOWN] == pytest.approx(np.log(3.0))
    assert inputs[WATCHES] == pytest.approx(np.log(2.0))
    click = (older + 5 * rates[0]) / (older + newer + 5)
    assert inputs[RATE] == pytest.approx(np.log(click / (1 - click)), abs=1e-5)
    watched = (0 + 5 * rates[4]) / (1 + 5)  # one watch, not long; the swipe says nothing of it
    assert inputs[WATCH_RATE] == pytest.approx(np.log(watched / (1 - watched)), abs=1e-5)
    assert inputs[MISS] == pytest.approx(0.3 / 7, abs=1e-6)
    assert inputs[RECENT_MISS] == pytest.approx((0.4 * 0.25 - 0.1 * 0.5) / (recent + 5), abs=1e-6)


def _histories() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users of two tastes: long on items of their own parity."""
    random = np.random.default_rng(3)
    users = random.integers(0, 400, 4_000).astype(np.int32)
    items = random.integers(0, 40, 4_000).astype(np.int32)
    return users, items, ((users + items) % 2 == 0).astype(np.int32)


def test_the_frozen_attention_is_the_trained_one() -> None:
    torch.manual_seed(0)
    model = HistoryAttention((np.arange(9, dtype=np.int32) % 3)[:, None])
    for p in model.parameters():
        torch.nn.init.normal_(p, 0.0, 0.4)
    tables = model.tables()
    seen = torch.tensor([[1, 5, 7, 2] + [-1] * (MAX_HISTORY - 4)])
    outcomes = torch.tensor([[1, 0, 1, 0] + [0] * (MAX_HISTORY - 4)])
    with torch.no_grad():
        logits = model.eval()(seen, outcomes, torch.Generator())
    work = np.zeros((4, 128), np.float32)
    history = np.array([2 * 1 + 1, 2 * 5, 2 * 7 + 1], dtype=np.int32)
    for n in range(4):
        item = int(seen[0, n])
        assert attention_logit(tables, item, history[:n], work) == pytest.approx(
            float(logits[0, n]), rel=1e-3, abs=1e-3
        )
    assert attention_logit(tables, 9, history, work) == 0.0


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As `reelflow evaluate` trains: two threads fight for batches as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_attention_learns_tastes_from_the_prior_history() -> None:
    users, items, long = _histories()
    losses: list[float] = []
    tables = train_attention(
        histories_of(users, items, long),
        (np.arange(40, dtype=np.int32) % 2)[:, None],
        epochs=50,
        on_progress=lambda step, steps, loss: losses.append(loss),
    )
    assert losses[-1] < 0.5 < losses[0]
    work = np.zeros((4, 128), np.float32)
    likes_even = np.array([2 * i + (i % 2 == 0) for i in range(20)], dtype=np.int32)
    assert (
        attention_logit(tables, 22, likes_even, work) > 1 > -1 > attention_logit(tables, 23, likes_even, work)
    )
    assert tables.items.shape == (40, DIM)


def _shown(n: int, seed: int = 0) -> Impressions:
    """Users with levels and items with levels; half of the rows tie with the one before."""
    random = np.random.default_rng(seed)
    users = np.repeat(random.integers(0, 50, n // 2), 2).astype(np.int32)
    items = random.integers(0, 80, n).astype(np.int32)
    z = (users % 5 - 2.0) * 0.7 + (items % 7 - 3.0) * 0.5
    click = random.random(n) < 1 / (1 + np.exp(-z))
    long = click & (random.random(n) < 0.6)
    outcomes = np.stack([click, long, long, np.zeros(n, bool)], 1).astype(np.int8)
    return Impressions(
        users=users,
        items=items,
        ts_ms=np.repeat(np.arange(n // 2) * 60_000 + 1_650_000_000_000, 2),
        categories=np.stack([users, items], 1),
        numbers=random.normal(size=(n, 1)).astype(np.float32),
        outcomes=outcomes,
    )


def _small() -> Probability:
    return Probability(
        ProbabilityOptions(
            categories=("user", "item"), numbers=("noise",), table_bits=12, factor_bits=10, max_users=64
        )
    )


def test_probabilities_are_calibrated_and_in_order() -> None:
    shown = _shown(12_000)
    p = sigmoid_of(_small().learn(shown))[6_000:]
    y = shown.outcomes[6_000:]
    for c in range(2):
        assert p[:, c].mean() == pytest.approx(y[:, c].mean(), abs=0.02)
        high = p[:, c] > np.quantile(p[:, c], 0.8)
        assert y[high, c].mean() == pytest.approx(p[high, c].mean(), abs=0.05)
    assert y[high, 0].mean() > 2 * y[p[:, 0] < np.quantile(p[:, 0], 0.2), 0].mean()


def test_learning_says_what_predicting_group_by_group_says() -> None:
    shown = _shown(400)
    whole, parts = _small(), _small()
    logits = whole.learn(shown)
    ends = group_ends(shown.users, shown.ts_ms)
    start = 0
    while start < len(shown):
        group = rows_of(shown, start, int(ends[start]))
        before = parts.digest()
        np.testing.assert_array_equal(parts.logits(group), logits[start : ends[start]])
        assert parts.digest() == before
        parts.learn(group)
        start = int(ends[start])
    assert whole.digest() == parts.digest()


def test_prior_watches_teach_no_click_rate_and_are_remembered() -> None:
    shown = _shown(600)
    shown.outcomes[:, [0, 2, 3]] = -1
    learner = _small()
    rates = learner.snapshot()["know.rates"].copy()
    learner.learn(shown)
    after = learner.snapshot()
    np.testing.assert_array_equal(after["know.rates"][:4], rates[:4])
    assert after["know.rates"][4] != rates[4]
    np.testing.assert_array_equal(after["know.covariance"], _small().snapshot()["know.covariance"])
    assert after["memory.prior_counts"].sum() == len(shown)


def test_what_the_user_did_lately_is_no_input_of_the_ranking_head() -> None:
    learner = _small()
    learner.learn(_shown(2_000))
    shown = rows_of(_shown(40, seed=5), 0, 2)
    before = learner.logits(shown)
    told = rows_of(shown, 0, 1)
    told.outcomes[:] = np.array([1, 1, 1, 1], np.int8)
    twin = _small()
    twin.restore(learner.snapshot())
    other = Impressions(
        **{name: getattr(told, name).copy() for name in Impressions.__struct_fields__ if name != "items"},
        items=np.array([79], np.int32),
    )
    other.categories[0, 1] = 79
    for _ in range(5):
        twin.learn(other)
    after = twin.logits(shown)
    assert abs(after[0, 0] - before[0, 0]) > 3 * abs(after[0, 2] - before[0, 2])


def test_products_are_of_what_is_there() -> None:
    keys = list(keys_among(CATEGORIES))
    memory = len(keys) * N_FEATURES
    pairs = product_pairs(keys, memory)
    assert len(pairs) == 21  # of six statistics and of whether the user was met before
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert pairs.max() == memory + KNOWN
    few = product_pairs([("item",)], N_FEATURES)
    np.testing.assert_array_equal(few, [[MISS, N_FEATURES + KNOWN]])


def test_the_ranking_head_orders_within_a_user_where_users_who_take_all_are_shown_the_worse() -> None:
    """Item 0 is better than item 1 for all, and item 1 is clicked more often: by whom it is shown to."""
    random = np.random.default_rng(4)
    n = 8_000
    users = random.integers(0, 50, n).astype(np.int32)
    generous = users % 2
    items = (random.random(n) < np.where(generous == 1, 0.8, 0.2)).astype(np.int32)
    click = random.random(n) < 1 / (1 + np.exp(-(4.0 * generous - 2.0 + 0.5 - 1.0 * items)))
    assert click[items == 1].mean() > click[items == 0].mean() + 0.2
    shown = Impressions(
        users=users,
        items=items,
        ts_ms=np.arange(n) * 60_000 + 1_650_000_000_000,
        categories=np.stack([users, items], 1),
        numbers=np.zeros((n, 1), np.float32),
        outcomes=np.stack([click, click, click, np.zeros(n, bool)], 1).astype(np.int8),
    )
    learner = _small()
    learner.learn(shown)
    both = rows_of(shown, 0, 2)
    both.users[:] = both.categories[:, 0] = 7
    both.items[:] = both.categories[:, 1] = np.array([0, 1])
    both.ts_ms[:] = shown.ts_ms[-1] + 60_000
    ranking = learner.logits(both, tied=False)[:, 2:]
    assert (ranking[0] > ranking[1]).all()
