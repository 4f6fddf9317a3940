"""Counts the events of one engine from the first one on, and prints the result as one JSON line."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

LOOK_EVERY = 64
"""Events between two looks at the clock."""


class Tally:
    """Events, seconds and CPU seconds between the first event and the last look at the clock.

    Parameters
    ----------
    limit : int
        Events after which `done` holds.
    seconds : float
        Seconds from the first event after which `done` holds.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._n = self._n_seen = 0
        self._first_s = self._last_s = 0.0
        self._first_cpu_s = self._last_cpu_s = 0.0
        self.done = False
        """Whether the window is over."""

    def add(self, n: int = 1) -> None:
        """Count `n` events."""
        if not self._n:
            self._first_s, self._first_cpu_s = time.monotonic(), time.process_time()
        self._n += n
        if self._n - self._n_seen >= LOOK_EVERY or self._n >= self._limit:
            self._n_seen = self._n
            self._last_s, self._last_cpu_s = time.monotonic(), time.process_time()
            self.done = self._n >= self._limit or self._last_s - self._first_s >= self._seconds

    def report(self) -> None:
        """Print events, seconds, cpu_s and peak_mib of this process."""
        result = {
            "events": self._n_seen,
            "seconds": self._last_s - self._first_s,
            "cpu_s": self._last_cpu_s - self._first_cpu_s,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(result), flush=True, file=sys.__stdout__)  # Faust redirects sys.stdout to its log


def arguments_of(description: str | None) -> argparse.ArgumentParser:
    """The options that every engine takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--folder", required=True, help="for state; empty at the start")
    parser.add_argument("--events", type=int, required=True, help="stop after this many")
    parser.add_argument("--seconds", type=float, required=True, help="or this long after the first")
    return parser
