"""Writing a journal: group commit on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog

from schemas.errors import FencedError, ReelflowError, StateError, StoreError

from .segments import JournalEntry, JournalRun, frame, segment_head, segment_name
from .store import Appender, Store

__all__ = ["JournalEntry", "JournalRun", "JournalWriter"]

log = structlog.get_logger(__name__)


class JournalWriter:
    """Appends entries of one epoch: from one thread, in microseconds; a thread of its own writes.

    Group commit: whatever has been appended while the disk was busy is written and synced at once,
    then the fence is looked at, and only then is it durable. So a writer whose successor has begun
    to read the journal never takes for durable what that one has not seen. In a store that does not
    block there is no thread: `wait_durable` commits.

    Parameters
    ----------
    store : Store
    epoch : int
    last : int
        Sequence of the newest entry of all epochs before.
    fence : Callable[[], None]
        Raises `FencedError` when a later epoch exists.
    """

    def __init__(self, store: Store, epoch: int, last: int, fence: Callable[[], None]) -> None:
        self._store = store
        self._epoch = epoch
        self._fence = fence
        self._appended = last
        self._durable = last
        self._group = 0
        self._appender: Appender | None = None
        self._pending: list[JournalEntry] = []
        self._error: BaseException | None = None
        self._closing = False
        lock = threading.Lock()
        self._more = threading.Condition(lock)
        self._done = threading.Condition(lock)
        self._thread: threading.Thread | None = None

    @property
    def durable_sequence(self) -> int:
        """Everything up to this sequence is durable."""
        return self._durable

    def append(self, entry: JournalEntry) -> None:
        """Add an entry; never waits for the disk.

        Raises
        ------
        StateError
            It does not follow the newest one, or the journal is closed.
        StoreError, FencedError
            The journal could not be written before.
        """
        with self._more:
            self._check()
            if self._closing:
                raise StateError("the journal is closed")
            if entry.sequence != self._appended + 1:
                raise StateError(f"journal entry {entry.sequence} cannot follow {self._appended}")
            self._appended = entry.sequence
            self._pending.append(entry)
            if self._thread is None and self._store.blocking:
                self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                self._thread.start()
            self._more.notify()

    def wait_durable(self, sequence: int, timeout_s: float | None = None) -> bool:
        """Whether everything appended so far up to `sequence` is durable, within `timeout_s` if given.

        Raises
        ------
        StoreError, FencedError
            It never will be, or nobody knows.
        """
        if self._durable >= sequence:
            return True
        if not self._store.blocking:
            self._commit_here()
            return True
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._done:
            target = min(sequence, self._appended)
            while self._durable < target:
                self._check()
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                self._done.wait(left_s)
        return True

    def close(self) -> None:
        """Write what is pending, end the thread; errors stay for `wait_durable` to tell."""
        with self._more:
            self._closing = True
            self._more.notify()
        if self._thread is not None:
            self._thread.join()
        elif self._error is None:
            with suppress(ReelflowError):
                self._commit_here()
        if self._appender is not None:
            self._appender.close()
            self._appender = None

    def _check(self) -> None:
        error = self._error
        if error is None:
            return
        if isinstance(error, FencedError):
            raise FencedError(str(error)) from error
        if isinstance(error, StoreError):
            raise StoreError(f"the journal cannot be written: {error}") from error
        raise StateError(f"the journal's writer has ended: {error!r}") from error

    def _run(self) -> None:
        while True:
            with self._more:
                while not self._pending and not self._closing:
                    self._more.wait()
                group, self._pending = self._pending, []
            if not group:
                return
            try:
                self._commit(group)
            except BaseException as error:
                log.exception("journal_failed")
                with self._done:
                    self._error = error
                    self._done.notify_all()
                return
            with self._done:
                self._durable = group[-1].sequence
                self._done.notify_all()

    def _commit_here(self) -> None:
        self._check()
        group, self._pending = self._pending, []
        if not group:
            return
        try:
            self._commit(group)
        except BaseException as error:
            self._error = error
            raise
        self._durable = group[-1].sequence

    def _commit(self, group: list[JournalEntry]) -> None:
        start = 0
        for i, entry in enumerate(group, 1):
            if entry.kind == "cut" or i == len(group):
                self._write(group[start:i])
                start = i
        self._fence()

    def _write(self, entries: list[JournalEntry]) -> None:
        """Make entries durable as one frame; a cut, which can only be the last, ends the segment."""
        head = b""
        appender = self._appender
        if appender is None:
            first = entries[0].sequence
            appender = self._appender = self._store.append(segment_name(self._epoch, first))
            head = segment_head(self._epoch, first)
            self._group = 0
        self._group += 1
        appender.write(head + frame(self._group, msgspec.msgpack.encode(entries)))
        appender.sync()
        if entries[-1].kind == "cut":
            appender.close()
            self._appender = None
