"""Processes that hold epochs, and how others tell whether they live."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from msgspec import Struct

from schemas.errors import DamagedError, FencedError, MissingError, StateError

from .format import unseal
from .history import BEATS, EPOCHS, newest_epoch, numbers
from .segments import epoch_text
from .store import Store


class Owner(Struct, kw_only=True, frozen=True):
    """The process behind an epoch.

    Attributes
    ----------
    host : str
    pid : int
    started : str
        Boot, process namespace and start time of the process: what tells it from a later one of
        the same pid. Empty where the system does not say.
    role : str
        For messages.
    """

    host: str
    pid: int
    started: str
    role: str

    @classmethod
    def here(cls, role: str) -> Owner:
        """The process that asks."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), pid=pid, started=_started(pid), role=role)

    def is_gone(self) -> bool:
        """Whether it certainly ended: it was of this host, and this host does not have it any more."""
        there, here = self.started.split("/"), _started(os.getpid()).split("/")
        if self.host != socket.gethostname() or not len(there) == len(here) == 3:
            return False
        if there[0] != here[0]:
            return True
        # Processes of another container are not to be seen from here.
        return there[1] == here[1] and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"{self.role} on {self.host} (pid {self.pid})"


class EpochRecord(Struct, kw_only=True, frozen=True):
    """Who claimed an epoch, and when."""

    owner: Owner
    claimed_at_s: float


class Beat(Struct, kw_only=True, frozen=True):
    """A sign of life: when, and up to where the journal was durable."""

    at_s: float
    durable: int
    released: bool = False


class Holder(Struct, kw_only=True, frozen=True):
    """The newest epoch's owner as others see it."""

    epoch: int
    owner: Owner | None
    age_s: float
    released: bool

    def lives(self, stale_after_s: float) -> bool:
        """Whether it must be taken for alive."""
        gone = self.released or (self.owner is not None and self.owner.is_gone())
        return not gone and self.age_s <= stale_after_s


def owner_record(store: Store, epoch: int) -> EpochRecord | None:
    """Who claimed an epoch, None when its record is missing or damaged."""
    name = f"{EPOCHS}/{epoch_text(epoch)}"
    try:
        return unseal("epoch", name, store.read(name), EpochRecord)
    except (MissingError, DamagedError):
        return None


def check_fence(store: Store, epoch: int) -> None:
    """Look whether `epoch` is still the newest.

    Raises
    ------
    FencedError
        A later one exists; names its owner.
    StateError
        The epoch's own record is gone.
    """
    newest = max(numbers(store, EPOCHS), default=0)
    if newest > epoch:
        record = owner_record(store, newest)
        claimant = "another process" if record is None else record.owner
        raise FencedError(f"epoch {epoch} has ended: epoch {newest} was claimed by {claimant}")
    if newest < epoch:
        raise StateError(f"the record of epoch {epoch} is gone: something else empties the store")


def last_beat(store: Store, epoch: int) -> Beat | None:
    """The last sign of life of an epoch's writer, None when it is missing or damaged."""
    name = f"{BEATS}/{epoch_text(epoch)}"
    try:
        return unseal("heartbeat", name, store.read(name), Beat)
    except (MissingError, DamagedError):
        return None


def holder_of(store: Store, now_s: float) -> Holder | None:
    """The newest epoch's owner, None when there was never one."""
    newest = newest_epoch(store)
    if not newest:
        return None
    record = owner_record(store, newest)
    beat = last_beat(store, newest)
    signs = [0.0 if record is None else record.claimed_at_s, 0.0 if beat is None else beat.at_s]
    return Holder(
        epoch=newest,
        owner=None if record is None else record.owner,
        age_s=now_s - max(signs),
        released=beat is not None and beat.released,
    )


def _started(pid: int) -> str:
    """``boot id/pid namespace/start time in clock ticks`` of a process, empty when it is not there."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
        # The name of the program, in parentheses, may hold anything; the start time is field 22.
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return ""
    # A zombie has ended; only its parent has not noticed.
    return "" if fields[0] in "ZX" else f"{boot}/{namespace}/{fields[19]}"
