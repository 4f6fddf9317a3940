"""Shares of arms follow their rewards, are never below the floor, and are the same for the same rewards."""

from __future__ import annotations

import numpy as np
import pytest

from learners.bandit import Bandit, uniform

FLOOR = 0.05


class Platform:
    """Lists are made by shares of the bandit, and their views are worth 0, 1 or between."""

    def __init__(self, means: list[float], memory: int = 4_000, seed: int = 0) -> None:
        self.bandit = Bandit(len(means), memory=memory, floor=FLOOR, seed=seed)
        self.means = np.array(means)
        self.n = 0

    def serve(self, n: int, at_once: int = 100) -> np.ndarray:
        """`n` views; how often each arm made their list."""
        counts = np.zeros(len(self.means), dtype=np.int64)
        for _ in range(n // at_once):
            keys = np.arange(self.n, self.n + at_once)
            self.n += at_once
            arms = self.bandit.choose(keys)
            whole = uniform(keys + (1 << 50)) < self.means[arms]
            rewards = np.where(whole, 0.7 + 0.3 * uniform(keys + (1 << 51)), 0.0).astype(np.float32)
            self.bandit.take(arms, rewards)
            counts += np.bincount(arms, minlength=len(counts))
        return counts


def test_the_better_arm_gets_most_lists_until_it_is_the_worse() -> None:
    platform = Platform([0.4, 0.5, 0.4])
    np.testing.assert_allclose(platform.bandit.shares, 1 / 3)
    platform.serve(8_000)
    counts = platform.serve(4_000)
    assert platform.bandit.shares[1] > 0.8
    assert counts[1] > 0.75 * counts.sum()
    platform.means = np.array([0.4, 0.4, 0.55])  # the taste turns
    platform.serve(12_000)
    counts = platform.serve(4_000)
    assert platform.bandit.shares[2] > 0.8
    assert platform.bandit.shares[1] < 0.2
    assert counts[2] > 0.75 * counts.sum()
    mean = platform.bandit.means()[2]
    assert mean == pytest.approx(0.55 * 0.85, abs=0.05)


def test_every_arm_goes_on_being_measured() -> None:
    platform = Platform([0.1, 0.9])
    platform.serve(4_000)
    counts = platform.serve(10_000)
    assert platform.bandit.shares.min() >= FLOOR - 1e-12
    assert platform.bandit.shares.sum() == pytest.approx(1.0)
    assert 0.5 * FLOOR < counts[0] / counts.sum() < 2 * FLOOR


def test_equal_arms_share() -> None:
    """Neither is starved for long: mean shares over time are near a half."""
    platform, shares = Platform([0.5, 0.5], seed=3), []
    for _ in range(60):
        platform.serve(1_000)
        shares.append(platform.bandit.shares[0])
    assert 0.25 < np.mean(shares) < 0.75


def test_the_same_rewards_give_the_same_shares_and_lists() -> None:
    first, second = Platform([0.3, 0.4, 0.5], seed=7), Platform([0.3, 0.4, 0.5], seed=7)
    for platform in (first, second):
        platform.serve(6_000)
    np.testing.assert_array_equal(first.bandit.shares, second.bandit.shares)
    keys = np.arange(1_000)
    chosen = first.bandit.choose(keys)
    np.testing.assert_array_equal(chosen, second.bandit.choose(keys))
    np.testing.assert_array_equal(chosen[500:], first.bandit.choose(keys[500:]))  # whoever is asked with whom


def test_what_was_learned_fades_with_every_reward() -> None:
    bandit = Bandit(2, memory=1_000, floor=0.0)
    bandit.take(np.zeros(500, np.int8), np.ones(500, np.float32))
    bandit.take(np.ones(10_000, np.int8), np.full(10_000, 0.5, np.float32))
    assert bandit.means()[0] == pytest.approx(1.0)  # what is left of it, and that is little:
    bandit.take(np.zeros(1, np.int8), np.zeros(1, np.float32))
    first = bandit.means()[0]
    assert first is not None
    assert first < 0.05


def test_rewards_of_nobody_count_for_nobody() -> None:
    bandit = Bandit(2, memory=1_000, floor=0.05)
    bandit.take(np.full(5_000, -1, np.int8), np.ones(5_000, np.float32))
    assert bandit.means() == [None, None]
    np.testing.assert_array_equal(bandit.shares, [0.5, 0.5])


@pytest.mark.parametrize(
    ("n_arms", "memory", "floor"), [(1, 100, 0.0), (2, 0, 0.0), (3, 100, 0.4), (2, 100, -0.1)]
)
def test_parameters_out_of_range(n_arms: int, memory: int, floor: float) -> None:
    with pytest.raises(ValueError, match="two arms"):
        Bandit(n_arms, memory=memory, floor=floor)
