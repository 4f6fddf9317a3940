"""What a ranker's core needs from outside: model values and catalogue in, durable partitions out."""

from __future__ import annotations

from typing import Protocol

from .replica_follower import CatalogueRun
from .staging import Staged
from .unit import CapturedUnit


class Feed(Protocol):
    """Where model values and catalogue come from; see `streams.replica_follower`."""

    @property
    def caught_up(self) -> bool:
        """Whether the model was read to an end since the start."""

    @property
    def catalogue_caught_up(self) -> bool:
        """The same of the catalogue."""

    def pop(self) -> Staged | CatalogueRun | None:
        """What was read, None when nothing waits."""

    def read_again(self, partition: int, offset: int) -> None:
        """Hand on a catalogue partition once more from an offset on."""

    def follow_users(self, partitions: frozenset[int]) -> None:
        """Read the user rows of these partitions only."""


class Units(Protocol):
    """Who makes partitions durable; see `streams.unit_keeper`."""

    def due(self) -> list[int]:
        """Partitions whose state should be copied now."""

    def take(self, captured: CapturedUnit) -> None:
        """Write a copy."""

    def release(self, partition: int, captured: CapturedUnit | None) -> None:
        """Keep a partition no longer, after a last copy."""

    def positions(self) -> dict[int, int]:
        """Position of the newest durable checkpoint of each partition."""

    def before_send(self, sequence: int, timeout_s: float | None) -> bool:
        """Raise when another process has taken a partition; True otherwise."""
