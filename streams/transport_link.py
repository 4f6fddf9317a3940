"""What passes between the consumer and its brokers: who answered last, and whether we are still us.

aiokafka joins with a static member's name but knows nothing of the rest of static membership. A
process that was stopped while another took its name gets "unknown member", joins again as a
stranger, and takes the name back: the two would steal it from each other for ever. This link joins
with the last id that the member had instead, so the coordinator can tell the two apart, and ends
the one that was replaced.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError, UnknownMemberIdError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest

from schemas.errors import ReelflowError

FENCED_INSTANCE_ID: Final = 82
"""Kafka's error code; aiokafka has no class for it."""


class InstanceTakenError(ReelflowError):
    """Another process has joined the consumer group under this one's static name.

    Operator action: none when that process was started to replace this one; otherwise give each
    process its own instance id (worker.instance_id).
    """


class Link:
    """Sends a client's requests, and learns from the answers; lives on the consumer's thread.

    Parameters
    ----------
    client : aiokafka.client.AIOKafkaClient
        Its `send` is replaced by this one's.
    instance_id : str or None
        The static member's name.
    on_taken : Callable[[InstanceTakenError], None]
        Called once when another process has it; must end this one.
    on_fetched : Callable[[request, answer], None]
        Called with every answer to a fetch request.

    Attributes
    ----------
    taken : InstanceTakenError or None
        What `on_taken` was called with.
    """

    def __init__(
        self,
        client: Any,
        *,
        instance_id: str | None,
        on_taken: Callable[[InstanceTakenError], None],
        on_fetched: Callable[[Any, Any], None],
    ) -> None:
        self._send = client.send
        self._instance_id = instance_id
        self._on_taken = on_taken
        self._on_fetched = on_fetched
        self._member_id = ""
        self.taken: InstanceTakenError | None = None
        self._answered = monotonic()
        client.send = self.send

    def silent_s(self) -> float:
        """Seconds since any broker answered anything; from any thread."""
        return monotonic() - self._answered

    async def send(
        self, node_id: Any, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT
    ) -> Any:
        """Send `request` and return the answer, as aiokafka's client does."""
        is_static_join = self._instance_id is not None and isinstance(request, JoinGroupRequest)
        if is_static_join:
            if self.taken is not None:
                raise KafkaError(str(self.taken))
            if self._member_id and not request._member_id:  # noqa: SLF001 - it has no other way to say who joins
                request = copy.copy(request)
                request._member_id = self._member_id  # noqa: SLF001
        answer = await self._send(node_id, request, group=group)
        self._answered = monotonic()
        if isinstance(request, FetchRequest):
            self._on_fetched(request, answer)
        if self._instance_id is not None and isinstance(request, JoinGroupRequest | SyncGroupRequest):
            if is_static_join:
                self._remember(answer)
            if answer.error_code == FENCED_INSTANCE_ID and self.taken is None:
                self.taken = InstanceTakenError(
                    f"another process joined the consumer group as {self._instance_id!r}; this one ends"
                )
                self._on_taken(self.taken)
        return answer

    def _remember(self, answer: Any) -> None:
        if answer.error_code == 0:
            self._member_id = answer.member_id
        elif answer.error_code == UnknownMemberIdError.errno:
            self._member_id = ""  # nobody has the name: it may be claimed anew
