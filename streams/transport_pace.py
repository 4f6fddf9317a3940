"""How long taking rests so that runs grow: nothing when idle, nothing under backlog."""

from __future__ import annotations

from typing import Final

RUN_COST_S: Final = 0.004
"""Rest that a small run buys. A run passes two event loops and the learner thread, and costs each some
tenths of a millisecond whatever its size, under one interpreter lock: at 20 000 events/s a quarter of
this rest left the learner thread half of its time waiting for that lock."""

FULL_RUN: Final = 512
"""Records from which on a run is worth its cost."""

UNDER_LOAD: Final = 5.0
"""By how much more a run costs as it fills, for then others want the processor too: a longer rest
leaves it to them, and lists are late less often for it (docs/benchmarks.md)."""


def rest_s(n_runs: int, n_records: int, longest_s: float) -> float:
    """Seconds to rest after taking `n_runs` runs of `n_records` records together.

    ``min(longest_s, n_runs * RUN_COST_S * max(0, 1 - f) * (1 + UNDER_LOAD * f))`` with
    ``f = n_records / (n_runs * FULL_RUN)``, how full the runs are: a single event now and then is
    delivered at once and costs the next one 4 ms; many partitions with a few events each are
    gathered for as long as is allowed; full runs wait for nothing.
    """
    if n_runs <= 0:
        return 0.0
    fullness = n_records / (n_runs * FULL_RUN)
    return min(longest_s, n_runs * RUN_COST_S * max(0.0, 1.0 - fullness) * (1.0 + UNDER_LOAD * fullness))
