"""Learner and rankers under load: partitions move, processes die, a second learner takes over."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings
from streams.broker import LocalBroker
from streams.processes import http_json
from tests.chaos.checks import LEARNED_S, check_all, check_letters, check_lists
from tests.chaos.lives import FLOWING_S, LONG, PARTITIONS, TIMEOUT_S, flowing, kafka_of, kill, life
from tests.chaos.load import Load
from tests.processes import RunningWorker

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(TIMEOUT_S)]

N_ROUNDS = 5 if LONG else 1
ENDED_S = 60.0
Start = Callable[..., RunningWorker]


def test_rankers_come_and_go_beside_a_learner_that_dies(broker: LocalBroker, tmp_path: Path) -> None:
    """1 -> 2 -> 3 -> 1 rankers, one told to end and one killed; the learner killed, then taken over from."""
    kafka = kafka_of(broker)
    with ExitStack() as stack, Load(kafka, rate=1_000) as load:
        start = starter(kafka, tmp_path, stack)
        learner, first = start("learner"), start("ranker")
        flowing(learner)
        holding([first])
        for _ in range(N_ROUNDS):
            second = start("ranker")
            holding([first, second])
            third = start("ranker")
            holding([first, second, third])
            kill(learner)
            learner = start("learner")
            assert second.child.stop(ENDED_S) == 0, second.child.tail()
            kill(third)
            holding([first])
            flowing(learner)
        taking_over = start("learner", "--take-over")
        assert learner.child.process.wait(FLOWING_S) != 0
        assert "Fenced" in learner.child.tail() or "fenced" in learner.child.tail(), learner.child.tail()
        flowing(taking_over)
        load.finish()
        checked = check_all(taking_over, kafka, load, role="learner")
        assert checked.stats["epoch"] == N_ROUNDS + 2
        counted = all_counted(first, load.n_sent, checked.users)
        assert counted["events_learned"] == load.sent["event"]
        assert counted["duplicates"] == load.sent["duplicate"]
        assert http_json(f"{first.url}/digest", timeout_s=90)["users"] == checked.users
        first.wait(lambda stats: not stats["pending_snapshots"], LEARNED_S)
        check_letters(kafka, load)
        check_lists(kafka, load)


def starter(kafka: KafkaSettings, folder: Path, stack: ExitStack) -> Start:
    """Starts a role that ends with the test."""

    def start(role: str, *arguments: str) -> RunningWorker:
        running = life(
            kafka, folder, role=role, arguments=arguments, learner_embeddings="false",
            learner_sync_interval_s="0.3", worker_checkpoint_interval_s="1",
        )  # fmt: skip
        stack.callback(running.child.stop)
        return running

    return start


def all_counted(ranker: RunningWorker, n_sent: int, users: dict[str, str]) -> dict[str, Any]:
    """Stats once the ranker accounts for every record; else an error that names the partitions at fault."""
    try:
        return ranker.wait(lambda stats: accounted(stats) == n_sent, LEARNED_S)
    except AssertionError as error:
        found = http_json(f"{ranker.url}/digest", timeout_s=90)["users"]
        wrong = sorted(partition for partition in users if found.get(partition) != users[partition])
        raise AssertionError(f"user state differs in partitions {wrong}, {n_sent} sent: {error}") from error


def accounted(stats: dict[str, Any]) -> int:
    """Records that a role has applied, found to be duplicates, or dead-lettered."""
    return int(stats["events_learned"] + stats["duplicates"] + sum(stats["dead_letters"].values()))


def holding(rankers: list[RunningWorker], limit_s: float = FLOWING_S) -> None:
    """Return when each partition is held by one of the rankers, each has some, and all go on."""
    deadline = time.monotonic() + limit_s
    before: int | None = None
    while True:
        for ranker in rankers:
            ranker.child.check()
        try:
            stats = [ranker.stats() for ranker in rankers]
        except UnavailableError:
            stats = []
        held = sorted(partition for one in stats for partition in one["partitions"])
        if held == list(range(PARTITIONS)) and all(one["partitions"] and one["ready"] for one in stats):
            total = sum(map(accounted, stats))
            if before is not None and total > before:
                return
            before = total if before is None else before
        else:
            before = None
        assert time.monotonic() < deadline, f"{stats}\n{rankers[-1].child.tail()}"
        time.sleep(0.05)
