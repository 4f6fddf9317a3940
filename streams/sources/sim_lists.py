"""Live feedback: simulated users are shown what the recommendations topic says."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from schemas.codec import decode_snapshot
from schemas.errors import ContractError, TopicError, UnavailableError
from schemas.records import Snapshot
from schemas.settings import KafkaSettings
from schemas.topics import topic_names

from ..context import confluent_config
from .sim_items import NOTHING, Ints, Mask

WIDTH: Final = 50
_METADATA_TIMEOUT_S: Final = 10.0
_BATCH: Final = 1_000
_MAX_BATCHES: Final = 20


class Lists:
    """Each user's current list, as far as it names simulated users and items.

    Parameters
    ----------
    n_users : int
    width : int
        Places of a list that are kept.

    Attributes
    ----------
    items : (N, width) int64
        Numbers of the items by position, -1 where there is none.
    snapshot : (N,) int64
        Number of each user's snapshot, -1 without one; `snapshot_id` gives its id.
    """

    def __init__(self, n_users: int, width: int = WIDTH) -> None:
        self.items: Ints = np.full((n_users, width), NOTHING, dtype=np.int64)
        self.snapshot: Ints = np.full(n_users, NOTHING, dtype=np.int64)
        self._ids: dict[int, str] = {}
        self._n_snapshots = 0

    def put(self, user_id: bytes, snapshot: Snapshot | None) -> bool:
        """Take a snapshot, or None for a user who was erased; False if the user is not simulated."""
        user = _number(user_id.decode("utf-8", "replace"), "su")
        if user is None or user >= len(self.snapshot):
            return False
        self.items[user] = self.snapshot[user] = NOTHING
        if snapshot is not None:
            numbers = [_number(place.item_id, "si") for place in snapshot.items[: self.items.shape[1]]]
            self.items[user, : len(numbers)] = [NOTHING if n is None else n for n in numbers]
            self.snapshot[user] = self._n_snapshots
            self._ids[self._n_snapshots] = snapshot.snapshot_id
            self._n_snapshots += 1
        return True

    def choose(self, users: Ints, recent: Ints, alive: Mask) -> tuple[Ints, Ints]:
        """First place of each list with an item that is alive and was not shown just now.

        Parameters
        ----------
        users : (B,) int64
        recent : (B, R) int64
            Items shown last.
        alive : (n_items,) bool

        Returns
        -------
        item, position : (B,) int64
            -1 where the list has nothing to show.
        """
        items = self.items[users]
        usable = (items >= 0) & (items < len(alive))
        usable &= alive[np.where(usable, items, 0)]
        usable &= ~(items[:, :, None] == recent[:, None, :]).any(axis=2)
        position = usable.argmax(axis=1)
        found = usable[np.arange(len(users)), position]
        return (
            np.where(found, items[np.arange(len(users)), position], NOTHING),
            np.where(found, position, NOTHING),
        )

    def snapshot_id(self, number: int) -> str:
        """Id of a snapshot."""
        return self._ids[number]

    def n_known_ids(self) -> int:
        """How many ids are kept."""
        return len(self._ids)

    def forget_ids_but(self, used: set[int]) -> None:
        """Drop the ids of snapshots that nothing refers to any more."""
        self._ids = {number: name for number, name in self._ids.items() if number in used}

    def poll(self) -> None:
        """Take in what is new; nothing is, without a topic."""


class FollowedLists(Lists):
    """Lists that follow the recommendations topic, from its beginning; used by one thread.

    Raises
    ------
    UnavailableError
        The broker does not answer.
    TopicError
        The topic does not exist.
    """

    def __init__(self, kafka: KafkaSettings, n_users: int) -> None:
        super().__init__(n_users)
        topic = topic_names(kafka.prefix).recommendations
        # Without a group: the offsets of this reader matter to nobody.
        self._consumer = Consumer(
            confluent_config(kafka) | {"group.id": "unused", "enable.auto.commit": False, "log_level": 2}
        )
        try:
            found = self._consumer.list_topics(timeout=_METADATA_TIMEOUT_S).topics.get(topic)
        except KafkaException as error:
            self._consumer.close()
            raise UnavailableError(
                f"no broker answers at {kafka.bootstrap}: {error.args[0].str()}"
            ) from error
        if found is None:
            self._consumer.close()
            raise TopicError(f"{topic} missing at {kafka.bootstrap}: run `reelflow topics create`")
        self._consumer.assign(
            [TopicPartition(topic, number, OFFSET_BEGINNING) for number in found.partitions]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def poll(self) -> None:
        """Take in what is new, at most 20 000 snapshots; does not wait for more."""
        for _ in range(_MAX_BATCHES):
            messages = self._consumer.consume(_BATCH, timeout=0)
            for message in messages:
                self._take(message)
            if len(messages) < _BATCH:
                return

    def _take(self, message: Any) -> None:
        key, value = message.key(), message.value()
        if message.error() is not None or key is None:
            return
        try:
            self.put(key, None if value is None else decode_snapshot(value))
        except ContractError:
            return  # whoever wrote it, it is not a list


def _number(name: str, prefix: str) -> int | None:
    digits = name.removeprefix(prefix)
    return int(digits) if digits != name and digits.isascii() and digits.isdigit() else None
