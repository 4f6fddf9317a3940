"""The driver on the real broker: runs, positions, back-pressure, rebalance, errors."""

from __future__ import annotations

import asyncio
import signal
import statistics
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import faust
import numpy as np
import pytest
from confluent_kafka import Producer
from faust.types import TP

from schemas.errors import StateError
from streams.batch_topic import PartitionStart
from streams.faust_app import ReelflowApp
from streams.transport import commit
from streams.transport_sets import MessageSets
from streams.transport_taking import RunTaker
from tests.transport_rig import LIMIT_S, Cluster, Reader, make_app, running, start_child, until

pytestmark = pytest.mark.integration


def test_runs_and_records_live_in_one_app(cluster: Cluster) -> None:
    batch, plain, out = cluster.topic(2), cluster.topic(1), cluster.topic(1)
    for partition in (0, 1):
        cluster.fill(batch, 1000, partition)
    cluster.fill(plain, 100)

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        reader = Reader(app, batch, max_records=300)
        target = Reader(app, out)
        single: list[bytes] = []

        async def each(stream: Any) -> None:
            async for value in stream:
                single.append(value)
                await app.send(out, value=value)

        app.agent(app.topic(plain))(each)
        async with running(app):
            await until(lambda: len(reader.values) == 2000 and len(single) == 100, "all read")
            await until(lambda: len(target.values) == 100, "what the per-record agent produced")
        assert [int(value) for value in single] == list(range(100))
        assert target.values == single
        for partition in (0, 1):
            runs = [run for run in reader.runs if run.partition == partition]
            assert max(map(len, runs)) <= 300
            offsets = np.concatenate([run.offsets for run in runs])
            assert offsets.dtype == np.int64
            assert offsets.tolist() == list(range(1000))
            for run, following in pairwise(runs):
                assert run.next_offset == following.offsets[0]
            assert runs[-1].next_offset == 1000
            assert [int(value or b"") for run in runs for value in run.values] == list(range(1000))
            assert [int(key or b"") for run in runs for key in run.keys] == list(range(1000))
            stamps = np.concatenate([run.timestamps_ms for run in runs])
            assert abs(stamps / 1000 - time.time()).max() < 600
        assert {partition for tps in reader.claimed for partition in tps} == {TP(batch, 0), TP(batch, 1)}
        (starts,) = reader.starts
        assert starts[TP(batch, 0)] == PartitionStart(start=0, committed=None, end=1000)

    asyncio.run(main())


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4", "snappy", "zstd"])
def test_every_compression_is_read_compiled(
    cluster: Cluster, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("left to aiokafka")

    monkeypatch.setattr(RunTaker, "_take_slowly", refuse)
    topic = cluster.topic()
    cluster.fill(topic, 200, size=100, config={"compression.type": codec})

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        reader = Reader(app, topic)
        async with running(app):
            await until(lambda: len(reader.values) == 200 or app.crashed, codec)
            assert not app.crashed
        assert [int(value or b"") for value in reader.values] == list(range(200))

    asyncio.run(main())


def test_null_values_and_broker_time(cluster: Cluster) -> None:
    topic = cluster.topic(config={"message.timestamp.type": "LogAppendTime"})
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    producer.produce(topic, None, key=b"k", timestamp=1_000)
    producer.produce(topic, b"", timestamp=1_000)
    producer.flush()

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        reader = Reader(app, topic)
        async with running(app):
            await until(lambda: len(reader.values) == 2)
        assert reader.values == [None, b""]
        assert [key for run in reader.runs for key in run.keys] == [b"k", None]
        assert all(abs(run.timestamps_ms / 1000 - time.time()).max() < 600 for run in reader.runs)

    asyncio.run(main())


@pytest.mark.parametrize("compiled", [True, False])
def test_aborted_records_are_not_read_and_markers_are_passed(
    cluster: Cluster, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(MessageSets, "reader", lambda *_: None)
    topic = cluster.topic()
    cluster.transaction(topic, [b"a", b"b"], abort=False)  # offsets 0, 1 and a marker at 2
    cluster.transaction(topic, [b"x", b"y", b"z"], abort=True)  # 3, 4, 5 and a marker at 6

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        reader = Reader(app, topic, max_records=2)
        async with running(app):
            await until(lambda: reader.runs and reader.runs[-1].next_offset == 7, "the end of the log")
            end = reader.starts[0][TP(topic, 0)].end
            cluster.transaction(topic, [], abort=True)
            cluster.transaction(topic, [b"c"], abort=False)
            await until(lambda: len(reader.values) == 3)
        assert end == 7
        assert reader.values == [b"a", b"b", b"c"]

    asyncio.run(main())


def test_positions_come_from_the_provider(cluster: Cluster) -> None:
    topic, group = cluster.topic(), uuid4().hex
    cluster.fill(topic, 100)
    cluster.commit_as(group, topic, 60)

    async def read(expected: int, **options: Any) -> None:
        app = make_app(cluster.bootstrap, group)
        reader = Reader(app, topic, **options)
        async with running(app):
            await until(lambda: len(reader.values) == 100 - expected)
        assert reader.runs[0].offsets[0] == expected
        (starts,) = reader.starts
        assert starts == {TP(topic, 0): PartitionStart(start=expected, committed=60, end=100)}
        assert not starts[TP(topic, 0)].caught_up

    async def main() -> None:
        await read(60)
        await read(0, position=lambda _tp: None)
        await read(25, position=lambda _tp: 25)

    asyncio.run(main())


def test_a_position_below_the_log_counts_what_is_lost(cluster: Cluster) -> None:
    topic = cluster.topic()
    cluster.fill(topic, 100)
    cluster.delete_before(topic, 50)

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        reader = Reader(app, topic, position=lambda _tp: 10)
        async with running(app):
            await until(lambda: len(reader.values) == 50)
        assert reader.lost == [(TP(topic, 0), 40)]
        assert reader.starts[0][TP(topic, 0)] == PartitionStart(start=50, committed=None, end=100, lost=40)

    asyncio.run(main())


def test_retention_that_overtakes_a_slow_reader_counts_what_is_lost(cluster: Cluster) -> None:
    topic = cluster.topic()
    cluster.fill(topic, 400, size=1000, config={"batch.num.messages": 1})

    async def main() -> None:
        # Small fetches, so that most of the log is still in the broker when it is cut.
        app = make_app(cluster.bootstrap, consumer_max_fetch_size=4096)
        reader = Reader(app, topic, max_records=2, buffer_runs=1)
        reader.go.clear()
        async with running(app):
            await until(lambda: reader.runs and reader.waiting(app) == 1)
            cluster.delete_before(topic, 300)
            reader.go.set()
            await until(lambda: reader.runs[-1].next_offset == 400)
        read = np.concatenate([run.offsets for run in reader.runs])
        assert sum(n for _, n in reader.lost) == 400 - len(read)
        assert len(reader.lost) == 1
        assert len(read) < 400

    asyncio.run(main())


def test_a_position_past_the_end_ends_the_app(cluster: Cluster) -> None:
    topic = cluster.topic()
    cluster.fill(topic, 10)

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        Reader(app, topic, position=lambda _tp: 11)
        async with running(app):
            await until(lambda: app.crashed)
        assert isinstance(app.crash_reason, StateError)
        assert "ends at offset 10, but its position is 11" in str(app.crash_reason)

    asyncio.run(main())


def test_commit_goes_through_and_never_raises(cluster: Cluster) -> None:
    topic, group = cluster.topic(), uuid4().hex
    cluster.fill(topic, 10)

    async def main() -> None:
        app = make_app(cluster.bootstrap, group, broker_commit_interval=0.1)
        reader = Reader(app, topic)
        async with running(app):
            await until(lambda: len(reader.values) == 10)
            await asyncio.sleep(0.5)  # several of Faust's own commit intervals
            assert cluster.committed(group, topic) < 0, "Faust must not commit a batch topic"
            assert await commit(app, {TP(topic, 0): 7})
            assert cluster.committed(group, topic) == 7
            assert not await commit(app, {TP(topic, 5): 1}), "not ours"
        assert not await commit(app, {TP(topic, 0): 9}), "after the end"
        assert cluster.committed(group, topic) == 7
        assert not app.crashed

    asyncio.run(main())


def test_back_pressure_bounds_runs_and_spares_other_topics(cluster: Cluster) -> None:
    batch, plain = cluster.topic(4), cluster.topic()
    for partition in range(4):
        cluster.fill(batch, 500, partition)

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        reader = Reader(app, batch, max_records=10, buffer_runs=3)
        reader.go.clear()
        single: list[bytes] = []

        async def each(stream: Any) -> None:
            async for value in stream:
                single.append(value)  # noqa: PERF401 - a stream never ends

        app.agent(app.topic(plain))(each)
        async with running(app):
            await until(lambda: reader.runs and reader.waiting(app) == 3)
            spent = time.process_time()
            for i in range(20):
                cluster.fill(plain, 10, first=10 * i)
                await until(lambda: len(single) == 10 * (i + 1), "records pass a held back batch topic")  # noqa: B023
                await asyncio.sleep(0.05)
            assert len(reader.runs) == 1
            assert reader.waiting(app) == 3
            idle_from, cpu_from = time.monotonic(), time.process_time()
            await asyncio.sleep(1.0)
            assert (time.process_time() - cpu_from) / (time.monotonic() - idle_from) < 0.3, "busy loop"
            assert spent <= cpu_from
            reader.go.set()
            await until(lambda: len(reader.values) == 2000)
            assert reader.waiting(app) <= 3
        assert len({run.partition for run in reader.runs[:8]}) == 4, "partitions take turns"

    asyncio.run(main())


def test_a_single_event_arrives_at_once(cluster: Cluster) -> None:
    topic = cluster.topic(4)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 0})

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        reader = Reader(app, topic)
        seconds = []
        async with running(app):
            await until(lambda: reader.starts)
            for i in range(30):
                sent, n = time.time(), len(reader.arrived)
                producer.produce(topic, b"now", partition=i % 4)
                await asyncio.to_thread(producer.flush)
                await until(lambda: len(reader.arrived) > n)  # noqa: B023
                seconds.append(reader.arrived[n] - sent)
                await asyncio.sleep(0.05)
        # 4 to 11 ms on a quiet machine with two cores
        assert statistics.median(seconds) < 0.05, sorted(seconds)

    asyncio.run(main())


