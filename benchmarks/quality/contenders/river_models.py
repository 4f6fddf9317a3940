"""River's recommenders, on positives and sampled zeros."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Float32

from .scoring import ByScore, Room


class River(ByScore):
    """`river.reco.BiasedMF` or `FunkMF`: 1 for a positive, 0 for `negatives` items drawn uniformly.

    The models score one pair a call and keep parameters in dictionaries; a copy of what each call
    changed is kept in arrays, so that ranking all items is one product. Scores are the models' own:
    a test compares them with `predict_one`. An item or user without parameters has zeros here (the
    models would draw them on being asked).
    """

    def __init__(
        self, room: Room, seed: int = 0, *,
        kind: Literal["biased_mf", "funk_mf"] = "biased_mf",
        dim: int = 32, rate: float = 0.05, negatives: int = 4,
    ) -> None:  # fmt: skip
        from river import optim, reco

        self.name = f"river_{kind}"
        self._rng = np.random.default_rng(seed)
        self._negatives = negatives
        self._n_items = 0
        if kind == "biased_mf":
            self._model: Any = reco.BiasedMF(
                n_factors=dim, bias_optimizer=optim.SGD(rate), latent_optimizer=optim.SGD(rate),
                l2_bias=0.002, l2_latent=0.002, seed=seed,
            )  # fmt: skip
        else:
            self._model = reco.FunkMF(n_factors=dim, optimizer=optim.SGD(rate), l2=0.002, seed=seed)
        self._biased = kind == "biased_mf"
        self._users: Float32 = np.zeros((room.n_users, dim + 1), dtype=np.float32)
        self._items: Float32 = np.zeros((room.n_items, dim + 1), dtype=np.float32)
        self._users[:, dim] = 1.0

    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        out: Float32 = self._users[asked.contexts.users] @ self._items[: asked.n_items].T
        return out

    def predict_one(self, user: int, item: int) -> float:
        """What the river model itself says; draws parameters for who is new."""
        return float(self._model.predict_one(user, item))

    def offset(self, user: int) -> float:
        """What all of a user's scores have in common, and `scores` leaves out."""
        return float(self._model.global_mean.get() + self._model.u_biases[user]) if self._biased else 0.0

    def learn(self, batch: Interactions) -> None:
        """Learn the positives of a micro-batch."""
        self._n_items = max(self._n_items, int(batch.items.max()) + 1)
        positive = np.flatnonzero(batch.weight > 0)
        drawn = self._rng.integers(0, self._n_items, (len(positive), self._negatives)).tolist()
        for user, item, others in zip(
            batch.users[positive].tolist(), batch.items[positive].tolist(), drawn, strict=True
        ):
            self._model.learn_one(user, item, 1.0)
            for other in others:
                if other != item:
                    self._model.learn_one(user, other, 0.0)
            self._copy(self._users, user, self._model.u_latents)
            for changed in (item, *others):
                self._copy(self._items, changed, self._model.i_latents)
                if self._biased:
                    self._items[changed, -1] = self._model.i_biases[changed]

    def _copy(self, into: Float32, slot: int, latents: Any) -> None:
        into[slot, :-1] = latents[slot]
