"""When the next event is due: at a rate, at a multiple of real time, or at once."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from schemas.errors import ConfigurationError


class Pacing(Struct, frozen=True, kw_only=True):
    """How fast a source is streamed: by `rate`, by `speed`, or as fast as possible with neither."""

    rate: float | None = None
    speed: float | None = None

    @classmethod
    def at_rate(cls, rate: float) -> Pacing:
        """`rate` events a second, whatever their times say.

        Raises
        ------
        ConfigurationError
            `rate` is not positive.
        """
        return cls(rate=_positive("rate", rate))

    @classmethod
    def at_speed(cls, speed: float) -> Pacing:
        """`speed` seconds of event time a second: 1 is real time.

        Raises
        ------
        ConfigurationError
            `speed` is not positive.
        """
        return cls(speed=_positive("speed", speed))

    @classmethod
    def as_fast(cls) -> Pacing:
        """As fast as the broker takes them."""
        return cls()


class Pacer:
    """Keeps the schedule of one stream.

    The n-th event is due at ``t0 + n / rate``, or at ``t0 + (ts_n - ts_0) / speed``; an event whose
    time lies before the first one's is due at once. A stream that fell behind catches up.

    >>> pacer = Pacer(Pacing.at_speed(10), clock=lambda: 100.0)
    >>> pacer.wait_s(5_000), pacer.wait_s(25_000), pacer.wait_s(4_000)
    (0.0, 2.0, 0.0)
    """

    def __init__(self, pacing: Pacing, clock: Callable[[], float]) -> None:
        self._pacing = pacing
        self._clock = clock
        self._started_s: float | None = None
        self._first_ts_ms = 0
        self._n = 0

    def wait_s(self, ts_ms: int) -> float:
        """Seconds until the next event, whose time is `ts_ms`, is due; 0 when it is."""
        rate, speed = self._pacing.rate, self._pacing.speed
        if rate is None and speed is None:
            return 0.0
        now_s = self._clock()
        if self._started_s is None:
            self._started_s, self._first_ts_ms = now_s, ts_ms
        if rate is not None:
            due_s = self._started_s + self._n / rate
        else:
            due_s = self._started_s + (ts_ms - self._first_ts_ms) / 1000.0 / (speed or 1.0)
        return max(0.0, due_s - now_s)

    def sent(self) -> None:
        """Count the event that was due."""
        self._n += 1


def _positive(setting: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ConfigurationError(setting, f"must be a positive number, not {value}")
    return value
