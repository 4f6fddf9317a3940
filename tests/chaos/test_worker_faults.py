"""Faults on the real broker. Short in the normal suite; `make chaos` is the long form."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from streams.broker import LocalBroker
from streams.broker_process import free_port
from streams.topics import create_topics
from tests.chaos.checks import check_all
from tests.chaos.load import Load
from tests.processes import RunningWorker, start_worker

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

LONG = bool(os.environ.get("CHAOS"))
PARTITIONS = 4
N_KILLS = 50 if LONG else 5
OUTAGE_S = 60.0 if LONG else 6.0
FLOWING_AFTER_KILL_S = 5.0
FLOWING_AFTER_BROKER_S = 10.0


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker that a test may stop and kill."""
    with LocalBroker(tmp_path / "kafka", port=free_port()) as running:
        yield running


def kafka_of(broker: LocalBroker) -> KafkaSettings:
    kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"c{os.urandom(4).hex()}", partitions=PARTITIONS)
    create_topics(kafka)
    return kafka


def flowing(worker: RunningWorker, started: float, limit_s: float) -> float:
    """Seconds from `started` until the worker has learned something new."""
    before = None
    while True:
        assert time.monotonic() - started < limit_s + 60, worker.child.tail()
        worker.child.check()
        try:
            stats = worker.stats()
        except UnavailableError:
            stats = None
        if stats is not None and stats["ready"]:
            if before is not None and stats["events_learned"] > before:
                return time.monotonic() - started
            before = stats["events_learned"] if before is None else before
        time.sleep(0.02)


def test_killed_at_random_moments(broker: LocalBroker, tmp_path: Path) -> None:
    """kill -9 under load, also amid a checkpoint (one is being written most of the time)."""
    kafka = kafka_of(broker)
    moments = random.Random(4)
    recoveries = []
    with ExitStack() as stack, Load(kafka, rate=3_000) as load:
        worker = None
        for kill in range(N_KILLS + 1):
            started = time.monotonic()
            worker = start_worker(
                kafka.bootstrap, kafka.prefix, PARTITIONS, tmp_path,
                REELFLOW_WORKER_CHECKPOINT_INTERVAL_S="1" if kill % 2 else "0.05",
            )  # fmt: skip
            stack.callback(worker.child.stop)
            took = flowing(worker, started, 60)
            if kill:
                recoveries.append(took)
            if kill == N_KILLS:
                break
            time.sleep(moments.uniform(0.05, 2.0))
            worker.child.process.send_signal(signal.SIGKILL)
            worker.child.process.wait()
        load.finish()
        assert worker is not None
        check_all(worker, kafka, load)
        assert worker.child.stop() == 0, worker.child.tail()
    print(f"recoveries after kill -9, s: {sorted(round(took, 2) for took in recoveries)}")
    recoveries.sort()
    assert recoveries[len(recoveries) // 2] < FLOWING_AFTER_KILL_S


def test_a_stopped_process_is_fenced_out(broker: LocalBroker, tmp_path: Path) -> None:
    """SIGSTOP for longer than session and heartbeat; another one takes over; the first comes back."""
    kafka = kafka_of(broker)
    with ExitStack() as stack, Load(kafka, rate=1_500) as load:
        first = start_worker(kafka.bootstrap, kafka.prefix, PARTITIONS, tmp_path)
        stack.callback(first.child.stop)
        flowing(first, time.monotonic(), 60)
        first.child.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        second = None
        while second is None:
            assert time.monotonic() - stopped < 60
            second = start_worker(kafka.bootstrap, kafka.prefix, PARTITIONS, tmp_path)
            stack.callback(second.child.stop)
            try:
                flowing(second, time.monotonic(), 60)
            except UnavailableError:
                assert "writes this state" in second.child.tail(), second.child.tail()
                second = None
        first.child.process.send_signal(signal.SIGCONT)
        assert first.child.process.wait(30) != 0
        assert "Fenced" in first.child.tail(), first.child.tail()
        load.finish()
        stats = check_all(second, kafka, load)
        assert stats["epoch"] == 2


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_the_broker_goes_and_comes_back(own_broker: LocalBroker, tmp_path: Path, how: str) -> None:
    kafka = kafka_of(own_broker)
    with ExitStack() as stack, Load(kafka, rate=1_500) as load:
        worker = start_worker(kafka.bootstrap, kafka.prefix, PARTITIONS, tmp_path)
        stack.callback(worker.child.stop)
        flowing(worker, time.monotonic(), 60)
        if how == "killed":
            pid = own_broker.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        own_broker.stop()
        gone = time.monotonic()
        while worker.stats()["ready"]:
            assert time.monotonic() - gone < 30, "ready without a broker"
            time.sleep(0.1)
        time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - gone)))
        worker.child.check()
        own_broker.start()
        took = flowing(worker, time.monotonic(), 60)
        print(f"flowing {took:.1f} s after the broker was back")
        assert took < FLOWING_AFTER_BROKER_S
        load.finish()
        check_all(worker, kafka, load)


def test_the_same_log_twice(broker: LocalBroker, tmp_path: Path) -> None:
    """A second delivery of everything changes nothing but the count of duplicates."""
    kafka = kafka_of(broker)
    with ExitStack() as stack:
        with Load(kafka, n_events=8_000, rate=20_000, seed=3) as once:
            once.wait()
        worker = start_worker(kafka.bootstrap, kafka.prefix, PARTITIONS, tmp_path)
        stack.callback(worker.child.stop)
        check_all(worker, kafka, once)
        first = learned(worker)
        with Load(kafka, n_events=8_000, rate=20_000, seed=3) as twice:
            twice.wait()
        n_events = once.sent["event"]
        stats = worker.wait(lambda s: s["duplicates"] >= once.sent["duplicate"] * 2 + n_events, 60)
        assert stats["events_learned"] == n_events
        assert learned(worker) == first


def learned(worker: RunningWorker) -> set[str]:
    """Lines of the metrics that count what was learned."""
    from streams.processes import http_text

    text = http_text(f"{worker.url}/metrics", timeout_s=30)
    return {line for line in text.splitlines() if 'outcome="applied"' in line or "reelflow_users " in line}


def test_a_full_disk(broker: LocalBroker, tmp_path: Path) -> None:
    """Checkpoints fail for a while; nothing is committed meanwhile, and the next one stands for all."""
    kafka = kafka_of(broker)
    with ExitStack() as stack, Load(kafka, rate=2_000) as load:
        full = tmp_path / "full"
        full.touch()
        worker = start_worker(
            kafka.bootstrap, kafka.prefix, PARTITIONS, tmp_path, module="tests.chaos.full_disk",
            FULL_DISK_WHILE=str(full), REELFLOW_WORKER_CHECKPOINT_INTERVAL_S="0.2",
        )  # fmt: skip
        stack.callback(worker.child.stop)
        worker.wait(lambda s: s["events_learned"] > 8_000, 120)
        assert "checkpoint_failed" in worker.child.log.read_text()
        assert worker.stats()["committed"] == 0
        full.unlink()
        worker.wait(lambda s: s["committed"] > 0, 60)
        worker.child.process.send_signal(signal.SIGKILL)
        worker.child.process.wait()
        again = start_worker(kafka.bootstrap, kafka.prefix, PARTITIONS, tmp_path)
        stack.callback(again.child.stop)
        load.finish()
        check_all(again, kafka, load)
