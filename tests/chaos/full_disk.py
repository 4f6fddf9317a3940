"""The command line with a disk that is full for checkpoints while the file FULL_DISK_WHILE exists."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from schemas.errors import StoreError
from streams.checkpoint import local
from streams.checkpoint.store import Buffer
from streams.cli import main


def run() -> None:
    """Run the command given, on that disk."""
    marker = Path(os.environ.pop("FULL_DISK_WHILE"))
    original = local.LocalStore.create

    def create(self: local.LocalStore, name: str, *data: Buffer) -> None:
        if marker.exists() and "checkpoint" in name:
            raise StoreError(f"{name}: {os.strerror(errno.ENOSPC)}")
        original(self, name, *data)

    local.LocalStore.create = create  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    run()