def test_a_held_back_consumer_stays_in_its_group(cluster: Cluster) -> None:
    topic, interval_s = cluster.topic(), 2.0
    cluster.fill(topic, 100)

    async def main() -> None:
        app = make_app(cluster.bootstrap, broker_max_poll_interval=interval_s, broker_heartbeat_interval=0.5)
        reader = Reader(app, topic, max_records=10, buffer_runs=2)
        reader.go.clear()
        async with running(app):
            await until(lambda: reader.runs)
            generation = app.consumer_generation_id
            await asyncio.sleep(3 * interval_s)
            reader.go.set()
            await until(lambda: len(reader.values) == 100)
            assert app.consumer_generation_id == generation
            assert await commit(app, {TP(topic, 0): 100}), "still a member"
        assert len(reader.starts) == 1
        assert reader.values == [str(i).encode().rjust(20) for i in range(100)]

    asyncio.run(main())


def test_a_blocked_delivery_stays_in_its_group(cluster: Cluster) -> None:
    """Faust's delivery waits for the full buffer of a per-record agent, so nobody polls."""
    topic, interval_s = cluster.topic(), 2.0
    cluster.fill(topic, 100)

    async def main() -> None:
        app = make_app(
            cluster.bootstrap,
            broker_max_poll_interval=interval_s,
            broker_heartbeat_interval=0.5,
            stream_buffer_maxsize=2,
        )
        go = asyncio.Event()
        single: list[bytes] = []

        async def each(stream: Any) -> None:
            async for value in stream:
                single.append(value)
                await go.wait()

        app.agent(app.topic(topic))(each)
        async with running(app):
            await until(lambda: single)
            generation = app.consumer_generation_id
            await asyncio.sleep(3 * interval_s)
            assert len(single) == 1
            go.set()
            await until(lambda: len(single) == 100)
            assert app.consumer_generation_id == generation
            assert await commit(app, {TP(topic, 0): 100}), "still a member"

    asyncio.run(main())


