"""Tags by column: as many as there may be, the least used one making room.

A tag is admitted when an item brings it, or when it gets a text vector of its own, which it needs to be
recognised before any item brought it. When all columns are taken, the tag with the fewest examples goes,
of those the one in the lowest column; so a flood of tags that come once moves only tags that came once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays
from schemas.runs import Float32, Int64

from .state import pack_strings, taken, unpack_strings


class TagVocabulary:
    """See the module's docstring.

    Parameters
    ----------
    max_tags : int
    text_dim : int
        Dimension of the tags' text vectors.

    >>> tags = TagVocabulary(2, 1)
    >>> [tags.admit(name) for name in ("cat", "dog", "cat")]
    [(0, True), (1, True), (0, False)]
    >>> tags.counts[1] += 1
    >>> tags.admit("bird")
    (0, True)
    >>> tags.names
    ['bird', 'dog']
    """

    def __init__(self, max_tags: int, text_dim: int) -> None:
        self._max_tags, self._text_dim = max_tags, text_dim
        self.names: list[str] = []
        self._columns: dict[str, int] = {}
        self.counts: Int64 = np.zeros(0, dtype=np.int64)
        """Examples by column, (T,)."""
        self.texts: Float32 = np.zeros((0, text_dim), dtype=np.float32)
        """Unit text vectors by column, 0 for a tag without one; (T, D)."""

    def __len__(self) -> int:
        return len(self.names)

    def column(self, tag: str) -> int | None:
        """Where a tag stands."""
        return self._columns.get(tag)

    def admit(self, tag: str) -> tuple[int, bool]:
        """The column of a tag, and whether that is new to it (what stood there is to be forgotten)."""
        found = self._columns.get(tag)
        if found is not None:
            return found, False
        if len(self.names) < self._max_tags:
            column = len(self.names)
            self.names.append(tag)
            self.counts = np.append(self.counts, 0)
            self.texts = np.append(self.texts, np.zeros((1, self._text_dim), np.float32), axis=0)
        else:
            column = int(np.argmin(self.counts))
            del self._columns[self.names[column]]
            self.names[column] = tag
            self.counts[column], self.texts[column] = 0, 0.0
        self._columns[tag] = column
        return column, True

    def set_text(self, column: int, vector: Float32) -> None:
        """The text vector (D,) of a tag; one that is 0 or not finite says nothing."""
        length = float(np.linalg.norm(vector))
        self.texts[column] = vector / length if np.isfinite(length) and length > 0.0 else 0.0

    def labels(self, tags: Sequence[Sequence[str]]) -> Float32:
        """1 where an item has a tag: (N, T); tags that are not here count for nothing."""
        found = np.zeros((len(tags), len(self)), dtype=np.float32)
        for row, names in enumerate(tags):
            found[row, [self._columns[name] for name in names if name in self._columns]] = 1.0
        return found

    def arrays(self) -> Arrays:
        """``names`` and ``name_ends`` (packed), ``counts``, ``texts``."""
        names, ends = pack_strings(self.names)
        return {"names": names, "name_ends": ends, "counts": self.counts, "texts": self.texts}

    def restored(self, arrays: Mapping[str, NDArray[Any]], prefix: str) -> TagVocabulary:
        """A vocabulary from copies of the arrays of that prefix.

        Raises
        ------
        StateError
            One is missing or malformed, or there are more tags than there may be.
        """
        ends = taken(arrays, f"{prefix}.name_ends", np.zeros(0, np.int64))
        n = len(ends)
        if n > self._max_tags:
            raise StateError(f"'{prefix}.name_ends' has {n} tags, more than {self._max_tags}")
        packed = taken(arrays, f"{prefix}.names", np.zeros(0, np.uint8))
        if n and (ends[-1] != len(packed) or (np.diff(ends, prepend=0) < 0).any()):
            raise StateError(f"'{prefix}.names' does not end where '{prefix}.name_ends' says")
        twin = TagVocabulary(self._max_tags, self._text_dim)
        twin.names = unpack_strings(packed, ends)
        twin._columns = {name: column for column, name in enumerate(twin.names)}
        twin.counts = taken(arrays, f"{prefix}.counts", self.counts, rows=n)
        twin.texts = taken(arrays, f"{prefix}.texts", self.texts, rows=n)
        return twin
