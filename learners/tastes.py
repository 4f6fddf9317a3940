"""What viewers make of what they are shown: the odds that an item is taken up, given that it is shown.

What is watched next depends on what was shown; where lists are what is shown, next-item learners learn
their own lists. So this learner asks about *views* only, an impression or an act without one before
it, and is told of those passed over as well. A view is over with a watch, leave, skip or dislike of
its item, or with the user's next impression. Of each view it is asked

- whether the item was taken up: the omega of one of its acts is above 0;
- if so, whether it was watched to its end (`Interactions.finished`; left out where nobody knows);
- if so, whether it was liked: an act of omega above 0 that is no watch (like, share, follow, gift, ...).

A like without a view, one that comes after, answers the last alone. Each is a logistic observation of
one and the same taste, with level a and slope c of its own by surface s (continuation ratios)::

    logit p_j = a_sj + c_sj m        m = a_u + b_i + sum_k (g_k + v_uk) / sqrt(n)

over the n keys of item i (tags, creator, ...): a level of the user, an effect of the item, of each key
for everybody, and of each key for this user. c of the first is 1, the others are learned: how much an end or
a like says of a taste. All are independent Gaussians (assumed density filtering) around 0, slopes around
1, likes' levels around -3; with y the answer, and w_e the derivative of the logit by e
(1 for a, m for c, c or c / sqrt(n) for the others)::

    h = p (1 - p)        den = 1 / (sum w_e^2 var_e + 1 / h)
    mean_e += w_e var_e den (y - p) / h        var_e -= (w_e var_e)^2 den

Before a view the variances of its effects are divided by .997 (.98 for the user's own, .999 for
slopes), never beyond the prior: old views count for less, and old certainty does not stand against a new
taste. `predict` says m without the user's level, at the means: 0 for what nothing is known of. While
`curious` .3 standard deviations of it are added (upper confidence): what is not known well is tried sooner.

A user holds 32 keys; a new one beyond takes the place of the one of which least is known.

Where impressions of a whole page arrive before any act, each is closed as passed over by the next,
and what is then chosen counts as a view of its own: rewards are too low by the same for all items.

References
----------
Graepel et al., Web-scale Bayesian click-through rate prediction for sponsored search advertising in
Microsoft's Bing search engine, ICML 2010. Chapelle and Li, An empirical evaluation of Thompson sampling,
NIPS 2011 (independent Gaussian weights, online). Tutz, Sequential models in categorical regression, CSDA
1991 (continuation ratios). Li et al., A contextual-bandit approach to personalized news article
recommendation, WWW 2010 (upper confidence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.records import SURFACES
from schemas.runs import Float32, Int8, Int32

from .growth import grown
from .state import check_finite, digest_arrays, taken
from .taste_kernels import (
    CURIOSITY,
    FEW_LIKE,
    FIRST_AUTHOR,
    KEYS,
    LIKED,
    MEAN,
    N_HELD,
    N_KEYS,
    N_PARTS,
    POOL,
    VARIANCE,
    VARIANCE_AUTHOR,
    VARIANCE_ITEM,
    VARIANCE_KEY,
    VARIANCE_LEVEL,
    VARIANCE_OWN,
    VARIANCE_SLOPE,
    Tables,
    Views,
    learn_events,
)
from .taste_lists import fill_all, prior_by_key, put_in_pools, take_from_pools

Bools = NDArray[np.bool_]


class Tastes:
    """The learner; see the module's docstring.

    Parameters
    ----------
    max_items : int
        Items at most; higher slots are not learned.

    Notes
    -----
    learn_many equals folding learn_one, bit by bit. Memory: 29 bytes an item, 401 a user, 8.5 MB of pools.
    Cost: 0.2 microseconds an event; a list up to 25 for candidates and 0.02 a candidate.
    """

    def __init__(self, *, max_items: int = 2_000_000) -> None:
        self._max_items = max_items
        self._n_items = self._n_users = 0
        self._tables = no_tastes()._replace(
            keys=_prior(KEYS, VARIANCE_KEY), pools=np.full((KEYS, POOL), -1, dtype=np.int32)
        )
        self._views = Views(
            items=np.full(0, -1, dtype=np.int32),
            surfaces=np.full(0, -1, dtype=np.int8),
            said=np.full((0, N_PARTS), -1, dtype=np.int8),
        )
        self._dirty_items: Bools = np.zeros(0, dtype=np.bool_)
        self._dirty_users: Bools = np.zeros(0, dtype=np.bool_)
        self._by_key = prior_by_key()
        self._places: Int32 = np.zeros(N_KEYS, dtype=np.int32)
        self._said: Int8 = np.zeros(N_PARTS, dtype=np.int8)

    @property
    def name(self) -> str:
        """Stable name."""
        return "tastes"

    @property
    def n_items(self) -> int:
        """Item slots met so far."""
        return self._n_items

    def set_item(self, item: int, subjects: Sequence[int], authors: Sequence[int] = ()) -> None:
        """Say what an item is about and who made it, by hashes; the first `N_KEYS` different ones count."""
        if not 0 <= item < self._max_items:
            return
        self._reserve(item + 1, 0)
        self.withdraw(item)
        row = self._tables.item_keys[item]
        row[:] = -1
        keys = [key % FIRST_AUTHOR for key in subjects]
        keys += [FIRST_AUTHOR + key % (KEYS - FIRST_AUTHOR) for key in authors]
        for place, key in enumerate(list(dict.fromkeys(keys))[:N_KEYS]):
            row[place] = key
        put_in_pools(item, self._tables)
        self._dirty_items[item] = True

    def withdraw(self, item: int) -> None:
        """Propose an item no more."""
        if 0 <= item < self._n_items:
            take_from_pools(item, self._tables)

    @property
    def curious(self) -> bool:
        """Whether what is not known well is tried sooner; how lists are made, and no part of the state."""
        return bool(self._tables.curiosity[0] > 0)

    @curious.setter
    def curious(self, is_curious: bool) -> None:
        self._tables.curiosity[0] = CURIOSITY if is_curious else 0.0

    def view(self) -> Tables:
        """The live tables, not to be changed, and not to be kept over what is learned."""
        return self._tables

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Logits (B, C) without levels; 0 for an unknown item."""
        out = np.zeros((len(contexts.users), len(items)), dtype=np.float32)
        fill_all(contexts.users, items, self._tables, self._by_key, out)
        return out

    def learn_many(self, batch: Interactions) -> None:
        """Learn the views that end in the batch, in order."""
        if not len(batch):
            return
        self._reserve(min(int(batch.items.max()) + 1, self._max_items), int(batch.users.max()) + 1)
        learn_events(
            batch.users, batch.items, batch.types, batch.surfaces, batch.weight, batch.finished,
            self._views, self._tables, self._places, self._said, self._dirty_items, self._dirty_users,
        )  # fmt: skip

    def fade(self, kept: float) -> None:
        """Believe only a share of what users were found to like.

        ``m' = kept m, v' = kept^2 v + (1 - kept^2) v_0``: what is left of an effect that has drifted since.
        """
        own, keys = self._tables.own[: self._n_users], self._tables.own_keys[: self._n_users]
        prior = np.where(keys >= FIRST_AUTHOR, VARIANCE_AUTHOR, VARIANCE_OWN)
        share = np.float32(kept)
        own[..., MEAN] *= share
        own[..., VARIANCE] = share * share * own[..., VARIANCE] + (1 - share * share) * prior
        self._dirty_users[: self._n_users] = True

    def touched(self) -> TouchedKeys:
        """Items and users that were learned or described since the last call."""
        items = np.flatnonzero(self._dirty_items).astype(np.int32)
        users = np.flatnonzero(self._dirty_users).astype(np.int32)
        self._dirty_items[items] = self._dirty_users[users] = False
        return TouchedKeys(items=items, users=users, dense=(self.name,) if len(items) else ())

    def snapshot(self) -> Arrays:
        """Copy of everything learned, and of the views under way."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, damaged, or not finite.
        """
        found = {name: taken(arrays, name, like) for name, like in self._arrays().items()}
        check_finite(found, "tastes")
        whole = ("keys", "levels", "slopes", "pools")
        fixed = all(len(found[name]) == len(getattr(self._tables, name)) for name in whole)
        n_items = {len(found[name]) for name in ("item_keys", "items", "dirty_items")}
        n_users = {len(found[name]) for name in found if name.startswith(("user", "own", "view_"))}
        n_users.add(len(found["dirty_users"]))
        keys = max(int(found[name].max(initial=-1)) for name in ("item_keys", "own_keys"))
        if not fixed or len(n_items) > 1 or len(n_users) > 1 or keys >= KEYS:
            raise StateError("the tastes' arrays do not belong together")
        found["curiosity"] = self._tables.curiosity
        self._tables = Tables(**{name: found[name] for name in Tables._fields})  # type: ignore[arg-type]
        views = {name: found[f"view_{name}"] for name in Views._fields}
        self._views = Views(**views)  # type: ignore[arg-type]
        self._dirty_items = found["dirty_items"].astype(np.bool_)
        self._dirty_users = found["dirty_users"].astype(np.bool_)
        self._n_items, self._n_users = n_items.pop(), n_users.pop()

    def digest(self) -> str:
        """Hash of the state."""
        return digest_arrays({n: a for n, a in self._arrays().items() if not n.startswith("dirty")})

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        n, u, t, views = self._n_items, self._n_users, self._tables, self._views
        return {
            "item_keys": t.item_keys[:n],
            "items": t.items[:n],
            "keys": t.keys,
            "levels": t.levels,
            "slopes": t.slopes,
            "user_levels": t.user_levels[:u],
            "own_keys": t.own_keys[:u],
            "own": t.own[:u],
            "pools": t.pools,
            **{f"view_{name}": array[:u] for name, array in views._asdict().items()},
            "dirty_items": self._dirty_items[:n],
            "dirty_users": self._dirty_users[:u],
        }

    def _reserve(self, n_items: int, n_users: int) -> None:
        if n_items > self._n_items:
            t = self._tables
            items = grown(t.items, n_items)
            items[self._n_items : n_items] = 0.0, VARIANCE_ITEM
            self._tables = t._replace(item_keys=grown(t.item_keys, n_items, -1), items=items)
            self._dirty_items = grown(self._dirty_items, n_items)
            self._n_items = n_items
        if n_users > self._n_users:
            t, views = self._tables, self._views
            levels = grown(t.user_levels, n_users)
            levels[self._n_users : n_users] = 0.0, VARIANCE_LEVEL
            self._tables = t._replace(
                user_levels=levels,
                own_keys=grown(t.own_keys, n_users, -1),
                own=grown(t.own, n_users),
            )
            self._views = Views(
                items=grown(views.items, n_users, -1),
                surfaces=grown(views.surfaces, n_users, -1),
                said=grown(views.said, n_users, -1),
            )
            self._dirty_users = grown(self._dirty_users, n_users)
            self._n_users = n_users


