"""Items by their content for the gateway: item-content followed into memory, and an encoder of queries."""

from __future__ import annotations

import threading
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.content import decode_content
from schemas.errors import ConfigurationError, ContractError
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.content_shelf import ContentShelf

from ..context import confluent_config
from .encoders import load_slot

log = structlog.get_logger(__name__)

FETCHED: Final = 500
CLOSE_S: Final = 10.0
AGAIN_S: Final = 1.0


class ContentFinder:
    """Answers by content, as `serving.gateway_state.Finder`; from any thread.

    Raises
    ------
    ExtraError
        The packages of the extra ``content`` are not installed.
    ConfigurationError
        Queries cannot be encoded: content.text_encoder is not a model here.
    """

    def __init__(self, settings: Settings) -> None:
        self._encoder = load_slot("text", settings.content)
        if not self._encoder.encodes:
            raise ConfigurationError(
                "gateway.search", "needs content.text_encoder to be a model on this machine"
            )
        self.shelf = ContentShelf()
        self._topic = topic_names(settings.kafka.prefix).item_content
        self._places = [TopicPartition(self._topic, p, 0) for p in range(settings.kafka.partitions)]
        self._config = {
            name: value for name, value in confluent_config(settings.kafka).items() if name != "partitioner"
        } | {
            "group.id": f"{settings.kafka.prefix}.content-finder",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 16_384,
            "fetch.wait.max.ms": 100,
            "log_level": 2,
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="content-finder", daemon=True)

    def start(self) -> None:
        """Begin to read the topic."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def similar(self, item_id: str, limit: int) -> list[tuple[str, float]] | None:
        """Items near an item; None for one that is not known."""
        return self.shelf.similar(item_id, limit)

    def search(self, query: str, limit: int) -> list[tuple[str, float]]:
        """Items whose titles are near a query, in any of the encoder's languages."""
        (vector,) = self._encoder.encode([query])
        if vector is None:
            return []
        return self.shelf.search(vector, self._encoder.name, self._encoder.version, limit)

    def _run(self) -> None:
        """Follow the topic; a gateway goes on without it, so nothing ends the process from here."""
        consumer = Consumer(self._config)
        try:
            consumer.assign(self._places)
            while not self._stop.is_set():
                for message in consumer.consume(FETCHED, 0.05):
                    self._take(message)
        finally:
            consumer.close()

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - so the library names it
                log.warning("content_finder_read_failed", cause=str(error))
                self._stop.wait(AGAIN_S)
            return
        key, value = message.key(), message.value()
        try:
            if value is None:
                self.shelf.drop((key or b"").decode())
            else:
                self.shelf.put(decode_content(value, key))
        except (ContractError, UnicodeDecodeError) as refused:
            log.warning("content_record_refused", cause=str(refused)[:200])
