"""A position is safe only when everything that follows from what lies below it is acknowledged."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from streams.commits import CommitGate


def test_pending_users_hold_the_position() -> None:
    gate = CommitGate()
    assert gate.advance(5, {("t", 0): 50}, 5) == {}
    assert gate.advance(6, {("t", 0): 60}, 4) == {}
    assert gate.advance(7, {("t", 0): 70}, 6) == {("t", 0): 50}
    assert gate.advance(8, {("t", 0): 80}, None) == {("t", 0): 70}


@given(st.lists(st.sampled_from(["apply", "ack_first", "ack_last", "advance"]), max_size=80))
def test_never_passes_an_unacknowledged_send(script: list[str]) -> None:
    gate = CommitGate()
    sequence = 0
    flying: list[tuple[int, Callable[[], None]]] = []
    safe = 0
    for step in script:
        if step == "apply":
            sequence += 1
            flying.append((sequence, gate.sent(sequence)))
        elif step.startswith("ack") and flying:
            _, done = flying.pop(0 if step == "ack_first" else -1)
            done()
        elif step == "advance":
            moved = gate.advance(sequence, {("t", 0): sequence}, None)
            if moved:
                assert moved["t", 0] >= safe
                safe = moved["t", 0]
                assert all(sent > safe for sent, _ in flying)
    assert gate.n_in_flight == len(flying)
    for _, done in flying:
        done()
    gate.advance(sequence, {("t", 0): sequence}, None)
    assert gate.advance(sequence, {("t", 0): sequence}, None) == {("t", 0): sequence}
