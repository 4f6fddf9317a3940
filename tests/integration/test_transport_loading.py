"""Partitions that are held out while their state loads, on the real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from uuid import uuid4

import pytest
from faust.types import TP

from streams.batch_topic import BatchOptions
from tests.transport_rig import Cluster, Reader, make_app, running, until

pytestmark = pytest.mark.integration


class Loads:
    """A loader that answers when told to."""

    def __init__(self, positions: Mapping[TP, int | None] | None = None) -> None:
        self.positions = positions or {}
        self.begun: list[frozenset[TP]] = []
        self.cancelled = 0
        self.go = asyncio.Event()

    async def load(self, partitions: frozenset[TP]) -> Mapping[TP, int | None]:
        self.begun.append(partitions)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {tp: self.positions.get(tp) for tp in partitions}


def test_partitions_are_held_while_others_flow(cluster: Cluster) -> None:
    slow, quick = cluster.topic(2), cluster.topic()
    for partition in (0, 1):
        cluster.fill(slow, 100, partition)
    cluster.fill(quick, 100)

    async def main() -> None:
        loads = Loads({TP(slow, 0): 40})
        app = make_app(cluster.bootstrap)
        held, flowing = Reader(app, slow, load=loads.load), Reader(app, quick)
        async with running(app):
            await until(lambda: len(flowing.values) == 100)
            assert loads.begun == [frozenset({TP(slow, 0), TP(slow, 1)})]
            for i in range(5):  # several fetches and a full second of the consumer's own waiting
                cluster.fill(quick, 10, first=100 + 10 * i)
                await until(lambda: len(flowing.values) == 110 + 10 * i)  # noqa: B023
            assert not held.runs
            assert not held.starts
            loads.go.set()
            await until(lambda: len(held.values) == 160)
            (starts,) = held.starts
            assert {tp: (at.start, at.end) for tp, at in starts.items()} == {
                TP(slow, 0): (40, 100),
                TP(slow, 1): (0, 100),
            }
            first = {run.partition: int(run.offsets[0]) for run in reversed(held.runs)}
            assert first == {0: 40, 1: 0}
            cluster.fill(slow, 5, first=100)
            await until(lambda: len(held.values) == 165)
            assert not app.crashed

    asyncio.run(main())


def test_a_rebalance_cancels_a_load_and_begins_another(cluster: Cluster) -> None:
    topic, group = cluster.topic(4), uuid4().hex
    for partition in range(4):
        cluster.fill(topic, 100, partition)

    async def main() -> None:
        loads = [Loads({TP(topic, p): 50 for p in range(4)}) for _ in range(2)]
        apps = [make_app(cluster.bootstrap, group) for _ in loads]
        readers = [Reader(app, topic, load=load.load) for app, load in zip(apps, loads, strict=True)]
        async with running(apps[0]):
            await until(lambda: loads[0].begun)
            async with running(apps[1]):
                await until(lambda: len(loads[0].begun) == 2 and loads[1].begun)
                assert loads[0].cancelled == 1
                for load in loads:
                    load.go.set()
                await until(lambda: sum(len(reader.values) for reader in readers) == 200)
                mine, others = loads[0].begun[1], loads[1].begun[0]
                assert mine | others == {TP(topic, p) for p in range(4)}
                assert len(mine) == len(others) == 2
                assert [len(reader.starts) for reader in readers] == [1, 1]
                loads[0].go.clear()
            await until(lambda: len(loads[0].begun) == 3, "all partitions come back")
            loads[0].go.set()
            await until(lambda: len(readers[0].values) == 100 + 200)
        assert all(offset >= 50 for reader in readers for run in reader.runs for offset in run.offsets)
        assert not any(app.crashed for app in apps)

    asyncio.run(main())


def test_stopping_does_not_wait_for_a_load(cluster: Cluster) -> None:
    topic = cluster.topic()

    async def main() -> None:
        loads = Loads()
        app = make_app(cluster.bootstrap)
        Reader(app, topic, load=loads.load)
        async with running(app):
            await until(lambda: loads.begun)
        assert loads.cancelled == 1

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("incomplete", [True, False])
def test_a_load_that_fails_ends_the_app(cluster: Cluster, incomplete: bool) -> None:
    topic = cluster.topic()

    async def main() -> None:
        async def load(partitions: frozenset[TP]) -> Mapping[TP, int | None]:
            if incomplete:
                return {}
            raise OSError("the store is gone")

        app = make_app(cluster.bootstrap)
        Reader(app, topic, load=load)
        async with running(app):
            await until(lambda: app.crashed)
        expected = f"no position was loaded for {topic}[0]" if incomplete else "the store is gone"
        assert expected in str(app.crash_reason)

    asyncio.run(main())


def test_position_and_load_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="either position or load"):
        BatchOptions(position=lambda _tp: 0, load=Loads().load)
