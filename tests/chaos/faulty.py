"""The command line with faults that a test arms while it runs: ``start_worker(module="tests.chaos.faulty")``.

FAULTS in the environment names a folder. A fault is armed while a file of its name is in there:

=========  ==================================================================
full       checkpoints meet a full disk
unit       the process stops between two units of a checkpoint
refold     the process stops between two entries of a recovery
learn      the learner thread stops amid a batch
=========  ==================================================================

What stops makes the file ``<fault>.reached``, and goes on when the fault is armed no longer.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from schemas.errors import StoreError
from schemas.runs import RecordRun
from streams.checkpoint import local
from streams.checkpoint.journal import JournalEntry
from streams.checkpoint.pace import Pace
from streams.checkpoint.store import Buffer
from streams.cli import main
from streams.core import WorkerCore

VARIABLE = "FAULTS"
LOOK_EVERY_S = 0.01


class Faults:
    """Both sides of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def arm(self, name: str) -> None:
        """Let it happen from now on."""
        (self.folder / name).touch()

    def disarm(self, name: str) -> None:
        """Let it end."""
        (self.folder / name).unlink()

    def armed(self, name: str) -> bool:
        """Whether it is to happen."""
        return (self.folder / name).exists()

    def reached(self, name: str) -> bool:
        """Whether the process stops there, or has."""
        return (self.folder / f"{name}.reached").exists()

    def stop(self, name: str) -> None:
        """Stay here while the fault is armed."""
        if self.armed(name):
            (self.folder / f"{name}.reached").touch()
            while self.armed(name):
                time.sleep(LOOK_EVERY_S)


def run() -> None:
    """Run the command given, with faults."""
    faults = Faults(Path(os.environ[VARIABLE]))
    create, refold, apply = local.LocalStore.create, WorkerCore.refold, WorkerCore.apply

    def faulty_create(self: local.LocalStore, name: str, *data: Buffer, pace: Pace | None = None) -> None:
        if name.startswith("checkpoints/"):
            if faults.armed("full"):
                raise StoreError(f"{name}: {os.strerror(errno.ENOSPC)}")
            if "user-" in name:  # the unit `model` was written before
                faults.stop("unit")
        create(self, name, *data, pace=pace)

    def faulty_refold(self: WorkerCore, entry: JournalEntry, runs: list[RecordRun]) -> None:
        refold(self, entry, runs)
        faults.stop("refold")

    def faulty_apply(self: WorkerCore, runs: list[RecordRun]) -> None:
        if any(run.topic == self.names.behaviour for run in runs) and self.epoch:  # not amid the warm-up
            faults.stop("learn")
        apply(self, runs)

    local.LocalStore.create = faulty_create  # type: ignore[method-assign]
    WorkerCore.refold = faulty_refold  # type: ignore[method-assign]
    WorkerCore.apply = faulty_apply  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    run()
