"""Probability of a click, of a long view and of a like for an impression, learned online in one pass.

For each of the targets two scores are learned from the same inputs::

    probability    p = sigmoid(c(w.x + sum_e b_e)): `learners.logistic_filter`, `learners.calibration_curve`
    ranking        z = u.x' + sum_e b'_e, without any input that follows the user's own level

x holds, scaled to mean 0 and spread 1 by running moments and cut at +-4,

* nine statistics for each of the keys (`learners.target_statistics`),
* the numbers that came with the impression, and what is remembered of the user
  (`learners.impression_memory`),
* the last hidden layer of attention over the user's last fifty watches, and of another one over those
  of the prior history alone (`learners.history_attention`): the filter is the networks' last layer,
  learned on,

the products of a few of them (`learners.probability_inputs.TELLING`), a constant, and unscaled, with
prior weights of 1/3, three logits: that of a factorisation machine (`learners.factorisation`) and the
two of the attention.

An impression whose click is unknown and whose long view is known is prior history: a watch from a time
when only watches were written down. It teaches the statistics of watches, the factorisation and the
memory; the filters learn from impressions only.

The ranking head is learned with an effect b'_user of a wide prior, and scores without it. What a user
lets pass or takes in general is then not put down to what was shown, and the rest of the head is what
tells one impression of a user from another: nearly conditional logistic regression by user.

References
----------
Graepel et al., Web-scale Bayesian click-through rate prediction, ICML 2010. McMahan et al., Ad click
prediction: a view from the trenches, KDD 2013. Rendle, Factorization machines, ICDM 2010.
Chamberlain, Analysis of covariance with qualitative data, Review of Economic Studies 1980 (conditional
logistic regression).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays, TouchedKeys
from schemas.runs import Float32, Int32

from .calibration_curve import FIRST_VARIANCE, N_KNOTS
from .factorisation import DIM, FIRST_SQUARES
from .history_attention_kernels import MAX_HISTORY, N_HIDDEN, Attentions, AttentionTables
from .impression_memory import Memory, no_memory
from .impressions import Impressions, group_ends
from .logistic_filter import covariance_of, sigmoid_of
from .probability_inputs import (
    CATEGORIES,
    EFFECTS,
    FACTORS,
    HEAD_EFFECTS,
    HEAD_LEVEL,
    OF_THE_USER,
    Key,
    head_statistics,
    keys_among,
    product_pairs,
)
from .probability_kernels import (
    MAX_TIED,
    N_MEMORY,
    N_OPINIONS,
    Knowledge,
    Plan,
    Scratch,
    Seen,
    play,
    replay,
)
from .state import digest_arrays, taken
from .target_statistics import N_COLUMNS, N_FEATURES, N_TARGETS, RECENT_MISS, first_rates


class ProbabilityOptions(Struct, frozen=True, kw_only=True):
    """Choices of `Probability`."""

    categories: tuple[str, ...] = CATEGORIES
    numbers: tuple[str, ...] = ()
    user_numbers: frozenset[str] = frozenset()
    """Those of `numbers` that say something of the user alone: no use to the ranking head."""
    table_bits: int = 21
    """Rows of statistics: 2^bits of 72 bytes."""
    factor_bits: int = 18
    """Rows of the factorisation and of effects: 2^bits, 420 bytes for both targets."""
    max_users: int = 1 << 16
    hidden: bool = True
    """Whether the attention's hidden layers are inputs: without attention no use, and half of the cost."""
    half_life_h: float = 27.0
    prior_variance: float = 0.003
    recent_variance: float = 0.001
    """Of what was missed lately."""
    product_variance: float = 0.001
    hidden_variance: float = 0.004
    opinion_variance: float = 0.1
    prior_rates: tuple[float, float] = (0.02, 0.02)
    rates: tuple[float, float] = (0.05, 0.02)
    seed: int = 0