def no_tastes() -> Tables:
    """What is known of no user and no item."""
    return Tables(
        item_keys=np.full((0, N_KEYS), -1, dtype=np.int32),
        items=np.zeros((0, 2), dtype=np.float32),
        keys=_prior(0, VARIANCE_KEY),
        levels=_levels(),
        slopes=_slopes(),
        user_levels=np.zeros((0, 2), dtype=np.float32),
        own_keys=np.full((0, N_HELD), -1, dtype=np.int32),
        own=np.zeros((0, N_HELD, 2), dtype=np.float32),
        pools=np.full((0, POOL), -1, dtype=np.int32),
        curiosity=np.zeros(1, dtype=np.float32),
    )


def _prior(n: int, variance: np.float32) -> Float32:
    pairs = np.zeros((n, 2), dtype=np.float32)
    pairs[:, VARIANCE] = variance
    return pairs


def _levels() -> Float32:
    """Half of what is shown is taken up and half of that finished, as far as anybody knows; few like it."""
    found = np.zeros((len(SURFACES) + 1, N_PARTS, 2), dtype=np.float32)
    found[:, LIKED, MEAN] = FEW_LIKE
    found[..., VARIANCE] = VARIANCE_LEVEL
    return found


def _slopes() -> Float32:
    """One for all that is asked; that of the first says what the scale is, and stays."""
    found = np.zeros((len(SURFACES) + 1, N_PARTS, 2), dtype=np.float32)
    found[..., MEAN] = 1.0
    found[:, 1:, VARIANCE] = VARIANCE_SLOPE
    return found
