"""Records of the model topics to columns: decoded and stacked on the follower's thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct, field

from learners.cooccurrence import WIDTH as NEAR_WIDTH
from learners.ease import WIDTH as LINEAR_WIDTH
from schemas.errors import ContractError, StateError
from schemas.learner import Arrays
from schemas.model_values import (
    HEAD,
    DenseValue,
    HeadValue,
    ItemValue,
    ModelShape,
    ModelValue,
    UserValue,
    decode_value,
    unpacked,
    unpacked_arrays,
)
from schemas.runs import Float32, Int32
from schemas.topics import ModelTopics

from .model_parts import half_lives_of

CHANNELS: Final = 3


class Staged(Struct, kw_only=True):
    """What some records say, ready to be taken over; of a key only its last value."""

    lineage: str
    epoch: int
    starts_anew: bool = False
    items: Int32
    item_ids: Sequence[str]
    transitions: Arrays
    popularity: Arrays
    heat: Arrays
    embeddings: Arrays
    cooccurrence: Arrays
    ease: Arrays
    user_ids: Sequence[str]
    user_rows: Float32
    dense: dict[str, Arrays] = field(default_factory=dict)
    head: HeadValue | None = None
    n_records: int = 0


class Stager:
    """Decides which records count, and stacks them.

    A record of another lineage than the one followed counts only if its epoch is higher than any
    seen: then what follows belongs to an empty model. Of one lineage a lower epoch than the
    partition had before is refused: only a learner that was fenced out writes so.

    Parameters
    ----------
    topics : ModelTopics
    shape : ModelShape
        The settings here.
    """

    def __init__(self, topics: ModelTopics, shape: ModelShape) -> None:
        self._topics = topics
        self._shape = shape
        self._lineage = ""
        self._epoch = -1
        self._epochs: dict[tuple[str, int], int] = {}
        self._items: dict[int, ItemValue] = {}
        self._users: dict[str, UserValue] = {}
        self._dense: dict[str, Arrays] = {}
        self._head: HeadValue | None = None
        self._anew = False
        self._n = 0
        self.n_refused = 0
        """Records that were not used: undecodable, of a lower epoch, or of an older lineage."""
        self.last_refusal = ""

    def __len__(self) -> int:
        return self._n

    def forget(self, topic: str, partition: int) -> None:
        """The partition is read from its beginning again."""
        self._epochs.pop((topic, partition), None)

    def add(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> Staged | None:
        """Take in a record; returns what was staged before it when it begins another model.

        Raises
        ------
        StateError
            The record is of another version or the model of another shape, or two learners wrote
            under one epoch.
        """
        if value is None or key is None:
            return None
        try:
            decoded = self._decoded(topic, key, value)
        except ContractError as error:
            self._refuse(f"{topic}[{partition}] {key!r}: {error}")
            return None
        place = (topic, partition)
        if decoded.epoch < self._epochs.get(place, -1):
            self._refuse(f"{topic}[{partition}]: epoch {decoded.epoch} after {self._epochs[place]}")
            return None
        self._epochs[place] = decoded.epoch
        before: Staged | None = None
        if decoded.lineage != self._lineage:
            if decoded.epoch == self._epoch:
                raise StateError(
                    f"{topic} holds records of two models under epoch {decoded.epoch}: two learners wrote,"
                    " with states of their own; delete the model's topics and create them anew"
                )
            if decoded.epoch < self._epoch:
                self._refuse(f"{topic}[{partition}]: a record of an older model")
                return None
            before = self.take() if self._n else None
            self._lineage, self._anew = decoded.lineage, True
        self._epoch = max(self._epoch, decoded.epoch)
        self._n += 1
        if isinstance(decoded, ItemValue):
            self._items[decoded.slot] = decoded
        elif isinstance(decoded, UserValue):
            self._users[decoded.user_id] = decoded
        elif isinstance(decoded, HeadValue):
            check_shape(decoded, self._shape)
            self._head = decoded
        elif isinstance(decoded, DenseValue):
            self._dense[decoded.name] = unpacked_arrays(decoded.arrays)
        return before

    def take(self) -> Staged:
        """Everything added since the last call, stacked; 2 microseconds an item."""
        items = list(self._items.values())
        users = list(self._users.values())
        staged = Staged(
            lineage=self._lineage,
            epoch=self._epoch,
            starts_anew=self._anew,
            items=np.array([item.slot for item in items], dtype=np.int32),
            item_ids=[item.item_id for item in items],
            transitions=_transitions(items, self._shape.transition_width),
            popularity=_popularity(items, _n_lives(self._shape)),
            heat=_heat(items),
            embeddings=_vectors(items, self._shape.dim),
            cooccurrence=_cooccurrence(items),
            ease=_ease(items),
            user_ids=[user.user_id for user in users],
            user_rows=unpacked(b"".join(user.row for user in users), np.float32, self._shape.dim),
            dense=self._dense,
            head=self._head,
            n_records=self._n,
        )
        self._items, self._users, self._dense = {}, {}, {}
        self._head, self._anew, self._n = None, False, 0
        return staged

    def _decoded(self, topic: str, key: bytes, value: bytes) -> ModelValue:
        if topic == self._topics.items:
            item = decode_value(value, ItemValue)
            _check_item(item, self._shape)
            return item
        if topic == self._topics.users:
            user = decode_value(value, UserValue)
            _check(len(user.row) == 4 * self._shape.dim, "row", self._shape.dim)
            return user
        if key == HEAD.encode():
            return decode_value(value, HeadValue)
        return decode_value(value, DenseValue)

    def _refuse(self, why: str) -> None:
        self.n_refused += 1
        self.last_refusal = why


def check_shape(head: HeadValue, shape: ModelShape) -> None:
    """Refuse a model that was learned with other settings.

    Raises
    ------
    StateError
        Names the first setting that differs.
    """
    for name in ModelShape.__struct_fields__:
        theirs, ours = getattr(head.shape, name), getattr(shape, name)
        if theirs != ours:
            raise StateError(
                f"learner.{name} is {ours!r} here and {theirs!r} where model {head.model!r} is learned;"
                " give rankers the learner's settings"
            )


def _check(holds: bool, name: str, wanted: int) -> None:
    if not holds:
        raise ContractError(f"$.{name}: not of width {wanted}", reason="bad_value", field=name)


def _check_item(item: ItemValue, shape: ModelShape) -> None:
    n, width = len(item.neighbours) // 4, shape.transition_width
    n_lives = _n_lives(shape)
    _check(len(item.neighbours) == 4 * n and n <= width, "neighbours", width)
    _check(len(item.weights) == 4 * CHANNELS * n, "weights", CHANNELS)
    _check(len(item.row_sums) == 4 * CHANNELS, "row_sums", CHANNELS)
    _check(len(item.counts) == len(item.references_ms) == 8 * n_lives, "counts", n_lives)
    _check(len(item.heat) in (0, 16), "heat", 2)
    _check(len(item.near) == len(item.near_counts) <= 4 * NEAR_WIDTH, "near", NEAR_WIDTH)
    _check(len(item.linear) == len(item.linear_weights) <= 4 * LINEAR_WIDTH, "linear", LINEAR_WIDTH)
    _check(item.vector is None or len(item.vector) == 4 * shape.dim, "vector", shape.dim)


def _transitions(items: Sequence[ItemValue], width: int) -> Arrays:
    n = len(items)
    filled = np.array([len(item.neighbours) // 4 for item in items], dtype=np.int32)
    held = np.arange(width) < filled[:, None]  # (n, K)
    nbr = np.full((n, width), -1, dtype=np.int32)
    nbr[held] = unpacked(b"".join(item.neighbours for item in items), np.int32)
    w = np.zeros((n, width, CHANNELS), dtype=np.float32)
    w[held] = unpacked(b"".join(item.weights for item in items), np.float32, CHANNELS)
    return {
        "nbr": nbr,
        "w": w,
        "rowsum": unpacked(b"".join(item.row_sums for item in items), np.float32, CHANNELS),
        "filled": filled,
        "reference": np.array([item.reference_ms for item in items], dtype=np.int64),
    }


def _popularity(items: Sequence[ItemValue], n_lives: int) -> Arrays:
    return {
        "counts": unpacked(b"".join(item.counts for item in items), np.float64, n_lives),
        "references": unpacked(b"".join(item.references_ms for item in items), np.int64, n_lives),
    }


def _heat(items: Sequence[ItemValue]) -> Arrays:
    none = bytes(16)
    return {
        "counts": unpacked(b"".join(item.heat or none for item in items), np.float64, 2),
        "times": np.array([item.heat_ts_ms for item in items], dtype=np.int64),
    }


def _vectors(items: Sequence[ItemValue], dim: int) -> Arrays:
    none = bytes(4 * dim)
    return {
        "vector": unpacked(b"".join(item.vector or none for item in items), np.float32, dim),
        "support": np.array([item.support for item in items], dtype=np.int32),
        "held": np.array([item.vector is not None for item in items], dtype=np.bool_),
    }


def _n_lives(shape: ModelShape) -> int:
    return len(half_lives_of(shape.embeddings, shape.popularity_half_lives_h))


def _cooccurrence(items: Sequence[ItemValue]) -> Arrays:
    nbr, w, filled = _neighbours([(item.near, item.near_counts) for item in items], NEAR_WIDTH)
    counts = np.array([item.visits for item in items], dtype=np.float32)
    return {"nbr": nbr, "w": w, "filled": filled, "counts": counts}


def _ease(items: Sequence[ItemValue]) -> Arrays:
    nbr, w, _ = _neighbours([(item.linear, item.linear_weights) for item in items], LINEAR_WIDTH)
    return {"nbr": nbr, "w": w}


def _neighbours(rows: list[tuple[bytes, bytes]], width: int) -> tuple[Int32, Float32, Int32]:
    """Rows of neighbours and weights, padded to `width`, and how long each is."""
    filled = np.array([len(slots) // 4 for slots, _ in rows], dtype=np.int32)
    held = np.arange(width) < filled[:, None]  # (n, K)
    nbr = np.full((len(rows), width), -1, dtype=np.int32)
    w = np.zeros((len(rows), width), dtype=np.float32)
    nbr[held] = unpacked(b"".join(slots for slots, _ in rows), np.int32)
    w[held] = unpacked(b"".join(weights for _, weights in rows), np.float32)
    return nbr, w, filled
