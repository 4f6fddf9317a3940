"""User state is a function of the partition's order alone, and that of a plain reference."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.user_state import APPLIED, DUPLICATE, FUTURE, LATE, PartitionState
from tests.learner_data import event_batch, partition_state, random_rows

N_USERS = 12
ITEM_IDS = [f"i{item}" for item in range(40)]
SMALL = {"history": 6, "seen": 9, "dedup_window": 64}

cuts = st.lists(st.integers(0, 400), max_size=30).map(sorted)


def _fold_in_pieces(rows: list[dict[str, Any]], at: list[int]) -> tuple[PartitionState, list[Any]]:
    state = partition_state(N_USERS, **SMALL)
    folded = []
    for start, stop in zip([0, *at], [*at, len(rows)], strict=True):
        if stop <= start:
            piece = event_batch([], next_offset=state.next_offset)
        else:
            piece = event_batch(rows[start:stop])
        folded.append(state.fold(piece))
    return state, folded


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), at=cuts)
def test_batch_boundaries_do_not_matter(seed: int, at: list[int]) -> None:
    rows = random_rows(seed, 400, n_users=N_USERS)
    whole, (once,) = _fold_in_pieces(rows, [])
    pieces, parts = _fold_in_pieces(rows, at)
    assert pieces.digest(ITEM_IDS) == whole.digest(ITEM_IDS)
    np.testing.assert_array_equal(np.concatenate([part.status for part in parts]), once.status)
    for name in once.interactions.__struct_fields__:
        joined = np.concatenate([getattr(part.interactions, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(once.interactions, name))
    for name in ("session", "is_new_session"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(part, name) for part in parts]), getattr(once, name)
        )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), at=cuts, back=st.integers(0, 200), stop=st.integers(1, 400))
def test_rereading_after_a_restore_does_not_matter(seed: int, at: list[int], back: int, stop: int) -> None:
    rows = random_rows(seed, 400, n_users=N_USERS)
    whole, _ = _fold_in_pieces(rows, [])
    state, _ = _fold_in_pieces(rows[:stop], [cut for cut in at if cut <= stop])
    restored = partition_state(0, **SMALL)
    restored.restore(state.snapshot())
    restored.fold(event_batch(rows[max(0, stop - back) :]))
    assert restored.digest(ITEM_IDS) == whole.digest(ITEM_IDS)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_fold_is_that_of_a_plain_reference(seed: int) -> None:
    rows = random_rows(seed, 400, n_users=N_USERS)
    state, (folded,) = _fold_in_pieces(rows, [])
    weights = iter(folded.interactions.weight.tolist())
    history: dict[int, list[int]] = defaultdict(list)
    seen: dict[int, list[int]] = defaultdict(list)
    remembered: list[set[str]] = [set(), set()]
    watermark, generation, statuses = -1, -1, []
    for row in rows:
        now = row["offset"] // SMALL["dedup_window"]
        for _ in range(min(now - generation, 2)):
            remembered = [set(), remembered[0]]
        generation = now
        if row["event_id"] in remembered[0] | remembered[1]:
            statuses.append(DUPLICATE)
        elif row["ts_ms"] > row["broker_ts_ms"] + 60_000:
            statuses.append(FUTURE)
        elif row["ts_ms"] < watermark - 3_600_000:
            statuses.append(LATE)
        else:
            statuses.append(APPLIED)
            remembered[0].add(row["event_id"])
            watermark = max(watermark, row["ts_ms"])
            user, item = row["user"], row["item"]
            if next(weights) > 0 and item not in history[user][-5:]:
                history[user].append(item)
            if row["type"] != "impression":
                seen[user] = [other for other in seen[user] if other != item] + [item]
                seen[user] = seen[user][-SMALL["seen"] :]
    assert folded.status.tolist() == statuses
    assert state.watermark_ms == watermark
    users = np.arange(N_USERS, dtype=np.int32)
    for kept, found, width in ((history, state.contexts(users), 6), (seen, state.seen_rows(users), 9)):
        for user in range(N_USERS):
            newest = kept[user][-width:]
            assert found[user].tolist() == [-1] * (width - len(newest)) + newest
