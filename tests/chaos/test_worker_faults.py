"""Faults of a worker and its broker. Short in the normal suite; `make chaos` is the long form."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

import pytest

from schemas.errors import BrokerError, UnavailableError
from streams.broker import LocalBroker
from tests.chaos.checks import check_all
from tests.chaos.faulty import Faults
from tests.chaos.lives import LONG, TIMEOUT_S, flowing, kafka_of, kill, life, log_of, until_reached
from tests.chaos.load import Load
from tests.processes import allowed

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(TIMEOUT_S)]

N_KILLS = 50 if LONG else 5
OUTAGE_S = 60.0 if LONG else 6.0
BUSY_S = 30.0 if LONG else 12.0
"""Longer than the session of the group (10 s)."""

N_TOPICS = 2  # behaviour and catalogue: the partitions of each start by themselves
FLOWING_AFTER_KILL_S = 5.0
FLOWING_AFTER_BROKER_S = 10.0
DRAINED_S = 30.0


def test_killed_at_random_moments(broker: LocalBroker, tmp_path: Path) -> None:
    """kill -9 under load: while it works and writes checkpoints, and every third time while it starts.

    Who starts after a killed start has the work of two lives to do again; told apart in what is printed.
    """
    kafka = kafka_of(broker)
    moments = random.Random(4)
    recoveries: list[float] = []
    after_killed_start: list[float] = []
    with ExitStack() as stack, Load(kafka, rate=3_000) as load:
        for n in range(N_KILLS):
            started = time.monotonic()
            worker = life(kafka, tmp_path, worker_checkpoint_interval_s="1" if n % 2 else "0.05")
            stack.callback(worker.child.stop)
            if n % 3 == 2:
                time.sleep(moments.uniform(0.5, 6.0))
            else:
                took = flowing(worker, started)
                if n:
                    (recoveries if n % 3 else after_killed_start).append(took)
                time.sleep(moments.uniform(0.05, 2.0))
            kill(worker)
        started = time.monotonic()
        worker = life(kafka, tmp_path)
        stack.callback(worker.child.stop)
        (after_killed_start if N_KILLS % 3 == 0 else recoveries).append(flowing(worker, started))
        load.finish()
        check_all(worker, kafka, load)
        assert worker.child.stop(DRAINED_S) == 0, worker.child.tail()
    for what, found in (("kill -9", recoveries), ("a killed start", after_killed_start)):
        print(f"\nflowing after {what}, s from process start: {[round(took, 2) for took in sorted(found)]}")
    assert statistics.median(recoveries + after_killed_start) < allowed(FLOWING_AFTER_KILL_S)


def test_a_stopped_process_is_fenced_out(broker: LocalBroker, tmp_path: Path) -> None:
    """SIGSTOP for longer than session and heartbeat; another one takes over; the first comes back."""
    kafka = kafka_of(broker)
    with ExitStack() as stack, Load(kafka, rate=1_500) as load:
        first = life(kafka, tmp_path)
        stack.callback(first.child.stop)
        flowing(first)
        first.child.process.send_signal(signal.SIGSTOP)
        stack.callback(first.child.process.send_signal, signal.SIGCONT)
        stopped = time.monotonic()
        n_refused = 0
        while True:
            assert time.monotonic() - stopped < 120
            second = life(kafka, tmp_path)
            stack.callback(second.child.stop)
            try:
                flowing(second)
                break
            except UnavailableError:
                assert "writes this state" in second.child.tail(), second.child.tail()
                n_refused += 1
        assert n_refused, "the state was taken from a process that had just given a sign of life"
        first.child.process.send_signal(signal.SIGCONT)
        assert first.child.process.wait(60) != 0
        assert "Fenced" in first.child.tail(), first.child.tail()
        load.finish()
        assert check_all(second, kafka, load, was_stopped=True).stats["epoch"] == 2


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_the_broker_goes_and_comes_back(own_broker: LocalBroker, tmp_path: Path, how: str) -> None:
    kafka = kafka_of(own_broker)
    with ExitStack() as stack, Load(kafka, rate=1_500) as load:
        worker = life(kafka, tmp_path)
        stack.callback(worker.child.stop)
        flowing(worker)
        if how == "killed":
            pid = own_broker.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        # Killed it may be gone before it is asked to end.
        with suppress(BrokerError) if how == "killed" else nullcontext():
            own_broker.stop()
        assert not own_broker.status().running
        gone = time.monotonic()
        while worker.stats()["ready"]:
            assert time.monotonic() - gone < 60, "ready without a broker"
            time.sleep(0.1)
        time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - gone)))
        worker.child.check()
        own_broker.start()
        took = flowing(worker)
        print(f"\nflowing {took:.1f} s after the {how} broker was back")
        assert took < allowed(FLOWING_AFTER_BROKER_S)
        load.finish()
        check_all(worker, kafka, load)


def test_a_busy_learner_loses_no_partition(broker: LocalBroker, tmp_path: Path) -> None:
    """The learner thread does not come back for longer than the session of the group; the rest goes on."""
    kafka, faults = kafka_of(broker), Faults(tmp_path / "faults")
    with ExitStack() as stack, Load(kafka, rate=1_500) as load:
        worker = life(kafka, tmp_path, faults=faults)
        stack.callback(worker.child.stop)
        flowing(worker)
        deadline = time.monotonic() + TIMEOUT_S
        while log_of(worker).count("partitions_assigned") < N_TOPICS:
            assert time.monotonic() < deadline, log_of(worker)
            time.sleep(0.1)
        faults.arm("learn")
        until_reached(worker, faults, "learn")
        time.sleep(BUSY_S)
        worker.child.check()
        faults.disarm("learn")
        flowing(worker)
        load.finish()
        check_all(worker, kafka, load)
        assert log_of(worker).count("partitions_assigned") == N_TOPICS, log_of(worker)


def test_a_learner_that_hangs_ends_the_process(broker: LocalBroker, tmp_path: Path) -> None:
    kafka, faults = kafka_of(broker), Faults(tmp_path / "faults")
    with ExitStack() as stack, Load(kafka, rate=1_500) as load:
        worker = life(kafka, tmp_path, faults=faults, worker_stuck_after_s="2")
        stack.callback(worker.child.stop)
        flowing(worker)
        faults.arm("learn")
        until_reached(worker, faults, "learn")
        assert worker.child.process.wait(60) != 0
        assert "worker.stuck_after_s" in worker.child.tail(), worker.child.tail()
        assert "drain_incomplete" not in log_of(worker), "it waited for what hangs"
        again = life(kafka, tmp_path)
        stack.callback(again.child.stop)
        flowing(again)
        load.finish()
        check_all(again, kafka, load)


def test_told_to_end_under_load(broker: LocalBroker, tmp_path: Path) -> None:
    """SIGTERM: what was read is learned, kept and committed; the next life has nothing to fold again."""
    kafka = kafka_of(broker)
    with ExitStack() as stack, Load(kafka, rate=5_000) as load:
        worker = life(kafka, tmp_path, worker_checkpoint_interval_s="3600")
        stack.callback(worker.child.stop)
        flowing(worker)
        told = time.monotonic()
        assert worker.child.stop(DRAINED_S) == 0, worker.child.tail()
        print(f"\ndrained in {time.monotonic() - told:.1f} s")
        assert '"event": "drained"' in log_of(worker), worker.child.tail()
        again = life(kafka, tmp_path)
        stack.callback(again.child.stop)
        flowing(again)
        (recovered,) = [line for line in log_of(again).splitlines() if '"event": "recovered"' in line]
        assert '"n_events": 0' in recovered, recovered
        load.finish()
        check_all(again, kafka, load)


def test_killed_amid_a_recovery(broker: LocalBroker, tmp_path: Path) -> None:
    """The second life ends while it folds the journal of the first; the third does it all again."""
    kafka, faults = kafka_of(broker), Faults(tmp_path / "faults")
    with ExitStack() as stack, Load(kafka, rate=2_000) as load:
        first = life(kafka, tmp_path, worker_checkpoint_interval_s="3600")
        stack.callback(first.child.stop)
        first.wait(lambda stats: stats["events_learned"] > 2_000)
        kill(first)
        faults.arm("refold")
        second = life(kafka, tmp_path, faults=faults)
        stack.callback(second.child.stop)
        until_reached(second, faults, "refold")
        kill(second)
        third = life(kafka, tmp_path)
        stack.callback(third.child.stop)
        flowing(third)
        load.finish()
        assert check_all(third, kafka, load).stats["epoch"] == 3
