"""Which of several ways to make lists is used how often: Thompson sampling over rewards that are forgotten.

Each arm has a Beta distribution of its mean reward, over a uniform prior. A batch of M rewards r in
[0, 1], n of them of this arm, makes of it::

    a - 1 = g^M (a - 1) + sum r        b - 1 = g^M (b - 1) + sum (1 - r)        g = 1 - 1 / memory

Every reward makes all arms older, not only the one that earned it: what has not been tried for long
becomes uncertain again, and is tried. The share of an arm is how often its draw is the greatest of
`PULLS` draws of all K, but never less than a floor::

    share = floor + (1 - K floor) wins / PULLS

For rewards that are not 0 or 1 the distribution is wider than need be, so shares move later, not wrongly.

References
----------
Chapelle and Li, An empirical evaluation of Thompson sampling, NIPS 2011; Raj and Kalyani, Taming
non-stationary bandits: a Bayesian approach, 2017 (discounted Thompson sampling); river.bandit.

Importing this module takes seconds: river's package imports scipy. Import it where there is a choice.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from river.bandit import ThompsonSampling
from river.proba import Beta

from schemas.compiled import kernel
from schemas.runs import Float32, Float64, Int8, Int64, UInt64

from .negatives import mix64

PULLS: Final = 128
REFRESHES: Final = 32
"""Times that shares are drawn anew while as many rewards come as are remembered."""

LEAST_REFRESH: Final = 32

_OTHER: Final = np.uint64(0x5851F42D4C957F2D)


class Evidence(NamedTuple):
    """What a batch says of an arm: sum of its rewards, their number, and the weight of what was before."""

    total: float
    n: int
    kept: float


class FadingBeta(Beta):
    """Distribution of a mean reward that is made of the newest rewards; a, b as in the module's docstring."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1, 1, seed)

    def update(self, x: Evidence) -> None:
        """Take in what a batch says."""
        self.alpha = 1.0 + x.kept * (self.alpha - 1.0) + x.total
        self.beta = 1.0 + x.kept * (self.beta - 1.0) + (x.n - x.total)


class Bandit:
    """Shares of K arms. Not part of any state; the same rewards in the same batches give the same shares.

    Cost: 3 microseconds a reward in batches of 64 (4 arms), 0.02 a list to choose.

    Parameters
    ----------
    n_arms : int
        K, at least 2.
    memory : int
        Rewards of all arms together after which what was learned before weighs 1 / e.
    floor : float
        Least share of an arm, at most 1 / K.
    seed : int

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    def __init__(self, n_arms: int, *, memory: int, floor: float, seed: int = 0) -> None:
        if n_arms < 2 or memory < 1 or not 0 <= floor * n_arms <= 1:
            raise ValueError("there must be two arms, a memory, and room for their floors")
        self._memory, self._floor = memory, floor
        self._arms = list(range(n_arms))
        self._policy = ThompsonSampling(reward_obj=FadingBeta(), seed=seed)
        self._refresh = max(LEAST_REFRESH, memory // REFRESHES)
        self._waiting = 0
        self._totals: Float64 = np.zeros(n_arms)
        self._counts: Float64 = np.zeros(n_arms)
        self.shares: Float64 = np.full(n_arms, 1.0 / n_arms)
        """(K,) of the lists made from here on."""

    def take(self, arms: Int8, rewards: Float32) -> None:
        """Take in rewards (M,) and the arms (M,) that earned them; those of -1 are nobody's."""
        rewards, arms = rewards[arms >= 0], arms[arms >= 0]
        m = len(arms)
        if not m:
            return
        counts = np.bincount(arms, minlength=len(self._arms))
        totals = np.bincount(arms, weights=rewards.astype(np.float64), minlength=len(self._arms))
        kept = (1.0 - 1.0 / self._memory) ** m
        self._totals = kept * self._totals + totals
        self._counts = kept * self._counts + counts
        for arm in self._arms:
            self._policy.update(arm, Evidence(float(totals[arm]), int(counts[arm]), kept))
        self._waiting += m
        if self._waiting >= self._refresh:
            self._waiting = 0
            wins = np.bincount(
                [self._policy.pull(self._arms) for _ in range(PULLS)], minlength=len(self._arms)
            )
            self.shares = self._floor + (1.0 - len(self._arms) * self._floor) * wins / PULLS

    def means(self) -> list[float | None]:
        """Mean reward of each arm as far as it is remembered; None where it has had none."""
        return [
            total / n if n > 1e-9 else None
            for total, n in zip(self._totals.tolist(), self._counts.tolist(), strict=True)
        ]

    def choose(self, keys: Int64) -> Int8:
        """Arms of lists (B,) by their shares: the same key gets the same arm while shares are the same."""
        bounds = np.cumsum(self.shares)[:-1]
        found: Int8 = np.searchsorted(bounds, uniform(keys), side="right").astype(np.int8)
        return found


def uniform(keys: Int64) -> Float64:
    """Numbers in [0, 1) from keys (B,), other ones than those by which rooms and new items are drawn."""
    found: Float64 = np.empty(len(keys), dtype=np.float64)
    _uniform(keys.astype(np.uint64), found)
    return found


@kernel
def _uniform(keys: UInt64, found: Float64) -> None:
    for i in range(len(keys)):
        bits = mix64(mix64(keys[i]) ^ _OTHER) >> np.uint64(11)
        found[i] = np.float64(bits) * 2.0**-53
