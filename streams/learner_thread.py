"""The one thread that learns: a bounded queue in front, a tick inside, a watchdog around.

Learning never runs on the event loop. `submit` waits for a place, so back-pressure reaches the
agents, their buffers, and finally the fetcher. The thread drains what waits, hands it to the
core as one batch, and calls the core's tick at a steady pace. Questions (`ask`) run between
batches, so they see a consistent model without a lock: in the order in which they came among the runs,
or before the next batch where that does not matter (`look`; a full queue is seconds of work).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

import structlog

from schemas.runs import RecordRun

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Core(Protocol):
    """What the thread drives."""

    @property
    def batch_records(self) -> int:
        """Runs go to `apply` together until they have so many records; a run is not cut."""

    def apply(self, runs: list[RecordRun]) -> None:
        """Learn from what arrived."""

    def tick(self) -> None:
        """Publish what is due; called every tick and after every batch that took longer."""

    def close(self) -> None:
        """Publish what is left and flush."""


class LearnerThread:
    """Runs a `Core`; see the module's docstring.

    Parameters
    ----------
    core : Core
        Everything it owns is touched by this thread only.
    queue_runs : int
        Places for runs. More places even out what the broker delivers, and cost memory.
    tick_s : float
        Pace of `Core.tick`.
    on_failure : Callable[[BaseException], None]
        Called from the thread with what ended it; must end the process.
    """

    def __init__(
        self,
        core: Core,
        *,
        queue_runs: int,
        tick_s: float,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._core = core
        self._tick_s = tick_s
        self._on_failure = on_failure
        self._queue: queue.SimpleQueue[RecordRun | Callable[[], None] | None] = queue.SimpleQueue()
        self._looks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._places = asyncio.Semaphore(queue_runs)
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)
        self._busy_since: float | None = None

    @property
    def waiting(self) -> int:
        """Runs queued or being learned."""
        return self._waiting

    def busy_s(self) -> float:
        """Seconds the current batch or tick has taken so far; 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Start; must be called on the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    async def submit(self, run: RecordRun, wanted: Callable[[], bool] = lambda: True) -> None:
        """Hand over a run, waiting for a place; drop it if by then it is not `wanted` any more."""
        await self._places.acquire()
        if not wanted():
            self._places.release()
            return
        self._waiting += 1
        self._queue.put(run)

    async def ask(self, question: Callable[[], T], timeout_s: float = 5.0) -> T:
        """Run `question` on the thread between batches and return its answer.

        Raises
        ------
        TimeoutError
            When the thread is too busy to answer in time.
        """
        answer, run = _promise(question)
        self._queue.put(run)
        return await asyncio.wait_for(asyncio.wrap_future(answer), timeout_s)

    async def look(self, question: Callable[[], T], timeout_s: float = 5.0) -> T:
        """As `ask`, before the next batch: what was submitted already may not have been learned.

        Raises
        ------
        TimeoutError
            When the thread is too busy to answer in time.
        """
        answer, run = _promise(question)
        self._looks.put(run)
        self._queue.put(_wake)
        return await asyncio.wait_for(asyncio.wrap_future(answer), timeout_s)

    async def stop(self, timeout_s: float) -> bool:
        """Let the queue drain, close the core, join; False when that took too long."""
        self._queue.put(None)
        return await asyncio.to_thread(self.join, timeout_s)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; False when it did not. Blocks: not for the event loop."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            log.exception("learner_thread_died")
            self._on_failure(error)

    def _work(self) -> None:
        pace = TickPace(self._tick_s, time.monotonic())
        stopping = False
        while not stopping:
            runs: list[RecordRun] = []
            n_records = 0
            questions: list[Callable[[], None]] = []  # answered after what was submitted before them
            try:
                entry = self._queue.get(timeout=max(0.0, pace.due_s - time.monotonic()))
                most = self._core.batch_records
                while True:
                    if entry is None:
                        stopping = True
                    elif isinstance(entry, RecordRun):
                        runs.append(entry)
                        n_records += len(entry)
                    else:
                        questions.append(entry)
                    if n_records >= most:
                        break  # the rest is the next batch: users wait for the tick between them
                    entry = self._queue.get_nowait()
            except queue.Empty:
                pass
            self._busy_since = time.monotonic()
            while not self._looks.empty():
                self._looks.get_nowait()()
            if runs:
                self._core.apply(runs)
                self._release(len(runs))
                pace.applied()
            for question in questions:
                question()
            began_s = time.monotonic()
            if began_s >= pace.due_s:
                self._core.tick()
                pace.ticked(began_s, time.monotonic())
            self._busy_since = None
        self._core.close()

    def _release(self, n: int) -> None:
        def give_back() -> None:
            self._waiting -= n
            for _ in range(n):
                self._places.release()

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(give_back)


class TickPace:
    """When a tick is due: a tick's length after the last began, a quarter of it after a long one ended.

    After a tick that followed a batch, one without is due only after twice the time: where batches keep
    coming, what falls due between two of them goes with the next, for a tick costs as much beforehand
    whether it makes few lists or many (docs/benchmarks.md).
    """

    def __init__(self, tick_s: float, now_s: float) -> None:
        self._tick_s = tick_s
        self._next_s = self.due_s = now_s + tick_s
        self._is_flowing = False

    def applied(self) -> None:
        """A batch was applied, whose users wait for the next tick."""
        self._is_flowing = True
        self.due_s = self._next_s

    def ticked(self, began_s: float, ended_s: float) -> None:
        """A tick is over."""
        self._next_s = max(began_s + self._tick_s, ended_s + self._tick_s / 4)
        self.due_s = self._next_s + (self._tick_s if self._is_flowing else 0.0)
        self._is_flowing = False


def _wake() -> None:
    """Ends the thread's wait for runs."""


def _promise(question: Callable[[], T]) -> tuple[Future[T], Callable[[], None]]:
    """The answer to a question, and what gives it."""
    answer: Future[T] = Future()

    def run() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(question())
        except Exception as error:  # noqa: BLE001 - the asker gets whatever it was
            answer.set_exception(error)

    return answer, run
