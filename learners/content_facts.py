"""What a catalogue says of an item (tags, category, creator, ...) as one vector, by hashing.

Each word w of an item adds +1 or -1 to one of `DIMS` places, both by the word's hash; the vector has
length 1. So two items' product is about the share of words they have in common, whatever words there are.

References
----------
Weinberger et al., Feature hashing for large scale multitask learning, ICML 2009.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from schemas.hashing import hash_one
from schemas.runs import Float32

FACTS: Final = "facts"
"""Name of the modality."""
DIMS: Final = 128
_KEY: Final = 0x66616374735F7631


def facts_vector(words: Iterable[str]) -> Float32:
    """The vector of some words, each counted once, (DIMS,); NaN throughout without any: it lacks.

    >>> a, b = facts_vector(["chess", "books"]), facts_vector(["books", "chess", "chess"])
    >>> round(float(a @ b), 3), bool(np.isnan(facts_vector([])).all())
    (1.0, True)
    """
    vector: Float32 = np.zeros(DIMS, dtype=np.float32)
    for word in dict.fromkeys(words):
        h = hash_one(word, _KEY)
        vector[(h >> 1) % DIMS] += 1.0 if h & 1 else -1.0
    length = float(np.linalg.norm(vector))
    if length == 0.0:
        vector[:] = np.nan
        return vector
    return vector / np.float32(length)
