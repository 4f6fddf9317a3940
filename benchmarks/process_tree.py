"""Memory and time of the processes below a content worker, as the kernel tells them from outside."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

LOOK_S = 0.01
LATE_S = 0.5


class Seen(Struct):
    """A process: `seconds` that it was seen for, and its peak of memory until then."""

    seconds: float
    peak_mib: float


class ProcessTree:
    """Looks at the children and grandchildren of a process every `LOOK_S`, on a thread.

    Attributes
    ----------
    children : dict of (pid, start) to Seen
        Here: decoders.
    grandchildren : dict of (pid, start) to Seen
        Here: one for each medium. Its memory includes what it shares with its decoder.
    stood_still_s : float
        Time between looks that came much too late: this process was stopped, or the machine. No process is
        said to have lasted longer for it.
    """

    def __init__(self, pid: int) -> None:
        self.children: dict[tuple[int, int], Seen] = {}
        self.grandchildren: dict[tuple[int, int], Seen] = {}
        self.stood_still_s = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(LOOK_S):
            gap_s = time.monotonic() - last
            last += gap_s
            if gap_s > LATE_S:
                self.stood_still_s += gap_s
                gap_s = 0.0
            parents = {pid: (parent, start) for pid, parent, start in processes()}
            for pid, (parent, start) in parents.items():
                if parent == self._pid:
                    self._note(self.children, pid, start, gap_s)
                elif parents.get(parent, (0, 0))[0] == self._pid:
                    self._note(self.grandchildren, pid, start, gap_s)

    @staticmethod
    def _note(seen: dict[tuple[int, int], Seen], pid: int, start: int, gap_s: float) -> None:
        if peak := mib(pid, "VmHWM"):
            before = seen.get((pid, start))
            seen[pid, start] = Seen(before.seconds + gap_s if before else gap_s, peak)


def processes() -> list[tuple[int, int, int]]:
    """Process id, that of the parent, and the start in ticks since the machine's, of all processes."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text(encoding="ascii", errors="replace")
                rest = fields.rpartition(")")[2].split()
                found.append((int(entry), int(rest[1]), int(rest[19])))
    return found


def mib(pid: int, name: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of a process; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0
