"""What is in flight holds back what may stand for its input."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from streams.commits import CommitGate


@given(st.lists(st.sampled_from(["send", "ack_first", "ack_last", "look"]), max_size=80))
def test_clear_means_that_nothing_earlier_is_in_flight(script: list[str]) -> None:
    gate = CommitGate()
    sequence = 0
    flying: list[tuple[int, Callable[[], None]]] = []
    for step in script:
        if step == "send":
            sequence += 1
            flying += [(sequence, gate.sent(sequence)) for _ in range(2)]
        elif step.startswith("ack") and flying:
            _, done = flying.pop(0 if step == "ack_first" else -1)
            done()
        for looked in range(sequence + 2):
            assert gate.clear(looked) == all(sent > looked for sent, _ in flying)
    assert gate.n_in_flight == len(flying)
