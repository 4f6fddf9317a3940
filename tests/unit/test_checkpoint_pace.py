"""Checkpoints written evenly: in pieces, over the time given, at once when somebody waits."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import cast

import pytest

from streams.checkpoint.local import LocalStore
from streams.checkpoint.pace import PIECE_BYTES, SYNC_BYTES, EvenPace
from streams.checkpoint.store import Buffer


class Clock:
    """Seconds that pass while somebody waits."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits: list[float] = []
        self.is_set = threading.Event().is_set

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


def pace_of(clock: Clock, n_bytes: int, over_s: float) -> EvenPace:
    return EvenPace(n_bytes, over_s, cast("threading.Event", clock), monotonic=clock)


def test_pieces_are_spread_over_the_time() -> None:
    clock = Clock()
    pace = pace_of(clock, 10, 2.0)
    for _ in range(10):
        pace(1)
    assert clock.now_s == pytest.approx(102.0)
    assert clock.waits == pytest.approx([0.2] * 10)
    assert pace.waited_s == pytest.approx(2.0)
    pace(5)  # more than was said is not held up
    assert clock.now_s == pytest.approx(102.0)


def test_a_slow_disk_does_not_wait() -> None:
    clock = Clock()
    pace = pace_of(clock, 10, 2.0)
    for _ in range(10):
        clock.now_s += 0.3
        pace(1)
    assert not clock.waits
    assert pace.waited_s == 0.0


def test_nobody_waits_in_a_hurry() -> None:
    hurry = threading.Event()
    pace = EvenPace(2, 3_600.0, hurry)
    thread = threading.Thread(target=pace, args=(1,), daemon=True)
    thread.start()
    hurry.set()  # also amid a wait
    thread.join(10.0)
    assert not thread.is_alive()
    began_s = time.monotonic()
    pace(1)
    assert time.monotonic() - began_s < 60.0


def test_a_blob_is_written_in_durable_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []
    synced: list[int] = []
    fdatasync = os.fdatasync

    def sync(descriptor: int) -> None:
        synced.append(sum(pieces))
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    part = bytes(range(256)) * (PIECE_BYTES // 256 * 3 + 8)
    data: list[Buffer] = [b"head", part, part, memoryview(b"tail")]
    store = LocalStore(tmp_path)

    def pace(n_bytes: int) -> bool:
        pieces.append(n_bytes)
        return True

    store.create("paced", *data, pace=pace)
    assert store.read("paced") == b"".join(data)
    assert sum(pieces) == sum(map(len, data))
    assert max(pieces) == PIECE_BYTES
    assert len(synced) == 1  # what is left is synced with the blob
    assert SYNC_BYTES <= synced[0] < SYNC_BYTES + PIECE_BYTES
    store.create("in-a-hurry", *data, pace=lambda _: False)
    assert len(synced) == 1
    store.create("at-once", *data)
    assert store.read("at-once") == store.read("paced") == store.read("in-a-hurry")
