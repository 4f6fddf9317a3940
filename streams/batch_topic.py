"""Batch topics: Faust topics whose messages are whole fetched runs of a partition.

An agent on a `batch_topic` gets a `RecordRun` as its stream value (and as
``event.message.value``): its schema hands the value through, no codec touches it. The topic
carries its own options and callbacks, so the driver needs no registry beside Faust's conductor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import faust
from faust.types import TP, AppT, EventT, Message
from mode.utils.queues import FlowControlEvent, ThrowableQueue
from msgspec import Struct


class PartitionStart(Struct, frozen=True, kw_only=True):
    """Where reading of an assigned partition starts; every offset is *next to read*.

    `end` is the log's end when the partition was assigned (its last stable offset), so a reader
    has caught up as soon as a run's `next_offset` is at or past it. `lost` counts the offsets
    between the wanted position and the first one the log still holds.
    """

    start: int
    committed: int | None
    end: int
    lost: int = 0

    @property
    def caught_up(self) -> bool:
        """Whether there was nothing to read at assignment."""
        return self.start >= self.end


class BatchOptions(Struct, frozen=True, kw_only=True):
    """How a batch topic is read. Callbacks run on the app's event loop; their errors end the app.

    Attributes
    ----------
    max_records : int
        Most records in one run.
    max_bytes : int
        Most bytes of keys and values in one run, but for one record.
    max_wait_s : float
        Longest that fetched records rest so that small runs grow; see `streams.transport_pace`.
    buffer_runs : int
        Most runs waiting in front of the agent, over all partitions; the rest stays in the broker.
    position : callable, optional
        TP -> offset to read next, None for the beginning of the log. Without it (and without
        `load`) reading starts at the committed offset, or at the beginning.
    load : callable, optional
        Instead of `position`: awaited in the background with newly assigned partitions, returns the
        position of each. They are held out until then, while all others flow. A rebalance cancels
        it and waits until it has ended, so it must end promptly when cancelled.
    on_claim : callable, optional
        Called inside the rebalance, before anything else learns of it: must return in milliseconds.
    on_assigned : callable, optional
        Awaited after the positions are set and before the first record is delivered; the partitions
        given to it wait, others flow.
    on_revoked : callable, optional
        Awaited inside the rebalance, after the buffers were dropped: must be short.
    on_lost : callable, optional
        TP and number of offsets that retention deleted before they were read; must not raise.
    """

    max_records: int = 16_384
    max_bytes: int = 2 << 20
    max_wait_s: float = 0.03
    buffer_runs: int = 8
    position: Callable[[TP], int | None] | None = None
    load: Callable[[frozenset[TP]], Awaitable[Mapping[TP, int | None]]] | None = None
    on_claim: Callable[[frozenset[TP]], None] | None = None
    on_assigned: Callable[[Mapping[TP, PartitionStart]], Awaitable[None]] | None = None
    on_revoked: Callable[[frozenset[TP]], Awaitable[None]] | None = None
    on_lost: Callable[[TP, int], None] | None = None

    def __post_init__(self) -> None:
        if self.position is not None and self.load is not None:
            raise ValueError("a batch topic has either position or load")


class RunQueue(ThrowableQueue[EventT[Any]]):
    """An agent's buffer that tells the driver when a place has become free.

    The driver delivers at most `room` runs, so putting never waits and never holds up the
    delivery of other topics. The driver empties it at a rebalance. Faust's flow control does not:
    it also clears when flow resumes, which a rebalance that overtakes the one before it does twice,
    and the second time there may be runs that nobody would read again.
    """

    def __init__(self, limit: int, *, flow_control: FlowControlEvent, on_room: Callable[[], None]) -> None:
        super().__init__(maxsize=limit + 1, flow_control=flow_control, clear_on_resume=False)
        self._limit = limit
        self._on_room = on_room

    @property
    def room(self) -> int:
        """Free places; only shrinks by the driver's own deliveries, so any thread may ask."""
        return self._limit - self.qsize()

    def _get(self) -> EventT[Any]:
        was_full = self.room <= 0
        event: EventT[Any] = super()._get()
        if was_full:
            self._on_room()
        return event


class RunSchema(faust.Schema):  # type: ignore[type-arg]
    """Hands key and value through; a run was never bytes."""

    def compile(self, app: AppT, **_: Any) -> Callable[..., Awaitable[EventT[Any]]]:
        """Return the function with which the conductor turns a message into an event."""
        create_event = app.create_event

        async def decode(message: Message, **_: Any) -> EventT[Any]:
            return create_event(None, message.value, {}, message)

        return decode


class BatchTopic(faust.Topic):
    """A topic delivered in runs; make it with `batch_topic`."""

    def __init__(self, app: AppT, *, options: BatchOptions, **kwargs: Any) -> None:
        self.options = options
        super().__init__(app, **kwargs)

    @property
    def queue(self) -> RunQueue:
        """Buffer in front of the agent."""
        if not isinstance(self._queue, RunQueue):
            self._queue = RunQueue(
                self.options.buffer_runs, flow_control=self.app.flow_control, on_room=self._wake_consumer
            )
        return self._queue

    def _wake_consumer(self) -> None:
        wake: Callable[[], None] = getattr(self.app.consumer, "wake")  # noqa: B009 - the interface lacks it
        wake()

    def _clone_args(self) -> Mapping[str, Any]:
        return {**super()._clone_args(), "options": self.options}


def batch_topic(app: AppT, name: str, options: BatchOptions | None = None) -> BatchTopic:
    """Topic `name`, read in runs by one agent of `app`.

    Faust itself never commits its offsets (``acks=False``): see `streams.transport.commit`.

    ::

        behaviour = batch_topic(app, names.behaviour, BatchOptions(position=state.position_of))

        @app.agent(behaviour)
        async def learn(stream):
            async for run in stream:      # a schemas.runs.RecordRun
                await thread.submit(run)

    The app's broker address must have the scheme ``reelflow://``.
    """
    return BatchTopic(
        app, options=options or BatchOptions(), topics=[name], schema=RunSchema(), acks=False, internal=False
    )