def test_a_second_worker_takes_over_partitions_without_gap(cluster: Cluster) -> None:
    topic, group = cluster.topic(4), uuid4().hex
    for partition in range(4):
        cluster.fill(topic, 200, partition)

    async def main() -> None:
        positions: dict[TP, int] = {}

        def start_app() -> tuple[ReelflowApp, Reader]:
            app = make_app(cluster.bootstrap, group)
            return app, Reader(app, topic, max_records=50, position=positions.get)

        first_app, first = start_app()
        second_app, second = start_app()
        async with running(first_app):
            await until(lambda: len(first.values) == 800)
            positions.update((TP(topic, p), 200) for p in range(4))
            async with running(second_app):
                await until(lambda: second.starts and len(first.starts) == 2)
                assert len(first.starts[1]) == len(second.starts[0]) == 2
                assert first.revoked == [frozenset(TP(topic, p) for p in range(4))]
                for partition in range(4):
                    cluster.fill(topic, 100, partition, first=200)
                await until(lambda: len(first.values) + len(second.values) == 1200)
                positions.update((TP(topic, p), 300) for p in range(4))
            await until(lambda: len(first.starts) == 3)
            cluster.fill(topic, 10, 3, first=300)
            await until(lambda: len(first.values) + len(second.values) == 1210)
        read: dict[int, list[int]] = {p: [] for p in range(4)}
        for got in (*first.runs, *second.runs):
            read[got.partition] += got.offsets.tolist()
        assert {p: sorted(offsets) for p, offsets in read.items()} == {
            p: list(range(310 if p == 3 else 300)) for p in range(4)
        }
        assert not first_app.crashed
        assert not second_app.crashed

    asyncio.run(main())


