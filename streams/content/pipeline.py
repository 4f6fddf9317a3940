"""Jobs through the stages: media are read by threads that wait for decoders, the rest by one, in batches.

No stage holds another up but by its own limit: items without media pass those whose media are slow, and what
was sent again in the background comes after what is new.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from schemas.errors import MediaError
from schemas.media import MediaModality

from .decoded import Decoded
from .jobs import Job

log = structlog.get_logger(__name__)

LINGER_S: Final = 0.01
IDLE_S: Final = 0.2


class Pipeline:
    """See the module's docstring.

    Parameters
    ----------
    read : callable
        Reads and decodes a medium; raises `MediaError`.
    finish : callable
        Given at most `batch_size` jobs whose media were read, on a thread of its own: encodes, publishes, and
        marks them done.
    batch_size, media_workers : int
        Decoded media of at most twice `batch_size` items are held at once: 4 MB of a video.
    on_failure : callable
        Given what ended the thread; must end the process.
    """

    def __init__(
        self,
        read: Callable[[str, MediaModality], Decoded],
        finish: Callable[[list[Job]], None],
        *,
        batch_size: int,
        media_workers: int,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._read, self._finish, self._on_failure = read, finish, on_failure
        self._batch_size = batch_size
        self._condition = threading.Condition()
        self._live: deque[Job] = deque()
        self._background: deque[Job] = deque()
        self._ready: deque[Job] = deque()
        self._n_reading = 0
        self._n_finishing = 0
        self._left: dict[int, int] = {}
        self._newest: dict[str, int] = {}
        self._stopping = False
        self._busy_since: float | None = None
        self._readers = ThreadPoolExecutor(media_workers, thread_name_prefix="media")
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)

    @property
    def n_waiting(self) -> int:
        """Jobs not finished."""
        with self._condition:
            return self._count()

    @property
    def n_background(self) -> int:
        """Background jobs whose media nobody has begun to read."""
        return len(self._background)

    def busy_s(self) -> float:
        """Seconds that the batch at hand has taken so far."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def offer(self, job: Job) -> None:
        """Take a job; from any thread. A newer one of the same item overtakes the older."""
        with self._condition:
            if self._stopping:
                return
            self._newest[job.item_id] = max(job.source.offset, self._newest.get(job.item_id, -1))
            if not job.media:
                self._ready.append(job)
            else:
                (self._background if job.background else self._live).append(job)
            self._condition.notify()

    def is_newest(self, job: Job) -> bool:
        """Whether no newer record of the item is under way."""
        with self._condition:
            return self._newest.get(job.item_id, job.source.offset) <= job.source.offset

    def stop(self, timeout_s: float) -> bool:
        """Finish the batch at hand and leave the rest; False when that took too long."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._readers.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._busy_since = time.monotonic()
                self._finish(batch)
                self._busy_since = None
                self._forget(batch)
        except BaseException as error:
            log.exception("encoder_thread_died")
            self._on_failure(error)

    def _next_batch(self) -> list[Job]:
        """Jobs to finish; none when it is time to stop."""
        with self._condition:
            while True:
                if self._stopping:
                    return []
                self._top_up()
                if self._ready:
                    break
                self._condition.wait(IDLE_S)
            if len(self._ready) < self._batch_size and self._n_reading:
                self._condition.wait(LINGER_S)
            n = min(self._batch_size, len(self._ready))
            self._n_finishing = n
            return [self._ready.popleft() for _ in range(n)]

    def _top_up(self) -> None:
        while self._n_reading + len(self._ready) < 2 * self._batch_size and (self._live or self._background):
            job = (self._live or self._background).popleft()
            self._n_reading += 1
            self._left[id(job)] = len(job.media)
            for modality, reference in job.media.items():
                self._readers.submit(self._read_one, job, modality, reference)

    def _read_one(self, job: Job, modality: MediaModality, reference: str) -> None:
        try:
            if self.is_newest(job):
                job.take(modality, self._read(reference, modality))
        except MediaError as error:
            job.refuse(modality, error)
        except BaseException as error:
            if not self._stopping:  # else the pool was closed below it
                log.exception("media_reader_died")
                self._on_failure(error)
            return
        with self._condition:
            left = self._left[id(job)] - 1
            self._left[id(job)] = left
            if not left:
                del self._left[id(job)]
                self._n_reading -= 1
                self._ready.append(job)
                self._condition.notify()

    def _forget(self, batch: list[Job]) -> None:
        with self._condition:
            self._n_finishing = 0
            for job in batch:
                if self._newest.get(job.item_id) == job.source.offset:
                    del self._newest[job.item_id]

    def _count(self) -> int:
        return (
            len(self._live) + len(self._background) + len(self._ready) + self._n_reading + self._n_finishing
        )
