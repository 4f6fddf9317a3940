"""A learner that sleeps or computes for longer than the session keeps its partitions."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from faust.types import TP
from numba import njit

from schemas.runs import RecordRun
from streams.batch_topic import BatchOptions, batch_topic
from streams.learner_thread import LearnerThread
from streams.transport import commit
from tests.transport_rig import Cluster, make_app, running, until

pytestmark = pytest.mark.integration

SESSION_S = 6.0
"""The shortest that brokers allow by default."""


@njit(nogil=True, cache=True)
def spin(n: int) -> int:
    """Compute without the interpreter."""
    state = np.uint64(1)
    for _ in range(n):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
    return int(state & np.uint64(1))


class SlowCore:
    """Takes a batch slower than the session and the poll interval allow, then keeps up."""

    batch_records = 16_384

    def __init__(self) -> None:
        begun = time.perf_counter()
        spin(10_000_000)
        self._spins_a_second = 10_000_000 / (time.perf_counter() - begun)
        self.offsets: list[int] = []
        self.busy_s = 0.0

    def apply(self, runs: list[RecordRun]) -> None:
        if not self.offsets:
            begun = time.monotonic()
            time.sleep(SESSION_S / 2)
            spin(int(self._spins_a_second * (SESSION_S / 2 + 1.5)))
            self.busy_s = time.monotonic() - begun
        self.offsets += [offset for run in runs for offset in run.offsets.tolist()]

    def tick(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """Nothing is left."""


def test_a_batch_longer_than_the_session_loses_no_partition(cluster: Cluster) -> None:
    topic = cluster.topic()
    cluster.fill(topic, 1_000)
    spin(1)

    async def main() -> None:
        core, failures = SlowCore(), list[BaseException]()
        thread = LearnerThread(core, queue_runs=2, tick_s=0.02, on_failure=failures.append)
        thread.start()
        app = make_app(
            cluster.bootstrap,
            broker_session_timeout=SESSION_S,
            broker_heartbeat_interval=1.0,
            broker_max_poll_interval=2.0,
        )
        claims: list[frozenset[TP]] = []

        async def learn(stream: Any) -> None:
            async for run in stream:
                await thread.submit(run)

        options = BatchOptions(max_records=50, buffer_runs=2, on_claim=claims.append)
        app.agent(batch_topic(app, topic, options))(learn)
        async with running(app):
            await until(lambda: len(core.offsets) == 1_000)
            assert await commit(app, {TP(topic, 0): 1_000}), "still a member"
        assert await thread.stop(10)
        assert core.busy_s > SESSION_S
        assert core.offsets == list(range(1_000))
        assert len(claims) == 1, "no rebalance"
        assert not failures

    asyncio.run(main())
