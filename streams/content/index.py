"""What is published already, by item: the compacted item-content topic, read from its beginning and followed.

It is the content worker's only state, so that it never disagrees with what was published, a restart needs
nothing else, and any worker can go on with any partition. Every worker reads all partitions: the tagger is
the fold of the items with tags among them, the same in each worker but for the order between partitions.

Of one item the offset of the catalogue record only grows. A record below (a worker that was stopped and went
on when another had its partition) is not believed, and reported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.content import HEADER_SOURCE, CatalogueSource, ItemContent, decode_content
from schemas.errors import ContractError, TopicError
from schemas.media import RETRIABLE
from schemas.settings import KafkaSettings
from schemas.topics import topic_names

from ..context import confluent_config

log = structlog.get_logger(__name__)

FETCHED: Final = 500
CLOSE_S: Final = 10.0
LOOK_S: Final = 10.0
_NO_FAULT: Final = frozenset({"absent", "no_encoder", "other_model"})


class Known(NamedTuple):
    """What is known of an item; ``content_hash`` is empty once it was withdrawn."""

    content_hash: str
    encoders: str
    partition: int
    offset: int
    """Of the catalogue record that it was made of."""
    refused: bool
    """Whether something of it could not be used."""
    retriable: bool
    """Whether that may pass by itself."""


def known_of(content: ItemContent) -> Known:
    """What the index keeps of a content record."""
    reasons = {each.reason for each in content.missing}
    return Known(
        content.content_hash,
        content.encoders,
        content.source.partition,
        content.source.offset,
        bool(reasons - _NO_FAULT),
        bool(reasons & RETRIABLE),
    )


def withdrawn(source: CatalogueSource) -> Known:
    """What the index keeps of an item that was withdrawn."""
    return Known("", "", source.partition, source.offset, refused=False, retriable=False)


class _Asked:
    """Somebody waits until these partitions are read to where they end when they are looked at next."""

    def __init__(self, partitions: frozenset[int], done: Future[None]) -> None:
        self.partitions, self.done = partitions, done
        self.ends: dict[int, int] | None = None


class ContentIndex:
    """See the module's docstring. About 500 bytes an item.

    Parameters
    ----------
    kafka : KafkaSettings
    on_labelled : callable
        Given items that the catalogue had tags for, each version once, from the thread that reads.
    on_regressed : callable
        Given the catalogue's partition and offset of what should be published in place of an older record.
    on_failure : callable
        Given what ended the thread; must end the process.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        on_labelled: Callable[[Sequence[ItemContent]], None],
        on_regressed: Callable[[CatalogueSource], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._topic = topic_names(kafka.prefix).item_content
        self._places = [TopicPartition(self._topic, p, 0) for p in range(kafka.partitions)]
        self._config = {
            name: value for name, value in confluent_config(kafka).items() if name != "partitioner"
        } | {
            "group.id": f"{kafka.prefix}.content-index",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 16_384,
            "fetch.wait.max.ms": 100,
            "error_cb": _on_error,
            "log_level": 2,
        }
        self._on_labelled, self._on_regressed, self._on_failure = on_labelled, on_regressed, on_failure
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._expected: dict[str, Known] = {}
        self._positions = dict.fromkeys(range(kafka.partitions), 0)
        self._newest = dict.fromkeys(range(kafka.partitions), -1)
        self._asked: list[_Asked] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="content-index", daemon=True)
        self.n_refused = 0
        """Records that break their contract."""
        self.n_regressed = 0
        """Records older than what they came after."""

    def __len__(self) -> int:
        return len(self._known)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def known(self, item_id: str) -> Known | None:
        """What is published of an item."""
        with self._lock:
            return self._expected.get(item_id) or self._known.get(item_id)

    def expect(self, item_id: str, known: Known) -> None:
        """The broker has acknowledged this; what is read before it comes by is older."""
        with self._lock:
            if self._known.get(item_id) != known:  # else it has come by already
                self._expected[item_id] = known

    def newest(self, partition: int) -> int:
        """Highest offset of the catalogue's partition that anything was made of; -1 of nothing."""
        with self._lock:
            return self._newest[partition]

    def catch_up(self, partitions: frozenset[int]) -> Future[None]:
        """Done when everything is read that these partitions of the topic have now."""
        done: Future[None] = Future()
        with self._lock:
            self._asked.append(_Asked(partitions, done))
        return done

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        consumer = Consumer(self._config)
        try:
            consumer.assign(self._places)
            while not self._stop.is_set():
                self._read(consumer.consume(FETCHED, 0.05))
                self._answer(consumer)
        except BaseException as error:
            log.exception("content_index_died")
            self._on_failure(error)
        finally:
            consumer.close()

    def _read(self, messages: Sequence[Message]) -> None:
        labelled: list[ItemContent] = []
        for message in messages:
            partition, offset, error = message.partition(), message.offset(), message.error()
            if error is not None:
                if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
                    raise TopicError(
                        f"{self._topic} does not exist; create topics with `reelflow topics create`"
                    )
                if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - so the library names it
                    log.warning("content_index_read_failed", cause=str(error))
                    continue
                if partition is not None and offset is not None:
                    self._positions[partition] = max(self._positions[partition], offset)
                continue
            content = self._take(message)
            if content is not None and content.labels:
                labelled.append(content)
        if labelled:
            self._on_labelled(labelled)
        for message in messages:  # behind what was learned: caught up means that too
            partition, offset = message.partition(), message.offset()
            if message.error() is None and partition is not None and offset is not None:
                self._positions[partition] = offset + 1

    def _take(self, message: Message) -> ItemContent | None:
        """Note a record; its content if that is news."""
        key, value = message.key(), message.value()
        try:
            if value is None:
                content, item_id = None, (key or b"").decode()
                source = _source_of(message)
                known = None if source is None else withdrawn(source)
            else:
                content = decode_content(value, key)
                item_id, known = content.item_id, known_of(content)
        except (ContractError, UnicodeDecodeError) as error:
            self.n_refused += 1
            log.warning("content_record_refused", cause=str(error)[:200])
            return None
        regressed: Known | None = None
        with self._lock:
            if known is None:  # written by other hands
                self._known.pop(item_id, None)
                return None
            if 0 <= known.partition < len(self._newest):
                self._newest[known.partition] = max(self._newest[known.partition], known.offset)
            expected = self._expected.get(item_id)
            if expected == known:
                del self._expected[item_id]
            before = self._known.get(item_id)
            if before is not None and before.offset > known.offset and before.partition == known.partition:
                regressed = before
            else:
                self._known[item_id] = known
        if regressed is not None:
            self.n_regressed += 1
            log.warning("content_regressed", item_id=item_id, offset=regressed.offset)
            self._on_regressed(CatalogueSource(partition=regressed.partition, offset=regressed.offset))
            return None
        is_news = before is None or before[:2] != known[:2]
        return content if is_news else None

    def _answer(self, consumer: Consumer) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        for one in asked:
            if one.ends is None:
                try:
                    one.ends = {p: self._end(consumer, p) for p in one.partitions}
                except KafkaException as error:
                    log.warning("content_index_waits", cause=str(error))
        left = [one for one in asked if not one.done.cancelled() and not self._reaches(one)]
        for one in asked:
            if one not in left and one.done.set_running_or_notify_cancel():
                one.done.set_result(None)
        with self._lock:
            self._asked += left

    def _reaches(self, asked: _Asked) -> bool:
        return asked.ends is not None and all(self._positions[p] >= end for p, end in asked.ends.items())

    def _end(self, consumer: Consumer, partition: int) -> int:
        return consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=LOOK_S)[1]


def source_header(source: CatalogueSource) -> tuple[str, bytes]:
    """Header of a record that withdraws an item."""
    return (HEADER_SOURCE, f"{source.partition}/{source.offset}".encode())


def _source_of(message: Message) -> CatalogueSource | None:
    for name, value in dict(message.headers() or ()).items():
        if name == HEADER_SOURCE and isinstance(value, bytes):
            partition, _, offset = value.decode("utf-8", "replace").partition("/")
            if partition.isdecimal() and offset.isdecimal():
                return CatalogueSource(partition=int(partition), offset=int(offset))
    return None


def _on_error(error: KafkaError) -> None:
    log.warning("content_index_error", cause=str(error))
