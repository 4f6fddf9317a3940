"""The refresh interval under more demand than there is time for."""

from __future__ import annotations

from streams.refresh import LONG_WAIT_S, RefreshInterval


def simulated(n_users: int, per_s: float, seconds: float) -> tuple[float, float]:
    """Interval and longest wait at the end, every user touched all the time, `per_s` lists a second."""
    refresh, now_s, tick_s = RefreshInterval(0.5), 0.0, 0.02
    published = [0.0] * n_users  # by time of the last list, oldest first
    wait_s, budget, n_lists = 0.0, 0.0, 0
    while now_s < seconds:
        now_s += tick_s
        budget = min(budget + per_s * tick_s, per_s * 0.1)
        while budget >= 1 and published and published[0] + refresh.interval_s <= now_s:
            published.pop(0)
            published.append(now_s)
            budget -= 1
            n_lists += 1
        wait_s = max(0.0, now_s - (published[0] + refresh.interval_s))
        refresh.adapt(now_s, wait_s, n_users, n_lists)
    return refresh.interval_s, wait_s


def test_overload_refreshes_everyone_less_often_and_lets_nobody_wait() -> None:
    interval_s, wait_s = simulated(2_000, 1_000.0, 60.0)
    assert 1.6 < interval_s < 3.0  # 2 s is what the rate allows
    assert wait_s < 4 * LONG_WAIT_S


def test_at_ease_the_interval_is_the_configured_one() -> None:
    assert simulated(200, 1_000.0, 10.0) == (0.5, 0.0)
    refresh = RefreshInterval(0.5)
    for second in range(60):
        refresh.adapt(float(second), 1.0 if second < 5 else 0.0, 1_000, 10 * second)
    assert refresh.interval_s == 0.5
    assert refresh.stretched_s == 0.0


def test_many_new_users_at_once_do_not_make_everyone_rest_for_minutes() -> None:
    refresh = RefreshInterval(0.5)
    for step in range(500):  # 10 s with a queue of users who never had a list
        refresh.adapt(step * 0.02, 5.0, 300_000, int(step * 0.02 * 40_000))
    assert 6.0 < refresh.interval_s < 12.0