def test_two_agents_on_a_batch_topic_are_refused(cluster: Cluster) -> None:
    topic = cluster.topic()

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        Reader(app, topic)

        async def each(stream: Any) -> None:
            async for _ in stream:
                pass

        app.agent(app.topic(topic))(each)
        async with running(app):
            await until(lambda: app.crashed)
        assert "exactly one agent" in str(app.crash_reason)

    asyncio.run(main())


def test_nothing_is_created_on_the_broker(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = cluster.topic()
    cluster.fill(topic, 1)
    monkeypatch.chdir(tmp_path)
    before = set(cluster.admin.list_topics().topics) | {"__consumer_offsets"}

    async def main() -> None:
        app = make_app(cluster.bootstrap)
        reader = Reader(app, topic)
        async with running(app):
            await until(lambda: reader.values)

    asyncio.run(main())
    assert set(cluster.admin.list_topics().topics) <= before
    assert not list(tmp_path.iterdir())


def child(cluster: Cluster, tmp_path: Path, mode: str) -> subprocess.Popen[str]:
    topic = cluster.topic()
    cluster.fill(topic, 3)
    # Another folder than the project's: the driver must be found where it is installed.
    return start_child(mode, cluster.bootstrap, topic, cwd=tmp_path)


@pytest.mark.parametrize(
    ("mode", "cause"),
    [
        ("agent", "KeyError: 'the agent broke'"),
        ("service", "error: the service broke"),
        ("thread", "ValueError: the thread broke"),
        ("position", "error: "),
        ("claim", "LookupError: the claim broke"),
        ("fetch", "RuntimeError: the fetch broke"),
    ],
)
def test_an_error_ends_the_process_with_its_cause(
    cluster: Cluster, tmp_path: Path, mode: str, cause: str
) -> None:
    with child(cluster, tmp_path, mode) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert cause in err
    assert out.splitlines()[-1] == "service stopped"
    if mode == "agent":
        assert out.count("run ") == 1, "nothing is processed behind the failed run"


def test_sigterm_ends_the_process_in_order(cluster: Cluster, tmp_path: Path) -> None:
    with child(cluster, tmp_path, "none") as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("run "):
            lines.append(process.stdout.readline().strip())
            assert lines[-1], "ended early"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert lines == ["service started", "run 3"]
    assert out.splitlines() == ["before shutdown, committed: True", "service stopped"]


def test_the_entry_point_is_found() -> None:
    assert faust.App("x", broker="reelflow://127.0.0.1:1").transport.driver_version.startswith("reelflow")
