"""Sends dead letters again: the original bytes under the original key to the original topic.

A letter and its receipt on the dead-letter topic go in one transaction, so after a crash there are both
or neither, and a letter is not sent twice by accident. The transactional id is the prefix's: a second
resend that starts ends the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaException, Producer
from msgspec import Struct

from schemas.checks import ERASURES, EVENTS, ITEMS, withdrawn_item_id
from schemas.deadletters import HEADER_RESENT, HEADER_RESENT_FROM, HEADER_TOPIC
from schemas.errors import ContractError, TopicError, UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import MAX_LETTER_BYTES
from serving.reader_scan import partition_of

from .context import confluent_config
from .dlq import DeadLetters, Identity, Letter, Selection

CHUNK: Final = 500
"""Letters a transaction."""

CHUNK_BYTES: Final = 4 * 1_048_576
_TIMEOUT_S: Final = 30.0
_CHECKS: Final[Mapping[str, Callable[[bytes | None, bytes | None], object]]] = {
    "behaviour": EVENTS.decode_keyed,
    "catalogue": ITEMS.decode_keyed,
    "erasure": ERASURES.decode_keyed,
}


class ResendReport(Struct, kw_only=True):
    """What became of the selected letters, by distinct identity."""

    selected: int = 0
    without_value: int = 0
    """Left out: nothing to send."""

    resent_before: int = 0
    """Left out unless asked for again."""

    broken: int = 0
    """Left out unless asked for: they would come back as dead letters."""

    sent: int = 0
    """Acknowledged by the broker; in a dry run those that would be sent."""

    by_reason: dict[str, int]
    """The same by the reason of the letter."""

    dry_run: bool


def verdict(letter: Letter) -> ContractError | None:
    """What the contract says of the letter's bytes and key today; None when they pass.

    Lateness, future skew and capacity depend on a worker's state and are not judged.
    """
    try:
        if letter.identity.input == "catalogue" and letter.value is None:
            withdrawn_item_id(letter.key)
        else:
            _CHECKS[letter.identity.input](letter.value, letter.key)
    except ContractError as error:
        return error
    return None


def chosen(
    letters: DeadLetters,
    selection: Selection,
    report: ResendReport,
    *,
    limit: int | None = None,
    again: bool = False,
    broken: bool = False,
    tell: Callable[[Letter, ContractError | None], None] | None = None,
) -> Iterator[Letter]:
    """The letters to send, each identity once; what is left out is counted in `report`.

    Parameters
    ----------
    limit : int or None
        Most letters to choose.
    again, broken : bool
        Whether to take letters that were sent before, or that break the contract today.
    tell : Callable
        Takes each letter that has a value and was not sent before, with its verdict.
    """
    resent = letters.resent()
    seen: set[Identity] = set()
    n_chosen = 0
    for letter in letters.letters():
        if letter.resent_ms is not None or letter.identity in seen or not selection.takes(letter):
            continue
        if n_chosen == limit:
            return
        seen.add(letter.identity)
        report.selected += 1
        if letter.value is None:
            report.without_value += 1
            continue
        if letter.identity in resent and not again:
            report.resent_before += 1
            continue
        error = verdict(letter)
        if tell is not None:
            tell(letter, error)
        if error is not None and not broken:
            report.broken += 1
            continue
        n_chosen += 1
        report.by_reason[letter.reason] = report.by_reason.get(letter.reason, 0) + 1
        yield letter


class Resender:
    """A transactional producer of letters and receipts.

    Raises
    ------
    UnavailableError
        The broker does not answer.
    """

    def __init__(self, kafka: KafkaSettings, *, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self._n_partitions: dict[str, int] = {}
        self._producer = Producer(
            confluent_config(kafka)
            | {
                "transactional.id": f"{kafka.prefix}.dlq-resend",
                "compression.type": "lz4",
                "message.max.bytes": MAX_LETTER_BYTES,
                "log_level": 2,
            }
        )
        try:
            self._producer.init_transactions(_TIMEOUT_S)
        except KafkaException as error:
            raise UnavailableError(f"no transactions at {kafka.bootstrap}: {error.args[0].str()}") from None

    def send(self, letters: Iterable[Letter]) -> Iterator[int]:
        """Send in transactions; yields the number of letters of each once it is committed.

        Raises
        ------
        TopicError
            A transaction failed: nothing of it was sent. Those before it were.
        """
        chunk: list[Letter] = []
        n_bytes = 0
        for letter in letters:
            chunk.append(letter)
            n_bytes += len(letter.value or b"")
            if len(chunk) >= CHUNK or n_bytes >= CHUNK_BYTES:
                yield self._committed(chunk)
                chunk, n_bytes = [], 0
        if chunk:
            yield self._committed(chunk)

    def _committed(self, letters: list[Letter]) -> int:
        try:
            self._producer.begin_transaction()
            for letter in letters:
                self._produce(letter)
            self._producer.commit_transaction(_TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            self._abort()
            raise TopicError(
                f"a transaction of {len(letters)} letters failed, none was sent: {error}"
            ) from None
        return len(letters)

    def _produce(self, letter: Letter) -> None:
        topic, identity = letter.headers[HEADER_TOPIC], letter.identity
        n = self._partitions(topic)
        partition = identity.partition % n if letter.key is None else partition_of(letter.key, n)
        origin = f"{topic}/{identity.partition}/{identity.offset}"
        self._producer.produce(
            topic, letter.value, letter.key, partition, headers=[(HEADER_RESENT_FROM, origin.encode())]
        )
        receipt = letter.headers | {HEADER_RESENT: str(int(self._now_s() * 1000))}
        self._producer.produce(
            f"{topic}.dlq",
            None,
            letter.key,
            identity.partition,
            headers=[(name, value.encode()) for name, value in receipt.items()],
        )

    def _partitions(self, topic: str) -> int:
        if topic not in self._n_partitions:
            found = self._producer.list_topics(topic, _TIMEOUT_S).topics[topic].partitions
            if not found:
                raise TopicError(f"topic {topic} does not exist")
            self._n_partitions[topic] = len(found)
        return self._n_partitions[topic]

    def _abort(self) -> None:
        with suppress(KafkaException):  # fenced or fatal: the broker drops what was open
            self._producer.abort_transaction(_TIMEOUT_S)
