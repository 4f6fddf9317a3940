"""Stores on a disk and on fsspec, and what tells a living owner from a dead one."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from schemas.errors import ConfigurationError, ExistsError, MissingError, OwnedError, StoreError
from schemas.learner import Arrays
from streams.checkpoint.epochs import claim
from streams.checkpoint.format import Cut
from streams.checkpoint.history import History
from streams.checkpoint.journal import JournalEntry, JournalWriter
from streams.checkpoint.local import LocalStore
from streams.checkpoint.owners import Owner
from streams.checkpoint.segments import read_entries
from streams.checkpoint.store import Store, open_store


@pytest.fixture(params=["local", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    url = {"local": "{}", "file": "file://{}", "memory": "memory:/{}"}[request.param]
    return open_store(url.format(tmp_path / "store")).sub("a")


def test_a_store_is_what_its_protocol_says(store: Store) -> None:
    assert store.names("x") == []
    store.create("x/b", b"12", memoryview(b"34"))
    with pytest.raises(ExistsError):
        store.create("x/b", b"other")
    store.create("x/a/c", b"")
    store.put("x/p", b"1")
    store.put("x/p", b"2")
    assert (store.read("x/b"), store.read("x/p"), store.sub("x").read("a/c")) == (b"1234", b"2", b"")
    assert store.names("x") == ["a", "b", "p"]
    with pytest.raises(MissingError):
        store.read("x/none")
    store.delete("x/none")
    store.delete("x/a/c")
    store.delete("x/b")
    assert store.names("x") == ["p"]
    appender = store.append("j/0001")
    appender.write(b"ab")
    appender.sync()
    appender.write(b"cd")
    appender.sync()
    appender.close()
    assert b"".join(store.read(f"j/{name}") for name in store.names("j")) == b"abcd"
    store.sweep()


def test_one_of_many_exclusive_creates_succeeds(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(30):
        won: list[int] = []
        barrier = threading.Barrier(4)

        def create(
            data: int, won: list[int] = won, barrier: threading.Barrier = barrier, n: int = number
        ) -> None:
            barrier.wait()
            try:
                store.create(f"c/{n}", bytes([data]) * 100)
                won.append(data)
            except ExistsError:
                pass

        threads = [threading.Thread(target=create, args=(data,)) for data in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read(f"c/{number}") == bytes(won) * 100


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 4:
            return real(descriptor, data[:4])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        with pytest.raises(StoreError, match="No space left on device") as caught:
            store.create("u/unit", b"123456")
        assert caught.value.retriable
    assert store.names("u") == []
    assert not list((tmp_path / ".tmp").iterdir())
    store.create("u/unit", b"123456")


def test_a_full_disk_costs_a_checkpoint_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path)).sub("s")
    tenure = claim(store, owner=Owner.here("worker"), take_over=False)
    units: dict[str, Arrays] = {"model": {"a": np.arange(1_000)}, "user-0": {"b": np.arange(1_000)}}

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tenure.journal.append(JournalEntry(sequence=1, runs=[], kind="cut"))
    tenure.journal.wait_durable(1)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(StoreError, match="No space left"):
            tenure.write(Cut(sequence=1, units=units, meta={}))
    assert store.names("checkpoints") == []
    info = tenure.write(Cut(sequence=1, units=units, meta={}))
    tenure.close()
    assert History(store).names() == [info.name]


def test_temporary_files_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("x", b"1")
    (tmp_path / ".tmp" / "dead").write_bytes(b"half")
    with store._written((b"2",), durable=False) as alive:
        store.sweep()
        assert [alive] == list((tmp_path / ".tmp").iterdir())


def test_a_journal_that_cannot_be_written_says_so_at_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(open_store(str(tmp_path)), 1, 0, lambda: None)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", refuse)
    writer.append(JournalEntry(sequence=1, runs=[]))
    with pytest.raises(StoreError, match=r"the journal cannot be written: .*Input/output error"):
        writer.wait_durable(1)
    with pytest.raises(StoreError):
        writer.append(JournalEntry(sequence=2, runs=[]))
    writer.close()


def test_group_commit_from_a_thread_keeps_the_order(store: Store) -> None:
    writer = JournalWriter(store, 7, 0, lambda: None)
    for sequence in range(1, 501):
        writer.append(
            JournalEntry(sequence=sequence, runs=[], kind="cut" if sequence % 100 == 0 else "batch")
        )
        if sequence % 50 == 0:
            writer.wait_durable(sequence)
            assert writer.durable_sequence >= sequence
    writer.close()
    assert [entry.sequence for entry in read_entries(store, 7, after=0, upto=1_000)] == list(range(1, 501))
    assert [entry.sequence for entry in read_entries(store, 7, after=250, upto=252)] == [251, 252]


class Overwriting(MemoryFileSystem):
    protocol = "overwriting"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value)


def test_a_filesystem_that_overwrites_is_refused_at_start() -> None:
    fsspec.register_implementation("overwriting", Overwriting, clobber=True)
    with pytest.raises(ConfigurationError, match="overwrites where it should create exclusively"):
        open_store("overwriting://x")
    with pytest.raises(ConfigurationError, match=r"worker\.state_dir"):
        open_store("nonsense://x")


def test_only_who_is_certainly_gone_is_taken_for_dead() -> None:
    here = Owner.here("worker")
    assert not here.is_gone()
    boot, namespace, _ = here.started.split("/")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        owner = msgspec.structs.replace(here, pid=child.pid, started=f"{boot}/{namespace}/{started}")
        assert not owner.is_gone()
        child.kill()
    assert owner.is_gone()
    replace = msgspec.structs.replace
    assert replace(here, started=f"{boot}/{namespace}/1").is_gone()  # the pid was given to another one
    assert replace(here, started=f"before/{namespace}/1").is_gone()  # the machine was started again
    assert not replace(here, started=f"{boot}/another container/1").is_gone()
    assert not replace(owner, host="elsewhere").is_gone()


def test_who_may_claim(tmp_path: Path) -> None:
    store, now = open_store(str(tmp_path)), [100.0]
    far = Owner(host="elsewhere", pid=1, started="a/b/1", role="learner")

    def refused(owner: Owner = far) -> None:
        with pytest.raises(OwnedError, match=r"learner on elsewhere \(pid 1\).*--take-over"):
            claim(store, owner=owner, take_over=False, now_s=lambda: now[0])

    first = claim(store, owner=far, take_over=False, now_s=lambda: now[0])
    refused()
    now[0] += 11.0
    first.beat()
    now[0] += 9.0
    refused()
    now[0] += 2.0  # 11 s after its last sign of life
    second = claim(store, owner=far, take_over=False, now_s=lambda: now[0])
    refused()
    second.close()
    third = claim(store, owner=far, take_over=False, now_s=lambda: now[0])
    refused()
    assert claim(store, owner=far, take_over=True, now_s=lambda: now[0]).epoch == third.epoch + 1 == 4


def test_a_file_swept_before_it_is_locked_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sweeps between the making of a temporary file and its lock."""
    store, other = LocalStore(tmp_path), LocalStore(tmp_path)
    lock = fcntl.flock
    n_locks = 0

    def late(descriptor: int, operation: int) -> None:
        nonlocal n_locks
        n_locks += 1
        if n_locks == 1:
            other.sweep()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    store.sub("p-1").create("a/b", b"whole")
    assert store.read("p-1/a/b") == b"whole"
    assert n_locks == 3  # the first, the sweeper's, and the second
