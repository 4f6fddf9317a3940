"""Input partitions as the worker holds them."""

from __future__ import annotations

from msgspec import Struct

from learners.user_state import PartitionState
from schemas.runs import Int32

from .outbox import Outbox


class Partition(Struct, kw_only=True):
    """A behaviour partition as the worker holds it."""

    state: PartitionState
    outbox: Outbox
    model_users: Int32  # (users,) model user slot, -1 before the first event
    live_from: int = 0  # offsets below were dealt with before a restart
    end_at_start: int = 0  # recovery ends here
    end_seen: int = 0  # newest log end that was reported
    last_broker_ts_ms: int = 0
    first_offset: int = 0  # where the log began when it was taken

    @property
    def next_offset(self) -> int:
        """Position next to read."""
        return self.state.next_offset

    @property
    def lag(self) -> int:
        """Records behind the log end as last seen."""
        return max(0, self.end_seen - self.next_offset)

    @property
    def caught_up(self) -> bool:
        """Whether the log at start has been folded."""
        return self.next_offset >= self.end_at_start


class Shelf(Struct, kw_only=True):
    """A catalogue partition as the worker holds it; offsets as in `Partition`."""

    next_offset: int
    live_from: int
    end_at_start: int
    end_seen: int


class Readiness(Struct, frozen=True, kw_only=True):
    """What the learner thread last said of itself; other threads read this and no state."""

    ready: bool = False
    partitions: int = 0
    recovered: float = 0.0
