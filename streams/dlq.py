"""Dead letters as `reelflow dlq` sees them: read from their topics, selected, counted by identity."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from msgspec import Struct

from schemas.deadletters import (
    HEADER_OFFSET,
    HEADER_PARTITION,
    HEADER_REASON,
    HEADER_RESENT,
    HEADER_TOPIC,
    REASONS,
)
from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from serving.reader_connect import open_consumer

from .context import kafka_python_config

if TYPE_CHECKING:
    from kafka import ConsumerRecord

INPUTS: Final = ("behaviour", "catalogue", "erasure")
"""Topics with dead letters, by the word that stands for them here."""

HOUR_MS: Final = 3_600_000
POLL_MS: Final = 250


class Identity(Struct, frozen=True, order=True):
    """Where the original of a letter is: the input, its partition, its offset."""

    input: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.input}/{self.partition}/{self.offset}"


def identity_of(text: str) -> Identity:
    """The inverse of ``str(identity)``.

    Raises
    ------
    ValueError
        The text is no identity.

    >>> identity_of("behaviour/3/18735").offset
    18735
    """
    name, *numbers = text.split("/")
    if name not in INPUTS or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{text!r} is not like behaviour/3/18735: an input, a partition, an offset")
    return Identity(name, int(numbers[0]), int(numbers[1]))


class Letter(Struct, frozen=True):
    """One record of a dead-letter topic."""

    identity: Identity
    reason: str
    written_ms: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]
    resent_ms: int | None
    """Of a receipt: when the letter was sent again; None for a letter."""


def letter_of(record: ConsumerRecord, name: str) -> Letter | None:
    """The letter that `record` of the input `name` is; None for something else."""
    headers = {key: value.decode("utf-8", "replace") for key, value in record.headers}
    partition, offset = headers.get(HEADER_PARTITION, ""), headers.get(HEADER_OFFSET, "")
    resent = headers.get(HEADER_RESENT, "")
    is_ours = f"{headers.get(HEADER_TOPIC)}.dlq" == record.topic and headers.get(HEADER_REASON) in REASONS
    if not is_ours or not partition.isdecimal() or not offset.isdecimal():
        return None
    return Letter(
        identity=Identity(name, int(partition), int(offset)),
        reason=headers[HEADER_REASON],
        written_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=headers,
        resent_ms=int(resent) if resent.isdecimal() else None,
    )


class Selection(Struct, frozen=True, kw_only=True):
    """Which letters; what is None or empty selects all. Offsets are those of the originals."""

    reasons: tuple[str, ...] = ()
    partition: int | None = None
    offset: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    """Times are when the letter was written; `until_ms` is the first one left out."""

    def takes(self, letter: Letter) -> bool:
        """Whether `letter` is selected."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and self.partition in {None, letter.identity.partition}
            and self.offset in {None, letter.identity.offset}
            and (self.since_ms is None or letter.written_ms >= self.since_ms)
            and (self.until_ms is None or letter.written_ms < self.until_ms)
        )


class DeadLetters:
    """The dead-letter topics of some inputs as they stood when this was opened; a context manager.

    Parameters
    ----------
    kafka : KafkaSettings
    inputs : Sequence[str]
        Some of `INPUTS`.
    timeout_s : float
        Longest wait for the next records.

    Raises
    ------
    UnavailableError
        The broker does not answer, or a topic does not exist.
    """

    def __init__(
        self, kafka: KafkaSettings, inputs: Sequence[str] = INPUTS, *, timeout_s: float = 30.0
    ) -> None:
        names = topic_names(kafka.prefix)
        self.topics = {name: str(getattr(names, name)) for name in inputs}
        """The input topic behind each word."""
        self._names = {f"{topic}.dlq": name for name, topic in self.topics.items()}
        self._timeout_s = timeout_s
        self._bootstrap = kafka.bootstrap
        try:
            self._consumer = open_consumer(kafka_python_config(kafka))
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"cannot read from {kafka.bootstrap}: {error}") from None
        try:
            self._ends = self._found_ends()
        except BaseException:
            self._consumer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def letters(self) -> Iterator[Letter]:
        """Every letter and receipt, in order within a partition; may be called again.

        Raises
        ------
        UnavailableError
            Nothing came for `timeout_s` before the end.
        """
        consumer = self._consumer
        consumer.assign(list(self._ends))
        consumer.seek_to_beginning(*self._ends)
        waiting = dict(self._ends)
        deadline = time.monotonic() + self._timeout_s
        while waiting := {place: end for place, end in waiting.items() if self._position(place) < end}:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"no dead letters came from {self._bootstrap} in {self._timeout_s:g} s"
                )
            for place, records in _polled(consumer).items():
                deadline = time.monotonic() + self._timeout_s
                for record in records:
                    if record.offset < self._ends[place]:
                        letter = letter_of(record, self._names[place.topic])
                        if letter is not None:
                            yield letter

    def resent(self) -> set[Identity]:
        """Identities that have a receipt. Cost: one pass over the topics."""
        return {letter.identity for letter in self.letters() if letter.resent_ms is not None}

    def _position(self, place: TopicPartition) -> int:
        try:
            return self._consumer.position(place)
        except KafkaError as error:
            raise UnavailableError(f"cannot read {place.topic}: {error}") from None

    def _found_ends(self) -> dict[TopicPartition, int]:
        try:
            places = []
            for topic in self._names:
                numbers = self._consumer.partitions_for_topic(topic)
                if not numbers:
                    raise UnavailableError(f"topic {topic} does not exist")
                places += [TopicPartition(topic, number) for number in sorted(numbers)]
            self._consumer.assign(places)
            return dict(self._consumer.end_offsets(places))
        except KafkaError as error:
            raise UnavailableError(f"cannot read from {self._bootstrap}: {error}") from None


class Group(Struct, kw_only=True):
    """Letters of one input and reason (and hour), counted by distinct identity."""

    input: str
    reason: str
    hour_ms: int | None
    letters: int = 0
    records: int = 0
    """Records on the topic: a letter may have been written twice."""

    resent: int = 0
    without_value: int = 0
    first_ms: int = 0
    last_ms: int = 0


def grouped(letters: Iterable[Letter], selection: Selection, *, hourly: bool = False) -> list[Group]:
    """Groups in order of input, reason and hour. A letter counts in the hour it was first written."""
    groups: dict[tuple[str, str, int], Group] = {}
    group_of: dict[Identity, Group] = {}
    resent: set[Identity] = set()
    for letter in letters:
        if letter.resent_ms is not None:
            resent.add(letter.identity)
            continue
        if not selection.takes(letter):
            continue
        group = group_of.get(letter.identity)
        if group is None:
            hour_ms = letter.written_ms // HOUR_MS * HOUR_MS if hourly else None
            place = (letter.identity.input, letter.reason, hour_ms or 0)
            group = groups.setdefault(
                place, Group(input=place[0], reason=place[1], hour_ms=hour_ms, first_ms=letter.written_ms)
            )
            group_of[letter.identity] = group
            group.letters += 1
            group.without_value += letter.value is None
        group.records += 1
        group.first_ms = min(group.first_ms, letter.written_ms)
        group.last_ms = max(group.last_ms, letter.written_ms)
    for identity in resent & group_of.keys():
        group_of[identity].resent += 1
    return [groups[place] for place in sorted(groups)]


def _polled(consumer: KafkaConsumer) -> dict[Any, list[ConsumerRecord]]:
    try:
        return consumer.poll(timeout_ms=POLL_MS)
    except KafkaError as error:
        raise UnavailableError(f"cannot read dead letters: {error}") from None
