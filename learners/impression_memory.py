"""What is remembered of each user: the newest watches, the newest outcomes, and when.

Kept by user slot up to a limit; users beyond it have no memory. A watch is an entry 2 item + long of
a ring of `MAX_HISTORY` places. Two rings are kept: of everything so far, and of the prior history
alone, which ranking a user's impressions against each other is based on: what a user did a minute
ago says much about whether the next impression is clicked, and little about which.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from schemas.compiled import kernel
from schemas.runs import Float32, Int8, Int32, Int64

from .history_attention_kernels import MAX_HISTORY
from .impressions import CLICK, LONG

N_NEWEST: Final = 5
N_FEATURES: Final = N_NEWEST + 5
KNOWN: Final = N_NEWEST + 1
"""Which of them says whether the user was met before."""


class Memory(NamedTuple):
    """Arrays by user slot."""

    rings: Int32  # (U, MAX_HISTORY), oldest first once unrolled
    counts: Int64  # (U,) watches so far
    prior_rings: Int32
    prior_counts: Int64
    outcomes: Int8  # (U, N_NEWEST) newest first: 1 clicked, -1 not, 0 none
    items: Int32  # (U,) of the newest impression
    last_ms: Int64  # (U,) -1 for none


def no_memory(n_users: int) -> Memory:
    """Memory of users that did nothing yet."""
    return Memory(
        rings=np.full((n_users, MAX_HISTORY), -1, dtype=np.int32),
        counts=np.zeros(n_users, dtype=np.int64),
        prior_rings=np.full((n_users, MAX_HISTORY), -1, dtype=np.int32),
        prior_counts=np.zeros(n_users, dtype=np.int64),
        outcomes=np.zeros((n_users, N_NEWEST), dtype=np.int8),
        items=np.full(n_users, -1, dtype=np.int32),
        last_ms=np.full(n_users, -1, dtype=np.int64),
    )


@kernel
def recall(memory: Memory, user: int, item: int, ts_ms: int, tied: bool, inputs: Float32) -> None:
    """Write `N_FEATURES` inputs: newest outcomes, log gap, whether known, same item, tied."""
    for j in range(N_FEATURES):
        inputs[j] = 0.0
    at = N_NEWEST
    if 0 <= user < len(memory.counts) and memory.last_ms[user] >= 0:
        for j in range(N_NEWEST):
            inputs[j] = memory.outcomes[user, j]
        inputs[at] = math.log(1.0 + max(0, ts_ms - memory.last_ms[user]) / 1_000.0)
        inputs[KNOWN] = 1.0
        if memory.items[user] == item:
            inputs[at + 2] = 1.0
            inputs[at + 3] = memory.outcomes[user, 0]
    inputs[at + 4] = 1.0 if tied else 0.0


@kernel
def unrolled(rings: Int32, counts: Int64, user: int, limit: int, history: Int32) -> int:
    """Write a user's entries below `limit` to `history` (MAX_HISTORY,), oldest first; how many."""
    if user < 0 or user >= len(counts):
        return 0
    n_held = min(int(counts[user]), MAX_HISTORY)
    n = 0
    for j in range(n_held):
        entry = rings[user, (counts[user] - n_held + j) % MAX_HISTORY]
        if 0 <= entry < limit:
            history[n] = entry
            n += 1
    return n


@kernel
def remember(memory: Memory, user: int, item: int, ts_ms: int, outcomes: Int8) -> None:
    """Take in an impression and what came of it; one of unknown click is prior history."""
    if user < 0 or user >= len(memory.counts):
        return
    if outcomes[CLICK] != 0 and outcomes[LONG] >= 0:
        entry = 2 * item + outcomes[LONG]
        memory.rings[user, memory.counts[user] % MAX_HISTORY] = entry
        memory.counts[user] += 1
        if outcomes[CLICK] < 0:
            memory.prior_rings[user, memory.prior_counts[user] % MAX_HISTORY] = entry
            memory.prior_counts[user] += 1
    if outcomes[CLICK] >= 0:
        for j in range(N_NEWEST - 1, 0, -1):
            memory.outcomes[user, j] = memory.outcomes[user, j - 1]
        memory.outcomes[user, 0] = 2 * outcomes[CLICK] - 1
        memory.items[user] = item
        memory.last_ms[user] = ts_ms
