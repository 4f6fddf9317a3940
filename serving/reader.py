"""A small public reader: follows the recommendations topic into a bounded local view.

One thread owns the Kafka consumer; every method may be called from any thread. No consumer
group, no commits: each reader reads all partitions from the beginning (the topic is compacted)
and then follows. A null value forgets the user; a snapshot that knows less than the one in the
view is dropped.

    with RecommendationsReader({"bootstrap_servers": "127.0.0.1:9092"}) as reader:
        reader.wait_ready(30.0)
        snapshot = reader.get("u42")
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from msgspec import Struct

from schemas.errors import UnavailableError
from schemas.records import Snapshot
from schemas.topics import topic_names

from .reader_connect import assign_all, open_consumer
from .reader_view import Listener, SnapshotView, Subscription

_POLL_MS: Final = 250
_RETRY_S: Final = (0.2, 0.5, 1.0, 2.0)
_LAG_EVERY_S: Final = 1.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger("reelflow.reader")


class ReaderState(Struct, frozen=True, kw_only=True):
    """What a reader says about itself at one moment."""

    ready: bool
    reason: str | None  # why it is not ready, in words
    users: int
    lag_records: int  # log end minus position, all partitions, at most a second old
    read: int
    dropped_older: int
    invalid: int
    evicted: int


class RecommendationsReader:
    """Follows snapshots into a local view of at most `max_users` users.

    Parameters
    ----------
    config : Mapping
        Keyword arguments for ``kafka.KafkaConsumer`` (bootstrap_servers and security).
    topic : str
        The recommendations topic.
    max_users : int
        When the view is full, the user whose snapshot arrived longest ago is forgotten.
    from_beginning : bool
        False follows only what arrives from now on (and again after a lost connection).

    Notes
    -----
    A lost broker is waited for; `state` says so meanwhile. About 2.5 KB a user with 20 items:
    the view keeps the bytes and decodes on `get` (5 microseconds).
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str = topic_names().recommendations,
        *,
        max_users: int = 200_000,
        from_beginning: bool = True,
    ) -> None:
        self._from_beginning = from_beginning
        self._config = dict(config)
        self.topic = topic
        self._view = SnapshotView(max_users)
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._reason: str | None = "not started"
        self._goal: dict[TopicPartition, int] = {}
        self._lag = 0
        self._lag_at = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Start following; once."""
        if self._thread is not None:
            raise RuntimeError("the reader was started before")
        self._reason = "connecting to the broker"
        self._thread = threading.Thread(target=self._run, name="recommendations-reader", daemon=True)
        self._thread.start()
        return self

    def close(self, timeout: float = 10.0) -> None:
        """Stop following and wake everyone who waits; the view stays readable."""
        self._stop.set()
        self._view.close()
        if self._thread is not None:
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._view)

    def get(self, user_id: str) -> Snapshot | None:
        """The newest snapshot of a user, or None when the view has none."""
        return self._view.get(user_id)

    def wait_for(
        self, user_id: str, predicate: Callable[[Snapshot], bool], timeout: float
    ) -> Snapshot | None:
        """The first snapshot of a user that satisfies `predicate`, or None after `timeout` seconds.

        The predicate sees the snapshot in the view first, then each newer one in order.
        """
        deadline = time.monotonic() + timeout
        with self.subscribe(user_id) as subscription:
            current = self.get(user_id)
            if current is not None and predicate(current):
                return current
            while (left := deadline - time.monotonic()) > 0:
                snapshot = subscription.get(left)
                if snapshot is None:
                    break
                if predicate(snapshot):
                    return snapshot
        return None

    def subscribe(self, user_id: str | None = None, *, maxsize: int = 256) -> Subscription:
        """Snapshots as they arrive, of one user or of all.

        Use it as a context manager, or close it. A subscriber that falls more than `maxsize`
        behind loses the oldest ones and can read how many in `lost`.
        """
        return Subscription(self._view, user_id, maxsize)

    def listen(self, user_id: str | None, listener: Listener) -> Callable[[], None]:
        """Call `listener(snapshot)` from the reader's thread for each arrival; returns the undo.

        The listener must return at once and must not raise.
        """
        return self._view.listen(user_id, listener)

    @property
    def ready(self) -> bool:
        """Whether the view has reached the end offsets that the reader saw when it connected."""
        return self._ready.is_set() and self._reason is None

    def wait_ready(self, timeout: float) -> None:
        """Wait until `ready`.

        Raises
        ------
        UnavailableError
            After `timeout` seconds; the message says what is missing.
        """
        if not self._ready.wait(timeout):
            raise UnavailableError(
                f"topic {self.topic}: not read to its end in {timeout:g} s: {self._reason}"
            )

    @property
    def state(self) -> ReaderState:
        """Readiness and counts."""
        view = self._view
        return ReaderState(
            ready=self.ready,
            reason=self._reason,
            users=len(view),
            lag_records=self._lag,
            read=view.read,
            dropped_older=view.dropped_older,
            invalid=view.invalid,
            evicted=view.evicted,
        )

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            try:
                self._follow()
            except (KafkaError, OSError, ValueError) as error:
                self._reason = f"cannot read the topic: {error}"
                _log.warning("reader_disconnected", topic=self.topic, error=str(error), attempt=attempt)
                self._stop.wait(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1

    def _follow(self) -> None:
        consumer = open_consumer(self._config)
        try:
            partitions = assign_all(consumer, self.topic)
            self._goal = dict(consumer.end_offsets(partitions))
            if self._from_beginning:
                consumer.seek_to_beginning(*partitions)
            else:
                for place, end in self._goal.items():
                    consumer.seek(place, end)
            self._reason = "reading the topic to its end"
            while not self._stop.is_set():
                for records in consumer.poll(timeout_ms=_POLL_MS).values():
                    for record in records:
                        self._view.apply(record.key, record.value)
                self._check_progress(consumer)
        finally:
            consumer.close(timeout_ms=2_000)

    def _check_progress(self, consumer: KafkaConsumer) -> None:
        if self._goal:
            self._goal = {tp: end for tp, end in self._goal.items() if consumer.position(tp) < end}
        if not self._goal:
            self._reason = None
            self._ready.set()
        now = time.monotonic()
        if now - self._lag_at >= _LAG_EVERY_S:
            self._lag_at = now
            marks = ((consumer.highwater(tp), consumer.position(tp)) for tp in consumer.assignment())
            self._lag = sum(max(0, high - at) for high, at in marks if high is not None)
