"""A ranker that is stopped for longer than its session, and comes back to find others in its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from schemas.codec import decode_event
from schemas.errors import ContractError, UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.processes import http_json
from streams.topics import create_topics
from tests.chaos.checks import check_all, n_records
from tests.chaos.load import Load
from tests.integration.test_worker import read_all
from tests.processes import RunningWorker, start_worker

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(1_200)]

PARTITIONS = 4
RATE = 3_000 if os.environ.get("CHAOS") else 1_200
LOADED_S = 20.0 if os.environ.get("CHAOS") else 2.0
ENVIRON = {
    "REELFLOW_LEARNER_EMBEDDINGS": "false",
    "REELFLOW_WORKER_CHECKPOINT_INTERVAL_S": "0.5",
    "REELFLOW_WORKER_REFRESH_INTERVAL_MS": "100",
}


class Site:
    """Topics, load, a learner, and rankers that end with the test."""

    def __init__(self, broker: LocalBroker, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.kafka = KafkaSettings(
            bootstrap=broker.bootstrap, prefix=f"c{os.urandom(4).hex()}", partitions=PARTITIONS
        )
        create_topics(self.kafka, model="main")
        self.load = stack.enter_context(Load(self.kafka, rate=RATE))
        self.learner = self.start("learner")
        self.rankers: list[RunningWorker] = []

    def start(self, role: str) -> RunningWorker:
        running = start_worker(
            self.kafka.bootstrap, self.kafka.prefix, PARTITIONS, self._folder, role, **ENVIRON
        )
        self._stack.callback(running.child.stop)
        return running

    def join(self) -> RunningWorker:
        """One more ranker, until all have their part and tell users."""
        self.rankers.append(self.start("ranker"))
        self.until_shared()
        return self.rankers[-1]

    def until_shared(self, timeout_s: float = 120.0) -> None:
        """Every partition at exactly one ranker, each of them ready, and then some load."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                stats = self.stats()
            except UnavailableError:  # not listening yet, or busy
                stats = []
            held = sorted(partition for one in stats for partition in one["partitions"])
            if held == list(range(PARTITIONS)) and all(one["ready"] for one in stats):
                break
            assert time.monotonic() < deadline, (stats, [one.child.tail() for one in self.rankers])
            time.sleep(0.05)
        time.sleep(LOADED_S)

    def stats(self) -> list[dict[str, Any]]:
        for ranker in self.rankers:
            assert ranker.child.process.poll() is None, ranker.child.tail()
        return [ranker.stats() for ranker in self.rankers]

    def check(self) -> None:
        """Accounts, digests against the learner's (which the audit checks), lists and letters."""
        self.load.finish()
        n = n_records(self.kafka, topic_names(self.kafka.prefix).behaviour)
        deadline = time.monotonic() + 120
        while True:
            stats = self.stats()
            n_read = sum(
                one["events_learned"] + one["duplicates"] + sum(one["dead_letters"].values()) for one in stats
            )
            assert n_read <= n, f"{n_read} of {n} records: something was counted twice"
            if n_read == n and not any(one["pending_snapshots"] for one in stats):
                break
            assert time.monotonic() < deadline, stats
            time.sleep(0.05)
        assert sum(one["events_learned"] for one in stats) == self.load.sent["event"]
        checked = check_all(self.learner, self.kafka, self.load, role="learner")
        found: dict[str, str] = {}
        for ranker in self.rankers:
            found |= http_json(f"{ranker.url}/digest", timeout_s=60)["users"]
        assert found == checked.users
        self.check_told()

    def check_told(self) -> None:
        # What its producer had queued when it was stopped comes late; readers drop it by its offset.
        names = topic_names(self.kafka.prefix)
        letters = {
            (message.partition(), dict(message.headers())["reelflow_offset"])
            for message in read_all(self.kafka.bootstrap, names.behaviour_dlq)
        }
        assert len(letters) == self.load.sent["broken"]
        newest: dict[bytes | None, int] = {}
        for message in read_all(self.kafka.bootstrap, names.recommendations):
            offset = json.loads(message.value() or b"")["knows"]["offset"]
            newest[message.key()] = max(offset, newest.get(message.key(), 0))
        assert newest == self.last_events()

    def last_events(self) -> dict[bytes | None, int]:
        """Offset of the last event of each user that is valid and new."""
        seen, last = set(), {}
        for message in read_all(self.kafka.bootstrap, topic_names(self.kafka.prefix).behaviour):
            with suppress(ContractError):
                event_id = decode_event(message.value() or b"").event_id
                if event_id not in seen:
                    seen.add(event_id)
                    last[message.key()] = message.offset() or 0
        return last


def test_a_stopped_ranker_comes_back_to_find_others_in_its_place(broker: LocalBroker, tmp_path: Path) -> None:
    with ExitStack() as stack:
        site = Site(broker, tmp_path, stack)
        first = site.join()
        site.join()
        site.rankers.remove(first)
        first.child.process.send_signal(signal.SIGSTOP)
        site.until_shared()  # after the session has passed
        first.child.process.send_signal(signal.SIGCONT)
        try:
            assert first.child.process.wait(20) != 0
            assert "Fenced" in first.child.tail(), first.child.tail()
        except subprocess.TimeoutExpired:  # it was a member again before it looked at the fence
            site.rankers.append(first)
        site.until_shared()
        site.check()
