"""Event streams: bounded in number and in memory, gone with their client or with the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from starlette.types import Message

from serving.gateway_metrics import GatewayMetrics
from serving.gateway_streams import EventStream, Mailbox, Streams


class Client:
    """The other end of an ASGI response, as a server presents it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.changed = asyncio.Event()
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.changed.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(5):
            while text not in self.body:
                self.changed.clear()
                await self.changed.wait()


class Source:
    """Remembers its mailbox, and that it was left."""

    def __init__(self) -> None:
        self.mailbox: Mailbox | None = None
        self.n_left = 0

    @contextmanager
    def __call__(self, mailbox: Mailbox) -> Iterator[None]:
        self.mailbox = mailbox
        try:
            yield
        finally:
            self.n_left += 1


def open_stream(streams: Streams, source: Source, client: Client) -> asyncio.Task[None]:
    return asyncio.create_task(EventStream(streams, source)({"type": "http"}, client.receive, client.send))


def test_messages_arrive_in_order_and_the_client_may_leave() -> None:
    async def run() -> None:
        streams, source, client = Streams(2, GatewayMetrics()), Source(), Client()
        task = open_stream(streams, source, client)
        await client.until(b": open\n\n")
        assert dict(client.sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
        assert source.mailbox is not None
        source.mailbox.put(b"one;")
        source.mailbox.put(b"two;")
        await client.until(b"one;two;")
        assert len(streams) == 1
        client.left.set()
        await asyncio.wait_for(task, 5)
        assert (len(streams), source.n_left) == (0, 1)

    asyncio.run(run())


def test_a_quiet_stream_sends_heartbeats() -> None:
    async def run() -> None:
        streams, client = Streams(1, GatewayMetrics(), heartbeat_s=0.01), Client()
        task = open_stream(streams, Source(), client)
        await client.until(b": still here\n\n: still here\n\n")
        streams.stop()
        await asyncio.wait_for(task, 5)

    asyncio.run(run())


def test_one_stream_too_many_is_refused_until_another_ends() -> None:
    async def run() -> None:
        streams = Streams(1, GatewayMetrics())
        first, refused, later = Client(), Client(), Client()
        task = open_stream(streams, Source(), first)
        await first.until(b": open")
        source = Source()
        await open_stream(streams, source, refused)
        assert refused.sent[0]["status"] == 503
        assert b"1 event streams are open" in refused.body
        assert source.n_left == 0
        first.left.set()
        await task
        again = open_stream(streams, Source(), later)
        await later.until(b": open")
        later.left.set()
        await again

    asyncio.run(run())


def test_a_stopping_gateway_ends_every_stream_and_takes_none() -> None:
    async def run() -> None:
        streams = Streams(9, GatewayMetrics())
        clients = [Client() for _ in range(3)]
        tasks = [open_stream(streams, Source(), client) for client in clients]
        for client in clients:
            await client.until(b": open")
        streams.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert [client.sent[-1]["more_body"] for client in clients] == [False] * 3
        late = Client()
        await open_stream(streams, Source(), late)
        assert b"the gateway is stopping" in late.body

    asyncio.run(run())


def test_a_source_that_fails_gives_its_place_back() -> None:
    @contextmanager
    def broken(_: Mailbox) -> Iterator[None]:
        raise RuntimeError("no source")
        yield

    async def run() -> None:
        streams, client = Streams(1, GatewayMetrics()), Client()
        with suppress(RuntimeError):
            await EventStream(streams, broken)({"type": "http"}, client.receive, client.send)
        assert len(streams) == 0

    asyncio.run(run())


def test_a_slow_client_loses_the_oldest_messages() -> None:
    async def run() -> None:
        mailbox = Mailbox(kept=2)
        for message in (b"a", b"b", b"c"):
            mailbox.put(message)
        assert await mailbox.take(1) == b"bc"
        mailbox.close()
        mailbox.put(b"d")
        assert await mailbox.take(1) is None

    asyncio.run(run())
