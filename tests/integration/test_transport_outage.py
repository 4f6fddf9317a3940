"""The broker goes away and comes back under a running consumer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from streams.broker import LocalBroker
from streams.demo import free_port
from streams.transport import Consumer
from tests.transport_rig import Cluster, Reader, make_app, running, until

pytestmark = pytest.mark.integration

HEARTBEAT_S = 2.0


def test_a_broker_that_stops_is_noticed_and_reading_goes_on_when_it_is_back(tmp_path: Path) -> None:
    async def main(broker: LocalBroker) -> None:
        cluster = Cluster(broker.bootstrap)
        topic = cluster.topic(4)
        app = make_app(cluster.bootstrap)
        reader = Reader(app, topic)
        async with running(app):
            consumer = app.consumer
            assert isinstance(consumer, Consumer)
            cluster.fill(topic, 5)
            await until(lambda: len(reader.values) == 5)
            until_s = time.monotonic() + 2 * HEARTBEAT_S
            silent = []
            while time.monotonic() < until_s:
                silent.append(consumer.broker_silent_s())
                await asyncio.sleep(0.05)
            assert max(silent) < 1.0, "an idle topic is not silent"
            await asyncio.to_thread(broker.stop)
            await until(lambda: consumer.broker_silent_s() > 2 * HEARTBEAT_S, "silence")
            broker.start()  # from this thread: it ends with the thread that started it
            back = time.monotonic()
            cluster.fill(topic, 5, first=5)
            await until(lambda: len(reader.values) == 10, "flowing again")
            # at once on a quiet machine with two cores
            assert time.monotonic() - back < 20.0
            assert consumer.broker_silent_s() < 1.0
            assert not app.crashed

    with LocalBroker(tmp_path, port=free_port()) as broker:
        asyncio.run(main(broker))
