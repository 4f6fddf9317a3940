"""Checkpoints, journal and epochs against crashes at every call, and against two writers at once."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import DamagedError, FencedError, OwnedError, StateError, StoreError
from schemas.learner import Arrays
from streams.checkpoint.epochs import Tenure, claim
from streams.checkpoint.format import Cut
from streams.checkpoint.history import History
from streams.checkpoint.journal import JournalEntry, JournalRun
from streams.checkpoint.local import LocalStore
from streams.checkpoint.owners import Owner
from streams.checkpoint.store import Store, open_store
from tests.stores import HOWS, FaultyStore


class Crash(BaseException):
    """The process is gone."""


class Machine:
    """A state that is the list of all batches; what was told outside must be there again."""

    def __init__(self, store: Store, *, take_over: bool = True, number: int = 1) -> None:
        owner = Owner(host=f"host-{number}", pid=number, started="", role="worker")
        self.tenure: Tenure = claim(store, owner=owner, take_over=take_over, now_s=lambda: 1_000.0)
        base = self.tenure.base
        self.sequence = 0 if base is None else base.sequence
        self.applied: list[int] = [] if base is None else base.units["model"]["applied"].tolist()
        for entry in self.tenure.tail():
            self.sequence = entry.sequence
            self.applied += [run.first for run in entry.runs]
        assert self.sequence == self.tenure.end

    def batch(self, value: int) -> None:
        self.sequence += 1
        run = JournalRun(topic="t", partition=0, first=value, next=value + 1, keys=[None], values=[b"x"])
        self.tenure.journal.append(JournalEntry(sequence=self.sequence, runs=[run]))
        self.applied.append(value)

    def tell(self) -> list[int]:
        self.tenure.journal.wait_durable(self.sequence)
        return list(self.applied)

    def cut(self) -> None:
        self.sequence += 1
        self.tenure.journal.append(JournalEntry(sequence=self.sequence, runs=[], kind="cut"))
        applied = np.array(self.applied, dtype=np.int64)
        self.tenure.write(Cut(sequence=self.sequence, units={"model": {"applied": applied}}, meta={"a": 1}))
        self.tenure.prune(2)


def live(store: Store, told: list[int], rng: random.Random, number: int, n_steps: int) -> Machine:
    """One life of random steps; `told` grows to what was last published."""
    machine = Machine(store, number=number)
    assert machine.applied[: len(told)] == told, "what was told is not in the state"
    for _ in range(n_steps):
        if rng.random() < 0.2:
            machine.cut()
        else:
            machine.batch(rng.randrange(1_000_000))
        if rng.random() < 0.4:
            told[:] = machine.tell()
    return machine


@settings(max_examples=500, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_was_told_survives_crashes_at_any_call(seed: int) -> None:
    rng = random.Random(seed)
    store, told = FaultyStore(), list[int]()
    for number in range(8):
        error = rng.choice((StoreError, Crash))
        store.fail(at=store.n_calls + rng.randint(1, rng.choice((8, 60))), how=rng.choice(HOWS), error=error)
        with suppress(Crash, StoreError):
            live(store, told, rng, number, 12)
        if rng.random() < 0.5:
            store.lose_power(rng)
    store.fail(at=0, error=Crash, calls=0)
    live(store, told, rng, 9, 0)


@settings(max_examples=500, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_two_writers_at_once_agree_on_what_was_told(seed: int) -> None:
    """One goes on between any two calls of the other: while it claims, commits, writes or prunes."""
    rng = random.Random(seed)
    store, told = FaultyStore(), list[list[int]]()
    machines = [Machine(store)]

    def work(machine: Machine) -> None:
        with suppress(FencedError):
            for _ in range(rng.randint(1, 3)):
                machine.batch(rng.randrange(1_000_000))
                if rng.random() < 0.3:
                    machine.cut()
                told.append(machine.tell())

    def replace() -> None:
        with suppress(FencedError):
            machines.append(Machine(store, number=len(machines) + 1))
            work(machines[-1])

    for _ in range(5):
        work(machines[-1])
        old = machines[-1]
        if rng.random() < 0.5:
            store.interrupt(rng.randrange(25), lambda old=old: work(old))  # type: ignore[misc]
            replace()
        else:
            store.interrupt(rng.randrange(25), replace)
            work(old)
        store.interrupt(0, None)
        work(old)
        if machines[-1] is old:
            replace()
    state = Machine(store, number=99).applied
    assert all(state[: len(one)] == one for one in told)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damage_is_refused_or_makes_no_difference(seed: int) -> None:
    rng = random.Random(seed)
    store, told = FaultyStore(), list[int]()
    for number in range(3):
        machine = live(store, told, rng, number, 10)
        if rng.random() < 0.5:
            told[:] = machine.tell()
            machine.tenure.beat()
    last = max(path for path in store.paths() if path.startswith("journal/"))
    path = rng.choice(store.paths())
    data = store.disk.blobs[path]
    kind = rng.choice(("missing", "torn", "flipped"))
    if kind == "missing":
        del store.disk.blobs[path]
    elif kind == "torn":
        store.disk.blobs[path] = data[: rng.randrange(len(data))]
    else:
        at = rng.randrange(len(data))
        store.disk.blobs[path] = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    try:
        state = Machine(store, number=8).applied
    except DamagedError:
        return
    if path != last and not path.startswith("heartbeats"):  # the end of the last segment may be a crash's
        assert state[: len(told)] == told


def test_a_fenced_writer_makes_nothing_durable() -> None:
    store = FaultyStore()
    first = Machine(store)
    first.batch(1)
    assert first.tell() == [1]
    first.batch(2)
    second = Machine(store, number=2)
    with pytest.raises(FencedError, match=r"epoch 2 was claimed by worker on host-2"):
        first.tell()
    with pytest.raises(FencedError):
        first.tenure.write(Cut(sequence=9, units={}, meta={}))
    with pytest.raises(FencedError):
        first.tenure.prune(1)
    second.batch(3)
    assert second.tell() == [1, 3]
    assert Machine(store, number=3).applied == [1, 3]


@pytest.mark.parametrize("url", ["local", "memory"])
def test_real_stores(url: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "state") if url == "local" else f"memory://{tmp_path.name}").sub("a/b")
    told, rng = list[int](), random.Random(1)
    for number in range(3):
        machine = live(store, told, rng, number, 12)
        told[:] = machine.tell()
        machine.tenure.close()
    assert Machine(store).applied == told
    assert len(History(store).names()) <= 2
    if url == "local":
        assert isinstance(store, LocalStore)
        assert not list((tmp_path / "state" / ".tmp").iterdir())


def test_one_of_many_claimants_wins(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    barrier = threading.Barrier(6)
    won: list[int] = []
    refused: list[str] = []

    def contend(number: int) -> None:
        barrier.wait()
        try:
            won.append(Machine(store, take_over=False, number=number).tenure.epoch)
        except OwnedError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]
    assert all("--take-over" in text and "worker on host-" in text for text in refused)
    assert len(refused) == 5


def test_deaths_while_writing_leave_nothing_for_good(tmp_path: Path) -> None:
    store = FaultyStore()
    for number in range(5):
        machine = Machine(store, number=number)
        machine.batch(number)
        store.fail(at=store.n_calls + 4, error=Crash)  # append, write, sync, then its unit; no manifest
        store.disk.how = "after"
        with pytest.raises(Crash):
            machine.cut()
    assert len([path for path in store.paths() if path.endswith(".safetensors")]) == 1


def test_what_was_refused_is_refused_again() -> None:
    store = FaultyStore()
    machine = Machine(store)
    machine.batch(1)
    machine.tell()
    machine.tenure.beat()
    (segment,) = [path for path in store.paths() if path.startswith("journal/")]
    store.delete(segment)
    for number in (2, 3):  # as a supervisor would
        with pytest.raises(DamagedError, match="ends at entry 0 and was durable up to 1"):
            Machine(store, number=number)


def test_sequences_follow_each_other() -> None:
    machine = Machine(FaultyStore())
    with pytest.raises(StateError, match="cannot follow"):
        machine.tenure.journal.append(JournalEntry(sequence=2, runs=[]))


def test_without_a_journal_the_checkpoint_before_stands_in() -> None:
    store, owner = FaultyStore(), Owner(host="h", pid=1, started="", role="ranker")

    def begin() -> Tenure:
        return claim(store, owner=owner, take_over=True, now_s=lambda: 0.0, journalled=False)

    def write(tenure: Tenure, sequence: int) -> str:
        units: dict[str, Arrays] = {"user": {"at": np.array([sequence], dtype=np.int64)}}
        return tenure.write(Cut(sequence=sequence, units=units, meta={})).name

    first = begin()
    assert first.base is None
    write(first, 1)
    older, newer = write(first, 5), write(first, 9)
    second = begin()
    assert second.base is not None
    assert (second.base.name, second.end, list(second.tail())) == (newer, 9, [])
    store.delete(f"checkpoints/{newer}/user.safetensors")
    third = begin()
    assert third.base is not None
    assert (third.base.name, third.end) == (older, 5)
    newest = write(third, 6)
    third.prune(2)
    assert History(store).names() == [older, newest]
    for name in (older, newest):
        store.put(f"checkpoints/{name}.json", b"{}")
    with pytest.raises(DamagedError, match="no checkpoint can be used"):
        begin()
