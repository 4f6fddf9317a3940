"""A process around one agent, for the transport's tests; it breaks in the way its first argument says.

Arguments: mode, bootstrap, topic, and optionally consumer group and static member's name.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any
from uuid import uuid4

from faust.types import TP
from mode import Service

from schemas.errors import ReelflowError, StateError
from schemas.settings import KafkaSettings, Settings, WorkerSettings
from streams.batch_topic import BatchOptions, batch_topic
from streams.faust_app import build_app, run_app
from streams.transport import commit
from streams.transport_taking import RunTaker

SESSION_S = 30.0
"""Longer than any test waits: nothing may depend on its end."""


def broken_fetch(*_: Any) -> None:
    """Stands for the driver's own."""
    raise RuntimeError("the fetch broke")


def broken_claim(_: frozenset[TP]) -> None:
    """Stands for a callback."""
    raise LookupError("the claim broke")


def main(mode: str, bootstrap: str, topic: str, group: str = "", instance_id: str | None = None) -> None:
    settings = Settings(
        kafka=KafkaSettings(bootstrap=bootstrap),
        worker=WorkerSettings(group_id=group or uuid4().hex, instance_id=instance_id),
    )
    app = build_app(settings, broker_session_timeout=SESSION_S)
    seen = asyncio.Event()

    class Learner(Service):
        async def on_start(self) -> None:
            print("service started", flush=True)

        async def on_stop(self) -> None:
            print("service stopped", flush=True)

        @Service.task
        async def work(self) -> None:
            await seen.wait()
            if mode == "service":
                raise StateError("the service broke")
            if mode == "thread":
                threading.Thread(target=app.crash_from_thread, args=(ValueError("the thread broke"),)).start()

    async def read(stream: Any) -> None:
        async for run in stream:
            print("run", len(run), flush=True)
            seen.set()
            if mode == "agent":
                raise KeyError("the agent broke")

    async def before_shutdown(*_: Any, **__: Any) -> None:
        if not app.crashed:
            print("before shutdown, committed:", await commit(app, {TP(topic, 0): 3}), flush=True)

    if mode == "fetch":
        setattr(RunTaker, "take", broken_fetch)  # noqa: B010 - a method that mypy guards
    app.add_service(Learner())
    position = (lambda _tp: 1000) if mode == "position" else None
    options = BatchOptions(
        max_records=1 if mode == "agent" else 3,
        position=position,
        on_claim=broken_claim if mode == "claim" else None,
    )
    app.agent(batch_topic(app, topic, options))(read)
    app.on_before_shutdown.connect(before_shutdown, weak=False)
    try:
        run_app(app)
    except ReelflowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
