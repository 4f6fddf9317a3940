"""What goes from a model to its topics: copies taken on the learner thread, bytes made on another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from msgspec import Struct

from learners.blend import Gate
from learners.cooccurrence import Cooccurrence
from learners.ease import Ease
from learners.embeddings import Embeddings
from learners.heat import RoomHeat
from learners.mixture import Mixture
from learners.popularity import Popularity
from learners.transitions import Transitions
from schemas.interning import Interner
from schemas.learner import Arrays
from schemas.model_values import (
    HEAD,
    DenseValue,
    HeadValue,
    ItemValue,
    ModelShape,
    UserValue,
    encode_value,
    packed,
    packed_arrays,
)
from schemas.runs import Float32, Int32
from schemas.settings import LearnerSettings
from schemas.topics import ModelTopics

GATE = "gate"
TRANSITIONS = "transitions"
POPULARITY = "popularity"
HEAT = "heat"
EMBEDDINGS = "embeddings"
COOCCURRENCE = "cooccurrence"
EASE = "ease"


class ModelRecord(NamedTuple):
    """A record for one of the model topics."""

    topic: str
    key: bytes
    value: bytes


class Parts(Protocol):
    """The parts of a model that a replica needs."""

    items: Interner
    users: Interner
    transitions: Transitions
    popularity: Popularity
    heat: RoomHeat
    embeddings: Embeddings | None
    cooccurrence: Cooccurrence | None
    ease: Ease | None
    gate: Gate | Mixture


class Stamp(Struct, frozen=True, kw_only=True):
    """What every value of a transaction begins with."""

    epoch: int
    sequence: int
    lineage: str


class Exported(Struct, frozen=True, kw_only=True):
    """Values of some items and users, and all dense parameters; shares no memory with the model."""

    stamp: Stamp
    items: Int32
    item_ids: Sequence[str]
    transitions: Arrays
    popularity: Arrays
    heat: Arrays
    embeddings: Arrays | None
    cooccurrence: Arrays | None
    ease: Arrays | None
    users: Int32
    user_ids: Sequence[str]
    user_rows: Float32 | None
    dense: dict[str, Arrays]


def shape_of(learner: LearnerSettings) -> ModelShape:
    """The settings that learner and replica must share."""
    return ModelShape(**{name: getattr(learner, name) for name in ModelShape.__struct_fields__})


def export_model(model: Parts, items: Int32, users: Int32, stamp: Stamp) -> Exported:
    """Copy the values of item slots `items` and user slots `users`. Cost: 1 to 2 microseconds each."""
    embeddings = model.embeddings
    dense = {
        GATE: model.gate.export_dense(),
        TRANSITIONS: model.transitions.export_dense(),
        POPULARITY: model.popularity.export_dense(),
        HEAT: model.heat.export_dense(),
    }
    if embeddings is not None:
        dense[EMBEDDINGS] = embeddings.export_dense()
    near, linear = model.cooccurrence, model.ease
    if near is not None and linear is not None:
        dense[COOCCURRENCE], dense[EASE] = near.export_dense(), linear.export_dense()
    item_id, user_id = model.items.id_of, model.users.id_of
    return Exported(
        stamp=stamp,
        items=items,
        item_ids=[item_id(item) for item in items.tolist()],
        transitions=model.transitions.export_rows(items),
        popularity=model.popularity.export_rows(items),
        heat=model.heat.export_rows(items),
        embeddings=None if embeddings is None else embeddings.export_rows(items),
        cooccurrence=None if near is None else near.export_rows(items),
        ease=None if linear is None else linear.export_rows(items),
        users=users,
        user_ids=[user_id(user) for user in users.tolist()],
        user_rows=None if embeddings is None else embeddings.export_users(users),
        dense=dense,
    )


def records_of(exported: Exported, head: HeadValue, topics: ModelTopics) -> Iterator[ModelRecord]:
    """All records of one transaction, the head last; about 10 microseconds each."""
    yield from _items(exported, topics.items)
    yield from _users(exported, topics.users)
    stamp = exported.stamp
    for name, arrays in exported.dense.items():
        dense = DenseValue(
            epoch=stamp.epoch,
            sequence=stamp.sequence,
            lineage=stamp.lineage,
            name=name,
            arrays=packed_arrays(arrays),
        )
        yield ModelRecord(topics.dense, name.encode(), encode_value(dense))
    yield ModelRecord(topics.dense, HEAD.encode(), encode_value(head))


def _items(exported: Exported, topic: str) -> Iterator[ModelRecord]:
    stamp, rows, popularity = exported.stamp, exported.transitions, exported.popularity
    nbr, w, rowsum = rows["nbr"], rows["w"], rows["rowsum"]
    filled, references = rows["filled"].tolist(), rows["reference"].tolist()
    embedded = exported.embeddings
    held = [False] * len(filled) if embedded is None else embedded["held"].tolist()
    support = [0] * len(filled) if embedded is None else embedded["support"].tolist()
    heated = exported.heat["times"].tolist()
    near, linear = exported.cooccurrence, exported.ease
    n_near = [0] * len(filled) if near is None else near["filled"].tolist()
    n_linear = [0] * len(filled) if linear is None else np.count_nonzero(linear["w"], axis=1).tolist()
    for i, (item, item_id) in enumerate(zip(exported.items.tolist(), exported.item_ids, strict=True)):
        n = filled[i]
        value = ItemValue(
            epoch=stamp.epoch,
            sequence=stamp.sequence,
            lineage=stamp.lineage,
            item_id=item_id,
            slot=item,
            reference_ms=references[i],
            neighbours=packed(nbr[i, :n]),
            weights=packed(w[i, :n]),
            row_sums=packed(rowsum[i]),
            references_ms=packed(popularity["references"][i]),
            counts=packed(popularity["counts"][i]),
            heat=packed(exported.heat["counts"][i]) if heated[i] >= 0 else b"",
            heat_ts_ms=heated[i],
            vector=packed(embedded["vector"][i]) if embedded is not None and held[i] else None,
            support=support[i],
            near=b"" if near is None else packed(near["nbr"][i, : n_near[i]]),
            near_counts=b"" if near is None else packed(near["w"][i, : n_near[i]]),
            visits=0.0 if near is None else float(near["counts"][i]),
            linear=b"" if linear is None else packed(linear["nbr"][i, : n_linear[i]]),
            linear_weights=b"" if linear is None else packed(linear["w"][i, : n_linear[i]]),
        )
        yield ModelRecord(topic, item_id.encode(), encode_value(value))


def _users(exported: Exported, topic: str) -> Iterator[ModelRecord]:
    stamp, rows = exported.stamp, exported.user_rows
    if rows is None:
        return
    for i, (user, user_id) in enumerate(zip(exported.users.tolist(), exported.user_ids, strict=True)):
        value = UserValue(
            epoch=stamp.epoch,
            sequence=stamp.sequence,
            lineage=stamp.lineage,
            user_id=user_id,
            slot=user,
            row=packed(rows[i]),
        )
        yield ModelRecord(topic, user_id.encode(), encode_value(value))
