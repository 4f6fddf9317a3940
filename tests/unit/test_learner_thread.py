"""The bounded queue, the questions between batches, and the death that is heard."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from schemas.runs import RecordRun
from streams.learner_thread import LearnerThread, TickPace


def run_of(offset: int) -> RecordRun:
    return RecordRun(
        topic="t",
        partition=0,
        keys=[b"k"],
        values=[b"v"],
        offsets=np.array([offset]),
        timestamps_ms=np.array([0]),
        next_offset=offset + 1,
    )


class Recorder:
    """A core that remembers what it was given; `gate` blocks it, `fail` kills it."""

    def __init__(self, batch_records: int = 16_384) -> None:
        self.batch_records = batch_records
        self.applied: list[int] = []
        self.batches: list[int] = []
        self.ticked = threading.Event()
        self.closed = False
        self.fail = False
        self.gate = threading.Event()
        self.gate.set()

    def apply(self, runs: list[RecordRun]) -> None:
        assert self.gate.wait(10)
        if self.fail:
            raise ValueError("broken on purpose")
        self.batches.append(len(runs))
        self.applied += [int(run.offsets[0]) for run in runs]

    def tick(self) -> None:
        self.ticked.set()

    def close(self) -> None:
        self.closed = True


def thread_of(core: Recorder, failures: list[BaseException], places: int = 4) -> LearnerThread:
    thread = LearnerThread(core, queue_runs=places, tick_s=0.005, on_failure=failures.append)
    thread.start()
    return thread


def test_order_ticks_and_close() -> None:
    async def main() -> None:
        core, failures = Recorder(), list[BaseException]()
        thread = thread_of(core, failures)
        for offset in range(100):
            await thread.submit(run_of(offset))
        assert await thread.ask(lambda: list(core.applied)) == list(range(100))
        assert await asyncio.to_thread(core.ticked.wait, 5)
        assert await thread.stop(5)
        assert core.closed
        assert not failures

    asyncio.run(main())


def test_a_look_does_not_wait_for_the_queue() -> None:
    async def main() -> None:
        core, failures = Recorder(batch_records=1), list[BaseException]()
        thread = LearnerThread(core, queue_runs=4, tick_s=0.005, on_failure=failures.append)
        thread.start()
        core.gate.clear()
        for offset in range(3):
            await thread.submit(run_of(offset))
        looked = asyncio.create_task(thread.look(lambda: list(core.applied)))
        asked = asyncio.create_task(thread.ask(lambda: list(core.applied)))
        await asyncio.sleep(0)  # both have been put
        core.gate.set()
        assert len(await looked) <= 1
        assert await asked == [0, 1, 2]
        assert await thread.stop(5)
        assert not failures

    asyncio.run(main())


def test_back_pressure_and_busy() -> None:
    async def main() -> None:
        core, failures = Recorder(), list[BaseException]()
        thread = thread_of(core, failures, places=3)
        core.gate.clear()
        for offset in range(3):
            await thread.submit(run_of(offset))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(thread.submit(run_of(3)), 0.2)
        assert thread.waiting == 3
        assert thread.busy_s() > 0
        with pytest.raises(TimeoutError):
            await thread.ask(lambda: 1, timeout_s=0.05)
        core.gate.set()
        await asyncio.wait_for(thread.submit(run_of(4)), 5)
        assert await thread.stop(5)
        assert core.applied == [0, 1, 2, 4]

    asyncio.run(main())


def test_what_waited_for_a_place_until_nobody_wanted_it_is_dropped() -> None:
    """A rebalance passed meanwhile: the next assignment reads it again, from an earlier position."""

    async def main() -> None:
        core, failures = Recorder(), list[BaseException]()
        thread = thread_of(core, failures, places=1)
        core.gate.clear()
        epoch = 1
        await thread.submit(run_of(0))
        late = asyncio.ensure_future(thread.submit(run_of(1), lambda: epoch == 1))
        await asyncio.sleep(0)
        epoch = 2
        core.gate.set()
        await asyncio.wait_for(late, 5)
        await asyncio.wait_for(thread.submit(run_of(2), lambda: epoch == 2), 5)
        assert await thread.stop(5)
        assert core.applied == [0, 2]

    asyncio.run(main())


def test_a_backlog_comes_in_bounded_batches() -> None:
    """Between two batches is a tick: users do not wait for all that was fetched."""

    async def main() -> None:
        core, failures = Recorder(batch_records=2), list[BaseException]()
        thread = LearnerThread(core, queue_runs=9, tick_s=0.005, on_failure=failures.append)
        core.gate.clear()
        for offset in range(6):
            await thread.submit(run_of(offset))
        thread.start()
        core.gate.set()
        assert await thread.stop(5)
        assert core.applied == list(range(6))
        assert core.batches == [2, 2, 2]

    asyncio.run(main())


def test_a_question_that_fails_hurts_only_its_asker() -> None:
    async def main() -> None:
        core, failures = Recorder(), list[BaseException]()
        thread = thread_of(core, failures)
        with pytest.raises(ZeroDivisionError):
            await thread.ask(lambda: 1 // 0)
        assert await thread.ask(lambda: 1) == 1
        assert await thread.stop(5)
        assert not failures

    asyncio.run(main())


def test_death_is_heard() -> None:
    async def main() -> None:
        core, failures = Recorder(), list[BaseException]()
        core.fail = True
        thread = thread_of(core, failures)
        await thread.submit(run_of(0))
        assert await asyncio.to_thread(thread.join, 5)
        assert [str(error) for error in failures] == ["broken on purpose"]

    asyncio.run(main())


def test_without_a_batch_the_tick_after_a_busy_one_waits_twice_as_long() -> None:
    pace = TickPace(0.02, now_s=10.0)
    pace.ticked(10.02, 10.021)
    assert pace.due_s == pytest.approx(10.04)
    pace.applied()
    pace.ticked(10.04, 10.041)
    assert pace.due_s == pytest.approx(10.08)  # nothing came: what is due may wait for the next batch
    pace.applied()
    assert pace.due_s == pytest.approx(10.06)  # it came, and its users wait no longer than ever
    pace.ticked(10.065, 10.066)
    pace.ticked(10.105, 10.106)
    assert pace.due_s == pytest.approx(10.125)  # the stream has dried up: back to the ordinary pace


def test_after_a_long_tick_learning_gets_a_quarter_of_one() -> None:
    pace = TickPace(0.02, now_s=10.0)
    pace.applied()
    pace.ticked(10.02, 10.1)
    pace.applied()
    assert pace.due_s == pytest.approx(10.105)


def test_the_pace_hears_of_every_batch_and_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    class Told(TickPace):
        def applied(self) -> None:
            heard.append("applied")
            super().applied()

        def ticked(self, began_s: float, ended_s: float) -> None:
            assert began_s <= ended_s
            heard.append("ticked")
            super().ticked(began_s, ended_s)

    monkeypatch.setattr("streams.learner_thread.TickPace", Told)

    async def main() -> None:
        core, failures = Recorder(), list[BaseException]()
        thread = thread_of(core, failures)
        await thread.submit(run_of(0))
        assert await thread.ask(lambda: list(core.applied)) == [0]
        core.ticked.clear()
        assert await asyncio.to_thread(core.ticked.wait, 5)
        assert await thread.stop(5)

    asyncio.run(main())
    assert heard.count("applied") == 1
    assert "ticked" in heard[heard.index("applied") :]
