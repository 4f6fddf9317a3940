"""Seeded schedules of steps, crashes and damage over `tests.simulation.world`."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import structlog

from schemas.errors import DamagedError, FencedError, OwnedError, StateError, StoreError
from streams import cutting
from streams.checkpoint.history import History
from streams.checkpoint.owners import last_beat
from tests.simulation.world import Crash, Life, World, audited, verdict
from tests.stores import HOWS, FaultyStore

N_LOGS = 12
MAX_STEPS = 26
MAX_LIVES = 6
ROTTEN = 0.25
"""Share of the schedules whose store is damaged between lives."""

AUDITED = 0.1
"""Share of the lives after which the state is audited as they left it."""

DAMAGED = ("checkpoints/", "checkpoints/", "journal/", "starts/", "epochs/", "heartbeats/")
Outcome = Literal["right", "right in spite of damage", "refused"]


class Schedule:
    """One seed: reads, ticks, acknowledgements, commits, and what goes wrong between them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.number = seed % N_LOGS
        self.store = FaultyStore()
        self.world = World(self.number, self.store)
        self.n_lives = 0
        self.rots = self.random.random() < ROTTEN
        self.damages: list[str] = []
        self.problems: list[str] = []

    def fault(self, within: int, error: Callable[[str], BaseException], calls: int = 1) -> None:
        """Let one of the next `within` calls of the store fail, before, after or half way."""
        at = self.store.n_calls + self.random.randrange(1, within)
        self.store.fail(at=at, how=self.random.choice(HOWS), error=error, calls=calls)

    def no_fault(self) -> None:
        """Let the store work."""
        self.store.fail(at=0, error=Crash, calls=0)

    def end(self) -> None:
        """A life is over: the process was killed, or the power was lost. Some are audited then."""
        self.no_fault()
        if self.random.random() < AUDITED:
            self.problems += audited(self.world)
        if self.random.random() < 0.5:
            self.store.lose_power(self.random)
        if self.rots and self.random.random() < 0.5:
            damage = self.store.damage(self.random, self.random.choice(DAMAGED))
            self.damages += [] if damage is None else [damage]
            if damage is not None and " journal/" in damage:
                with suppress(DamagedError):  # then the next start is refused
                    start = History(self.store).start
                    beat = None if start is None else last_beat(self.store, start.epoch)
                    durable = 0 if beat is None else beat.durable
                    self.world.broker.forgotten |= durable < self.world.broker.newest_model[1]

    def live(self) -> Life:
        """A new life; a store that fails while it begins takes it too."""
        if self.n_lives < MAX_LIVES and self.random.random() < 0.2:
            self.fault(8, Crash)
        while True:
            self.n_lives += 1
            try:
                return Life(self.world, self.n_lives)
            except Crash:
                self.end()
            except StateError:
                self.refuse_again()
                raise

    def refuse_again(self) -> None:
        """A supervisor starts what was refused once more: that must not help."""
        self.no_fault()
        with suppress(StateError):
            life = Life(self.world, self.n_lives + 1)
            self.problems.append(f"a state was refused, and at the next start it was {life.core.sequence}")

    def run(self) -> list[str]:
        """Everything that went wrong."""
        life = self.live()
        for _ in range(self.random.randrange(4, MAX_STEPS)):
            self.world.now_s += self.random.choice([0.1, 0.6, 1.0])
            try:
                life.beat()
                ended = self.step(life)
            except (Crash, StoreError):
                ended = True
            unexpected = [error for error in life.failed if not isinstance(error, Crash)]
            if unexpected:
                raise unexpected[0]
            if ended or life.failed:
                life.sink.break_off(self.random.randrange(life.sink.n_waiting + 1))
                self.end()
                if self.n_lives < MAX_LIVES:
                    life = self.live()
                    continue
                life = Life(self.world, self.n_lives)
                break
        self.no_fault()
        try:
            life.finish()
        except StoreError:  # a journal that failed before stays so
            self.end()
            life = Life(self.world, self.n_lives + 1)
            life.finish()
        return self.problems + verdict(self.world, self.number, life)

    def step(self, life: Life) -> bool:
        """One step; True when the life is to end."""
        kind = self.random.choice(
            [*["read"] * 4, *["tick"] * 3, "slow", "commit", "fault", "full", "crash", "zombie"]
        )
        if kind == "read":
            places = self.random.sample(sorted(self.world.log), self.random.choice([1, 1, 2]))
            runs = [
                life.run(place, self.random.randrange(1, 20), self.random.choice([0, 0, 0, 3]))
                for place in places
            ]
            life.core.apply([run for run in runs if run is not None])
        elif kind == "tick":
            life.core.tick()
        elif kind == "slow":
            life.sink.at_once = self.random.choice([0, 1, 3, 1_000_000])
        elif kind == "commit":
            life.commit()
        elif kind == "fault":
            self.fault(12, Crash)
        elif kind == "full":
            self.fault(6, StoreError, calls=self.random.randrange(1, 6))
        elif kind == "zombie":
            return self.zombie(life)
        return kind == "crash"

    def zombie(self, life: Life) -> bool:
        """Stopped for a while; another takes over, and the stopped one goes on."""
        self.no_fault()
        if self.random.random() < 0.5:  # the journal's thread was done with what had been appended
            life.tenure.journal.wait_durable(life.core.sequence)
        self.world.now_s += 60.0
        self.n_lives += 1
        other = Life(self.world, self.n_lives)
        other.core.tick()
        other.sink.flush(0.0)
        life.sink.at_once = 1_000_000
        try:
            places = [place for place in sorted(self.world.log) if life.run(place, 5) is not None]
            for place in places[: self.random.randrange(2)]:  # or it has only lists to tell
                run = life.run(place, 5)
                assert run is not None
                life.core.apply([run])
            for _ in range(3):
                self.world.now_s += 2.0
                life.core.tick()
        except (FencedError, StoreError):
            pass
        life.failed = [error for error in life.failed if not isinstance(error, FencedError)]
        return True


def drop(*_: object) -> dict[str, object]:
    """A processor that logs nothing: there are thousands of lives."""
    raise structlog.DropEvent


def needed(damages: list[str]) -> bool:
    """Whether a state may have been lost: one damaged checkpoint is none that is missed."""
    return len(damages) > 1 or any("checkpoints/" not in damage for damage in damages)


def outcome_of(seed: int) -> tuple[Outcome, list[str]]:
    """How a schedule ends, and what is wrong with that: nothing when all is well.

    A state that was damaged may be refused: with an error that says so, never with a wrong digest.
    """
    schedule = Schedule(seed)
    slice_bytes, cutting.SLICE_BYTES = cutting.SLICE_BYTES, 4_096 if seed % 2 else cutting.SLICE_BYTES
    try:
        structlog.configure(processors=[drop])
        problems = schedule.run()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is the seed's
        told = isinstance(error, StateError) and not isinstance(error, FencedError | OwnedError)
        if told and needed(schedule.damages) and not schedule.problems:
            return "refused", []
        problems = [*schedule.problems, f"{type(error).__name__}: {error}"]
    finally:
        cutting.SLICE_BYTES = slice_bytes
        structlog.reset_defaults()
    if problems:
        problems += schedule.damages
    return "right in spite of damage" if schedule.damages else "right", problems


def failures_of(seed: int) -> list[str]:
    """Problems of one seed; empty when all is well."""
    return outcome_of(seed)[1]
