"""Lives of a process under test: started, watched until it flows, killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from streams.broker import LocalBroker
from streams.topics import create_topics
from tests.chaos.faulty import VARIABLE, Faults
from tests.processes import RunningWorker, start_worker

LONG = bool(os.environ.get("CHAOS"))
PARTITIONS = 4
FLOWING_S = 180.0
TIMEOUT_S = 3_600 if LONG else 900
"""Of one test; compiling on a busy machine included."""


def kafka_of(broker: LocalBroker) -> KafkaSettings:
    """Topics of a prefix of their own."""
    kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"c{os.urandom(4).hex()}", partitions=PARTITIONS)
    create_topics(kafka, model="main")
    return kafka


def life(
    kafka: KafkaSettings,
    folder: Path,
    *,
    faults: Faults | None = None,
    role: str = "worker",
    arguments: Sequence[str] = (),
    **settings: str,
) -> RunningWorker:
    """Start a process; settings as ``worker_<name>`` or ``learner_<name>``."""
    environ = {f"REELFLOW_{name.upper()}": value for name, value in settings.items()}
    module = "streams.cli"
    if faults is not None:
        module, environ[VARIABLE] = "tests.chaos.faulty", str(faults.folder)
    return start_worker(
        kafka.bootstrap,
        kafka.prefix,
        kafka.partitions,
        folder,
        role=role,
        module=module,
        arguments=arguments,
        **environ,
    )


def flowing(worker: RunningWorker, started: float | None = None, limit_s: float = FLOWING_S) -> float:
    """Seconds from `started` (a monotonic time, by default now) until it has learned something new."""
    started = time.monotonic() if started is None else started
    before = None
    while True:
        assert time.monotonic() - started < limit_s, f"not flowing: {worker.child.tail()}"
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


def until_reached(worker: RunningWorker, faults: Faults, fault: str, limit_s: float = FLOWING_S) -> None:
    """Return when the process stops at a fault."""
    deadline = time.monotonic() + limit_s
    while not faults.reached(fault):
        worker.child.check()
        assert time.monotonic() < deadline, f"never came to {fault}: {worker.child.tail()}"
        time.sleep(0.01)


def kill(worker: RunningWorker) -> None:
    """kill -9."""
    worker.child.process.send_signal(signal.SIGKILL)
    worker.child.process.wait()


def log_of(worker: RunningWorker) -> str:
    """Everything it logged."""
    return worker.child.log.read_text(encoding="utf-8")
