"""Static members on the real broker: a successor flows at once, and who was replaced ends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from streams.transport_link import InstanceTakenError
from tests.transport_rig import LIMIT_S, Cluster, Reader, make_app, running, start_child, until

pytestmark = pytest.mark.integration

SESSION_S = 30.0
"""As in transport_child.py."""


class Member:
    """A child process that reads a topic as a static member."""

    def __init__(self, cluster: Cluster, topic: str, group: str) -> None:
        self.started = time.monotonic()
        self.process = start_child("none", cluster.bootstrap, topic, group, "only")

    def wait_for_run(self) -> float:
        """Seconds from its start until it reads."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith("run "):
                return time.monotonic() - self.started
        raise AssertionError(self.process.communicate()[1])


@contextmanager
def member(cluster: Cluster, topic: str, group: str) -> Iterator[Member]:
    one = Member(cluster, topic, group)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def test_after_a_kill_the_successor_flows_without_waiting_for_the_session(cluster: Cluster) -> None:
    topic, group = cluster.topic(4), uuid4().hex
    cluster.fill(topic, 3, 2)
    with member(cluster, topic, group) as first:
        first.wait_for_run()
        first.process.kill()
        first.process.wait()
    with member(cluster, topic, group) as second:
        elapsed = second.wait_for_run()
    # 2.5 s on a quiet machine with two cores, most of it imports
    assert elapsed < SESSION_S / 3


def test_a_stopped_process_that_was_replaced_ends_when_it_goes_on(cluster: Cluster) -> None:
    topic, group = cluster.topic(), uuid4().hex
    cluster.fill(topic, 3)
    with member(cluster, topic, group) as zombie:
        zombie.wait_for_run()
        zombie.process.send_signal(signal.SIGSTOP)
        with member(cluster, topic, group) as successor:
            successor.wait_for_run()
            zombie.process.send_signal(signal.SIGCONT)
            _, err = zombie.process.communicate(timeout=LIMIT_S)
            assert zombie.process.returncode == 1
            assert "another process joined the consumer group as 'only'" in err
            assert successor.process.poll() is None
            cluster.fill(topic, 1, first=3)
            successor.wait_for_run()


def test_the_first_of_two_with_one_name_ends_and_the_second_keeps_it(cluster: Cluster) -> None:
    topic, group = cluster.topic(4), uuid4().hex

    async def main() -> None:
        apps = [
            make_app(
                cluster.bootstrap, group, consumer_group_instance_id="only", broker_heartbeat_interval=0.2
            )
            for _ in range(2)
        ]
        first, second = (Reader(app, topic) for app in apps)
        async with running(apps[0]):
            await until(lambda: first.starts)
            async with running(apps[1]):
                await until(lambda: apps[0].crashed, "the first one ends")
                assert isinstance(apps[0].crash_reason, InstanceTakenError)
                await until(lambda: second.starts)
                cluster.fill(topic, 5)
                await until(lambda: len(second.values) == 5)
                assert not apps[1].crashed

    asyncio.run(main())


def test_a_member_that_the_group_forgot_joins_again(cluster: Cluster) -> None:
    """Its session was over (an outage, a long stop) and nobody took its place."""
    topic, group = cluster.topic(), uuid4().hex

    async def main() -> None:
        app = make_app(
            cluster.bootstrap, group, consumer_group_instance_id="only", broker_heartbeat_interval=0.2
        )
        reader = Reader(app, topic)
        async with running(app):
            await until(lambda: reader.starts)
            await asyncio.to_thread(cluster.remove_member, group, "only")
            await until(lambda: len(reader.starts) == 2, "assigned again")
            cluster.fill(topic, 5)
            await until(lambda: len(reader.values) == 5)
            assert not app.crashed

    asyncio.run(main())
