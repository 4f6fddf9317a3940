"""What the probability learner knows an impression by: keys, effects, factors and products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np

from schemas.runs import Int32

from .impression_memory import KNOWN
from .impressions import CLICK
from .target_statistics import MISS, N_FEATURES, RATE, SHOWN, WATCH_RATE, WATCHES

Key = tuple[str, ...]

CATEGORIES: Final = ("user", "item", "creator", "tag", "duration", "surface", "hour")
"""What the product knows of an impression."""

KEYS: Final[Mapping[Key, float]] = {
    ("user",): 4.0,
    ("item",): 20.0,
    ("creator",): 20.0,
    ("tag",): 50.0,
    ("duration",): 50.0,
    ("surface",): 100.0,
    ("music",): 20.0,
    ("user", "surface"): 4.0,
    ("user", "tag"): 3.0,
    ("user", "creator"): 3.0,
    ("user", "duration"): 3.0,
    ("item", "surface"): 10.0,
    ("tag", "surface"): 50.0,
    ("duration", "surface"): 50.0,
    ("hour", "surface"): 100.0,
    ("user", "item"): 2.0,
    ("segment",): 20.0,
    ("user", "hour"): 3.0,
}
"""Keys with their shrinkage; one whose categories are not all there is left out."""

EFFECTS: Final[Mapping[str, float]] = {"user": 0.1, "item": 0.02, "creator": 0.01}
"""Variances of the effects of categories in the probabilities."""

HEAD_LEVEL: Final[Key] = ("user",)
HEAD_EFFECTS: Final[Mapping[Key, float]] = {
    HEAD_LEVEL: 10.0,
    ("item",): 0.02,
    ("creator",): 0.02,
    ("tag",): 0.02,
    ("item", "surface"): 0.02,
    ("tag", "surface"): 0.02,
    ("duration", "surface"): 0.02,
}
"""Variances of the effects of keys in the ranking head; that of `HEAD_LEVEL` is learned, and not scored."""

FACTORS: Final = (
    "user",
    "item",
    "creator",
    "tag",
    "duration",
    "surface",
    "hour",
    "music",
    "upload",
    "activity",
    "segment",
)
OF_THE_USER: Final = frozenset({"user"})

TELLING: Final[tuple[tuple[Key, int], ...]] = (
    (("user",), WATCH_RATE),
    (("user", "surface"), RATE + CLICK),
    (("user",), SHOWN),
    (("user",), WATCHES),
    (("item",), MISS + CLICK),
    (("surface",), RATE + CLICK),
)
"""Statistics whose products with each other, and with whether the user was met before, are inputs too."""


def keys_among(categories: Sequence[str]) -> dict[Key, float]:
    """Those of `KEYS` whose categories are all there, and their shrinkage."""
    return {key: k for key, k in KEYS.items() if all(name in categories for name in key)}


def product_pairs(keys: Sequence[Key], first_of_memory: int) -> Int32:
    """Places (M, 2) of the inputs that are multiplied; of keys that are not there, none."""
    places = [keys.index(key) * N_FEATURES + at for key, at in TELLING if key in keys]
    places.append(first_of_memory + KNOWN)
    return np.array([*combinations(places, 2)], dtype=np.int32).reshape(-1, 2)


def head_statistics(keys: Sequence[Key]) -> list[int]:
    """Places of the statistics that say nothing of the user."""
    return [
        at * N_FEATURES + f
        for at, key in enumerate(keys)
        if not OF_THE_USER & set(key)
        for f in range(N_FEATURES)
    ]
