"""The learner thread's time: publishing gets its share of busy time, and all that is free."""

from __future__ import annotations

import pytest

from streams.share import BEHIND, CAUGHT_UP, MOST_IDLE_S, PublishShare, Shares


@pytest.mark.parametrize(
    ("wait_s", "shares", "share"),
    [
        (0.2, CAUGHT_UP, CAUGHT_UP.least),
        (2.0, CAUGHT_UP, 0.675),
        (30.0, CAUGHT_UP, CAUGHT_UP.most),
        (0.2, BEHIND, BEHIND.least),
        (30.0, BEHIND, BEHIND.most),
    ],
)
@pytest.mark.parametrize("chunk_s", [0.001, 0.004, 0.03])
def test_a_busy_thread_keeps_the_share_whatever_a_chunk_takes(
    wait_s: float, shares: Shares, share: float, chunk_s: float
) -> None:
    policy, now_s, learned_s, published_s = PublishShare(), 100.0, 0.05, 0.0
    policy.begin(now_s, 0.0, wait_s, shares)
    policy.end(now_s, now_s)
    start_s = now_s
    for _ in range(400):
        now_s += learned_s
        began_s = now_s
        until_s = policy.begin(now_s, learned_s, wait_s, shares)
        while True:  # one chunk at least
            now_s += chunk_s
            published_s += chunk_s
            if now_s >= until_s:
                break
        policy.end(began_s, now_s)
    least = chunk_s / (chunk_s + learned_s)
    assert published_s / (now_s - start_s) == pytest.approx(max(share, least), abs=0.02)


def test_a_thread_that_had_nothing_to_learn_has_time() -> None:
    policy = PublishShare()
    assert policy.begin(10.0, 0.0, 0.0) == 10.0 + MOST_IDLE_S  # the first tick of all
    policy.end(10.0, 10.01)
    assert policy.begin(10.03, 0.0, 0.0) == pytest.approx(10.05)
    policy.end(10.03, 10.03)  # nobody was due: time is not saved up
    assert policy.begin(10.04, 0.0, 0.0) == pytest.approx(10.05)
    policy.end(10.04, 10.04)
    assert policy.begin(99.0, 0.0, 0.0) == pytest.approx(99.0 + MOST_IDLE_S)
