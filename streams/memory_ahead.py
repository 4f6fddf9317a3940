"""A thread that finds memory for what grows before it is written: see `learners.growth`."""

from __future__ import annotations

import threading
from typing import Final

import structlog

from learners.growth import populate

log = structlog.get_logger(__name__)

PACE_S: Final = 0.05
"""Rest between two looks; none while there was something to do."""


class MemoryAhead:
    """Keeps the reserves of this process populated ahead of their rows, as long as it is started.

    What a first write costs where the machine's memory is lent too, 6 to 15 ms for 2 MiB, is then paid here
    and not by the thread that learns. Ends by itself on kernels that cannot; a look costs 30 microseconds.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-ahead", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after at most one piece."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it runs; not on a kernel that cannot."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            found = populate()
            if found is None:
                log.info("memory_not_found_ahead", cause="a kernel before 5.14, or memory is limited")
                return
            if not found:
                self._stopping.wait(PACE_S)
