"""Server-sent events: bounded in number and in what each holds, gone when the client is.

A stream owns a mailbox. Whatever ends it (the client left, the gateway stops) closes the
mailbox, so that there is one thing to wait for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .gateway_http import answer
from .gateway_metrics import GatewayMetrics
from .gateway_models import ErrorBody

HEARTBEAT_S: Final = 15.0
_KEPT: Final = 16
_HEARTBEAT: Final = b": still here\n\n"


def sse(event: str, value: Any) -> bytes:
    r"""One server-sent event with JSON data.

    >>> sse("stats", {"events_per_s": 3})
    b'event: stats\ndata: {"events_per_s":3}\n\n'
    """
    return b"event: " + event.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"


class Mailbox:
    """Messages for one client; a slow client loses the oldest. For the event loop's thread only."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._messages: deque[bytes] = deque(maxlen=kept)
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, message: bytes) -> None:
        """Add a message; after `close` it is ignored."""
        if not self._closed:
            self._messages.append(message)
            self._changed.set()

    def close(self) -> None:
        """End the stream; what waits is not sent."""
        self._closed = True
        self._changed.set()

    async def take(self, timeout_s: float) -> bytes | None:
        """All waiting messages, a heartbeat when none came in time, None at the end."""
        if not self._messages and not self._closed:
            try:
                await asyncio.wait_for(self._changed.wait(), timeout_s)
            except TimeoutError:
                return _HEARTBEAT
        self._changed.clear()
        if self._closed:
            return None
        taken = b"".join(self._messages)
        self._messages.clear()
        return taken


Source = Callable[[Mailbox], AbstractContextManager[None]]


class Streams:
    """All open streams of one gateway, at most `maximum`."""

    def __init__(self, maximum: int, metrics: GatewayMetrics, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._maximum = maximum
        self._metrics = metrics
        self._open: set[Mailbox] = set()
        self._stopping = False
        self.heartbeat_s = heartbeat_s

    def __len__(self) -> int:
        return len(self._open)

    def enter(self) -> Mailbox | None:
        """A mailbox for a new stream, or None when there is no room or the gateway stops."""
        if self._stopping or len(self._open) >= self._maximum:
            self._metrics.streams_refused.inc()
            return None
        mailbox = Mailbox()
        self._open.add(mailbox)
        self._metrics.streams.set(len(self._open))
        return mailbox

    def leave(self, mailbox: Mailbox) -> None:
        """Give the place back."""
        mailbox.close()
        self._open.discard(mailbox)
        self._metrics.streams.set(len(self._open))

    def stop(self) -> None:
        """End every stream and take no new ones."""
        self._stopping = True
        for mailbox in tuple(self._open):
            mailbox.close()

    @property
    def refusal(self) -> ErrorBody:
        """Why there is no room."""
        return ErrorBody(
            error="the gateway is stopping"
            if self._stopping
            else f"{self._maximum} event streams are open, which is the most this gateway keeps"
        )


class EventStream(Response):
    """Sends what `source` puts into its mailbox until either side ends it.

    `source` is entered when there is a place, and left whatever ends the stream.
    """

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, source: Source) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stream."""
        mailbox = self._streams.enter()
        if mailbox is None:
            await answer(self._streams.refusal, 503)(scope, receive, send)
            return
        gone = asyncio.create_task(_close_when_gone(receive, mailbox))
        try:
            with self._source(mailbox):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
                while (chunk := await mailbox.take(self._streams.heartbeat_s)) is not None:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            self._streams.leave(mailbox)


async def _close_when_gone(receive: Receive, mailbox: Mailbox) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    mailbox.close()