class Probability:
    """The learner; see the module's docstring.

    Notes
    -----
    `learn` equals folding its rows one group of tied rows at a time, bit by bit.
    """

    def __init__(
        self, options: ProbabilityOptions | None = None, attention: Attentions | None = None
    ) -> None:
        self.options = options = options or ProbabilityOptions()
        column = {name: at for at, name in enumerate(options.categories)}
        keys = keys_among(options.categories)
        padded = np.full((len(keys), 3), -1, dtype=np.int32)
        for at, key in enumerate(keys):
            padded[at, : len(key)] = [column[name] for name in key]
        self._n_hidden = N_HIDDEN if options.hidden else 0
        n_scaled = len(keys) * N_FEATURES + len(options.numbers) + N_MEMORY + 2 * self._n_hidden
        products = product_pairs(list(keys), len(keys) * N_FEATURES + len(options.numbers))
        self._n_inputs = n_scaled + len(products) + 1 + N_OPINIONS
        effects = {name: variance for name, variance in EFFECTS.items() if name in column}
        head_effects = {key: variance for key, variance in HEAD_EFFECTS.items() if key in keys}
        factors = [name for name in FACTORS if name in column]
        self._plan = Plan(
            keys=padded,
            shrinkage=np.array(list(keys.values())),
            effect_columns=np.array([column[name] for name in effects], dtype=np.int32),
            effect_spreads=np.sqrt(list(effects.values()), dtype=np.float32),
            head_effects=np.array([list(keys).index(key) for key in head_effects], dtype=np.int32),
            head_spreads=np.sqrt(list(head_effects.values()), dtype=np.float32),
            n_head_levels=int(HEAD_LEVEL in head_effects),
            products=products,
            factor_columns=np.array([column[name] for name in factors], dtype=np.int32),
            n_user_columns=sum(name in OF_THE_USER for name in factors),
            n_hidden=self._n_hidden,
            head_inputs=self._head_inputs(list(keys), n_scaled, len(products)),
            half_life_h=options.half_life_h,
            prior_rates=options.prior_rates,
            rates=options.rates,
        )
        self._attention = attention or no_attention()
        self._memory = no_memory(options.max_users)
        self._know = self._nothing(n_scaled)
        self._scratch = self._room(n_scaled)
        self._touched_items: list[Int32] = []
        self._touched_users: list[Int32] = []

    def _head_inputs(self, keys: Sequence[Key], n_scaled: int, n_products: int) -> Int32:
        chosen = head_statistics(keys)
        first = len(keys) * N_FEATURES
        chosen += [
            first + at
            for at, name in enumerate(self.options.numbers)
            if name not in self.options.user_numbers
        ]
        chosen += range(n_scaled - self._n_hidden, n_scaled)  # hidden units of the prior history
        constant = n_scaled + n_products
        return np.array([*chosen, constant, constant + 1, constant + 3], dtype=np.int32)

    def _nothing(self, n_scaled: int) -> Knowledge:
        options, d, t = self.options, self._n_inputs, N_TARGETS
        n_rows, n_pairs = 1 << options.table_bits, 1 << options.factor_bits
        sums, counts, rates = first_rates()
        variances = np.full(d, options.prior_variance, dtype=np.float32)
        weights = np.zeros((t, d), dtype=np.float32)
        constant = d - 1 - N_OPINIONS
        weights[:, constant + 1 :] = 1.0 / N_OPINIONS
        weights[:, constant] = np.log(rates[:t] / (1.0 - rates[:t])) * 0.3
        of_keys = variances[: len(self._plan.keys) * N_FEATURES].reshape(-1, N_FEATURES)
        of_keys[:, RECENT_MISS : RECENT_MISS + t] = options.recent_variance
        variances[n_scaled - 2 * self._n_hidden : n_scaled] = options.hidden_variance
        variances[n_scaled:constant] = options.product_variance
        variances[constant:] = options.opinion_variance
        head = self._plan.head_inputs
        belief, head_belief = covariance_of(variances), covariance_of(variances[head])
        random = np.random.default_rng(options.seed)
        factors = random.normal(0.0, 0.02, (n_pairs, DIM)).astype(np.float32)
        return Knowledge(
            owners=np.zeros(n_rows, dtype=np.uint64),
            table=np.zeros((n_rows, N_COLUMNS), dtype=np.float32),
            rate_sums=sums,
            rate_counts=counts,
            rates=rates,
            means=np.zeros(n_scaled),
            squares=np.ones(n_scaled),
            n_seen=np.ones(1),
            weights=weights,
            covariance=belief.lower,
            waiting=belief.waiting,
            gains=belief.gains,
            n_waiting=belief.n_waiting,
            effects=np.zeros((t, n_pairs), dtype=np.float32),
            variances=np.ones((t, n_pairs), dtype=np.float32),
            curves=np.zeros((t, N_KNOTS)),
            curve_variances=np.full((t, N_KNOTS), FIRST_VARIANCE),
            head_weights=weights[:, head].copy(),
            head_covariance=head_belief.lower,
            head_waiting=head_belief.waiting,
            head_gains=head_belief.gains,
            head_n_waiting=head_belief.n_waiting,
            head_effects=np.zeros((t, n_pairs), dtype=np.float32),
            head_variances=np.ones((t, n_pairs), dtype=np.float32),
            biases=np.full((t, 1), -0.6),
            linear=np.zeros((t, n_pairs), dtype=np.float32),
            linear_squares=np.full((t, n_pairs), FIRST_SQUARES, dtype=np.float32),
            factors=np.stack([factors] * t),
            factor_squares=np.full((t, n_pairs), FIRST_SQUARES, dtype=np.float32),
        )

    def _room(self, n_scaled: int) -> Scratch:
        plan, d = self._plan, self._n_inputs
        n_keys = len(plan.keys)
        return Scratch(
            hashes=np.zeros(n_keys, dtype=np.uint64),
            rows=np.zeros(n_keys, dtype=np.int64),
            raw=np.zeros((MAX_TIED, n_scaled), dtype=np.float32),
            inputs=np.zeros((MAX_TIED, d), dtype=np.float32),
            opinions=np.zeros((MAX_TIED, N_TARGETS, N_OPINIONS), dtype=np.float32),
            effect_rows=np.zeros((MAX_TIED, len(plan.effect_columns)), dtype=np.int64),
            head_rows=np.zeros((MAX_TIED, len(plan.head_effects)), dtype=np.int64),
            factor_rows=np.zeros((MAX_TIED, len(plan.factor_columns)), dtype=np.int64),
            total=np.zeros(DIM, dtype=np.float32),
            history=np.zeros(MAX_HISTORY, dtype=np.int32),
            work=np.zeros((4, 128), dtype=np.float32),
            px=np.zeros(d, dtype=np.float32),
            mean=np.zeros(d, dtype=np.float32),
            own=np.zeros((N_TARGETS, d), dtype=np.float32),
            head=np.zeros((N_TARGETS, len(plan.head_inputs)), dtype=np.float32),
            ys=np.zeros(N_TARGETS),
            missed=np.zeros(N_TARGETS),
            uncalibrated=np.zeros((MAX_TIED, N_TARGETS)),
        )

    @property
    def name(self) -> str:
        """Stable name."""
        return "probability"

    def _play(
        self, batch: Impressions, *, learning: bool, tied: bool = True, seen: Seen | None = None
    ) -> Float32:
        alone = np.arange(1, len(batch) + 1)
        ends = group_ends(batch.users, batch.ts_ms) if tied else alone
        logits = np.zeros((len(batch), 2 * N_TARGETS), dtype=np.float32)
        play(
            batch.users,
            batch.items,
            batch.ts_ms,
            batch.categories,
            batch.numbers,
            batch.outcomes,
            ends,
            learning,
            self._know,
            self._memory,
            self._attention,
            self._plan,
            self._scratch,
            logits,
            self.seen(0) if seen is None else seen,
        )
        return logits

    def seen(self, n: int) -> Seen:
        """Room for what `n` predictions are made of; see `learn`."""
        n_scaled = len(self._know.means)
        return Seen(
            np.zeros((n, n_scaled), dtype=np.float32), np.zeros((n, N_TARGETS, N_OPINIONS), dtype=np.float32)
        )

    def logits(self, batch: Impressions, *, tied: bool = True) -> Float32:
        """Logits (N, 2 T): of each target's probability, then the ranking scores; state unchanged.

        `tied` says whether rows of one user at one time were shown together, or are alternatives.
        """
        return self._play(batch, learning=False, tied=tied)

    def probabilities(self, batch: Impressions, *, tied: bool = True) -> Float32:
        """Probabilities (N, T) of click and long view; state unchanged."""
        return sigmoid_of(self.logits(batch, tied=tied)[:, :N_TARGETS])

    def learn(self, batch: Impressions, seen: Seen | None = None) -> Float32:
        """Learn a batch in row order; the logits (N, 2 T) that tied rows had before they were learned.

        What those were made of is left in `seen`, where it is given.
        """
        if not len(batch):
            return np.zeros((0, 2 * N_TARGETS), dtype=np.float32)
        self._touched_items.append(np.unique(batch.items))
        self._touched_users.append(np.unique(batch.users))
        return self._play(batch, learning=True, seen=seen)

    def replay(self, batch: Impressions) -> None:
        """Teach the factorisation a prior history that was learned already once more."""
        replay(batch.outcomes, batch.categories, self._know, self._plan, self._scratch)

    def touched(self) -> TouchedKeys:
        """Items and users that were learned since the last call."""
        nothing = np.zeros(0, dtype=np.int32)
        items = np.unique(np.concatenate([*self._touched_items, nothing]))
        users = np.unique(np.concatenate([*self._touched_users, nothing]))
        self._touched_items, self._touched_users = [], []
        dense = ("probability",) if len(items) else ()
        return TouchedKeys(items=items, users=users, dense=dense)

    def _arrays(self) -> Arrays:
        parts: dict[str, Knowledge | Memory | AttentionTables] = {
            "know": self._know,
            "memory": self._memory,
            "attention": self._attention.live,
            "prior_attention": self._attention.prior,
        }
        return {
            f"{name}.{field}": getattr(part, field)
            for name, part in parts.items()
            for field in type(part)._fields
        }

    def snapshot(self) -> Arrays:
        """Copy of everything learned; the attention's tables with it."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, or of another plan.
        """
        found = {}
        for name, array in Probability._arrays(self).items():
            grows = name.startswith(("attention.", "prior_attention.", "memory."))
            found[name] = taken(arrays, name, array, rows=None if grows else len(array))
        if len({len(array) for name, array in found.items() if name.startswith("memory.")}) > 1:
            raise StateError("the memory's arrays are of different numbers of users")
        if not np.isfinite(found["know.weights"]).all():
            raise StateError("the weights are not finite")

        def part(name: str) -> dict[str, NDArray[np.generic]]:
            return {key.split(".")[1]: array for key, array in found.items() if key.startswith(f"{name}.")}

        self._know, self._memory = Knowledge(**part("know")), Memory(**part("memory"))  # type: ignore[arg-type]
        self._attention = Attentions(
            AttentionTables(**part("attention")),  # type: ignore[arg-type]
            AttentionTables(**part("prior_attention")),  # type: ignore[arg-type]
        )

    def digest(self) -> str:
        """Hash of the state."""
        return digest_arrays(self._arrays())


def no_attention() -> Attentions:
    """Attention over no items: its logit is 0 for all."""
    return Attentions(_no_tables(), _no_tables())


def _no_tables() -> AttentionTables:
    none = np.zeros((0, 4), dtype=np.float32)
    one = np.zeros(1, dtype=np.float32)
    return AttentionTables(
        items=none,
        queries=none,
        keys=none,
        values=none,
        biases=none[:, 0].copy(),
        ages=np.zeros((1, MAX_HISTORY + 1), dtype=np.float32),
        nothing=np.zeros((2, 4), dtype=np.float32),
        first=np.zeros((1, 14), dtype=np.float32),
        first_bias=one,
        second=np.zeros((N_HIDDEN, 1), dtype=np.float32),
        second_bias=np.zeros(N_HIDDEN, dtype=np.float32),
        last=np.zeros(N_HIDDEN, dtype=np.float32),
        last_bias=one,
    )
