"""Events in: validated as the worker's decoder does, produced with acknowledgement of every one.

The producer is idempotent with acks=all. `EventsIn.send` returns once the broker has stored
every event, or says which ones it has not within the time allowed. The bytes that are produced
are the bytes that came in, so that unknown fields travel on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec import Struct

from schemas.codec import decode_event
from schemas.errors import ContractError, UnavailableError
from schemas.records import MAX_LIST, Event
from schemas.topics import MAX_RECORD_BYTES

_POLL_S: Final = 0.1
_CONNECT_S: Final = 1.0
_EXTRA_WAIT_S: Final = 1.0
_LOG_EVERY_S: Final = 10.0
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
# Too much in flight for one producer: the caller is told to come back instead of waiting.
_MAX_QUEUED: Final = 100_000

log = structlog.get_logger(__name__)


class Refused(Struct, frozen=True, kw_only=True):
    """An event that breaks the contract; `index` is its place in the list."""

    index: int
    error: str
    field: str | None
    reason: str


class Stored(Struct, frozen=True, kw_only=True):
    """Where the broker put an event; `error` says why it has not.

    `too_large` events are larger than the broker takes: sending them again does not help.
    """

    event_id: str
    partition: int | None = None
    offset: int | None = None
    error: str | None = None
    too_large: bool = False


def parse_events(body: bytes) -> tuple[list[tuple[Event, bytes]], list[Refused]]:
    """Split a request body (one event, or a list of at most 500) into valid and refused events.

    Raises
    ------
    ContractError
        The body is no UTF-8, no JSON, neither object nor list, an empty list, or a longer one.
    """
    try:
        # msgspec skips what it does not need without looking at its encoding.
        text = body.decode("utf-8").lstrip()
    except UnicodeDecodeError as error:
        raise ContractError(f"the body is not UTF-8: {error.reason}", reason="not_utf8") from None
    values: Sequence[bytes | msgspec.Raw] = [body]
    if text.startswith("["):
        try:
            values = _LIST.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ContractError(f"the body is not JSON: {error}", reason="not_json") from None
        if not values:
            raise ContractError("the list of events is empty", reason="bad_value")
        if len(values) > MAX_LIST:
            raise ContractError(
                f"the list has {len(values)} events; at most {MAX_LIST} are taken at once", reason="bad_value"
            )
    valid: list[tuple[Event, bytes]] = []
    refused: list[Refused] = []
    for index, value in enumerate(values):
        raw = bytes(value)
        try:
            valid.append((decode_event(raw), raw))
        except ContractError as error:
            refused.append(Refused(index=index, error=str(error), field=error.field, reason=error.reason))
    return valid, refused


class EventsIn:
    """Producer of behaviour events for an asyncio program.

    Parameters
    ----------
    config : Mapping
        confluent-kafka configuration with the bootstrap servers and ``partitioner`` murmur2_random.
    topic : str
        The behaviour topic.
    timeout_s : float
        An event that the broker has not acknowledged by then is reported as not stored.
    """

    def __init__(self, config: Mapping[str, Any], topic: str, *, timeout_s: float = 5.0) -> None:
        self.topic = topic
        self._timeout_s = timeout_s
        self._config = {
            **config,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 1,
            # The first event of a topic waits for its leader; 1 s by default, and a user sees it.
            "topic.metadata.refresh.fast.interval.ms": 50,
            "queue.buffering.max.messages": _MAX_QUEUED,
            "message.timeout.ms": int(timeout_s * 1000),
            "error_cb": self._on_error,
            "message.max.bytes": MAX_RECORD_BYTES,
            "log_level": 0,  # what matters comes through error_cb; librdkafka writes to stderr
        }
        self._logged_at = -_LOG_EVERY_S
        self._fatal = threading.Event()
        self._stop = threading.Event()
        self._producer = Producer(self._config)
        self._thread = threading.Thread(target=self._poll, name="events-in", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; gives what is in flight the time of one timeout to be acknowledged."""
        self._producer.flush(self._timeout_s)
        self._stop.set()
        self._thread.join(5.0)

    async def send(self, events: Sequence[tuple[Event, bytes]]) -> list[Stored]:
        """Produce events keyed by user and wait for every acknowledgement.

        Raises
        ------
        UnavailableError
            None of the events was stored, and none is too large. It may still be that the broker
            has one of them: send them again unchanged, a repeated event_id is learned once.
        """
        if self._fatal.is_set():
            self._replace_producer()
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[Stored]] = []
        for event, raw in events:
            future: asyncio.Future[Stored] = loop.create_future()
            waiting.append(future)
            self._produce(loop, future, event, raw)
        await asyncio.wait(waiting, timeout=self._timeout_s + _EXTRA_WAIT_S)
        results = [
            future.result() if future.done() else Stored(event_id=event.event_id, error="no answer in time")
            for future, (event, _) in zip(waiting, events, strict=True)
        ]
        if all(result.error is not None and not result.too_large for result in results):
            raise UnavailableError(
                f"the broker stored none of {len(results)} events in {self._timeout_s:g} s: "
                f"{results[0].error}; send them again unchanged"
            )
        return results

    async def broker_answers(self, timeout_s: float = 1.0) -> bool:
        """Whether the broker answers a metadata request for the topic."""

        def ask() -> bool:
            try:
                found = self._producer.list_topics(self.topic, timeout=timeout_s)
            except KafkaException:
                return False
            return found.topics[self.topic].error is None

        return await asyncio.to_thread(ask)

    def _produce(
        self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Stored], event: Event, raw: bytes
    ) -> None:
        def settle(result: Stored) -> None:
            if not future.done():
                future.set_result(result)

        def delivered(error: KafkaError | None, message: Message) -> None:
            result = (
                Stored(event_id=event.event_id, partition=message.partition(), offset=message.offset())
                if error is None
                else _failed(event, error)
            )
            try:
                loop.call_soon_threadsafe(settle, result)
            except RuntimeError:
                # The loop was closed while the broker answered: nobody waits any more.
                log.warning("event_acknowledged_too_late", error=result.error)

        try:
            self._producer.produce(self.topic, raw, event.user_id.encode(), on_delivery=delivered)
        except BufferError:
            settle(Stored(event_id=event.event_id, error="too many events wait for the broker"))
        except KafkaException as error:
            settle(_failed(event, error.args[0]))

    def _on_error(self, error: KafkaError) -> None:
        # librdkafka reports each failed connection attempt, many a second.
        now = time.monotonic()
        if error.fatal() or now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log.warning("events_in_broker_error", error=error.str(), fatal=error.fatal())
        if error.fatal():
            self._fatal.set()

    def _replace_producer(self) -> None:
        # An idempotent producer whose sequence is lost refuses everything until it is replaced.
        self._fatal.clear()
        self._producer = Producer(self._config)

    def _poll(self) -> None:
        # Connect now, not under the first user's click.
        with contextlib.suppress(KafkaException):
            self._producer.list_topics(self.topic, timeout=_CONNECT_S)
        while not self._stop.is_set():
            self._producer.poll(_POLL_S)


def _failed(event: Event, error: KafkaError) -> Stored:
    return Stored(
        event_id=event.event_id,
        error=error.str(),
        too_large=error.code() == KafkaError.MSG_SIZE_TOO_LARGE,
    )
