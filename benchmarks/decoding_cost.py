"""Microseconds an event of the columnar decoder: plain runs, 1 % broken, and what producers vary.

Run as ``python -m benchmarks.decoding_cost``; the last line printed is one JSON object.
"""

from __future__ import annotations

import gc
import json
import time

import numpy as np

from schemas.codec import encode_event
from schemas.decoding import decode_events
from schemas.interning import Interner
from schemas.payloads import Payloads
from schemas.records import Event
from schemas.runs import RecordRun

N = 4096
ROUNDS = 30


def best_us(values: list[bytes], keys: list[bytes]) -> float:
    """Best of `ROUNDS`, microseconds an event."""
    run = RecordRun(
        topic="t",
        partition=0,
        keys=Payloads.of(keys),
        values=Payloads.of(values),
        offsets=np.arange(N),
        timestamps_ms=np.arange(N),
        next_offset=N,
    )
    users, items, best = Interner(), Interner(), float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        decode_events(run, users=users, items=items, hash_key=7)
        best = min(best, time.perf_counter() - started)
    return round(best / N * 1e6, 3)


def _shuffled(value: bytes, rng: np.random.Generator) -> bytes:
    fields = list(json.loads(value).items())
    return json.dumps(dict(fields[i] for i in rng.permutation(len(fields)))).encode()


def main() -> None:
    rng = np.random.default_rng(0)
    events = [
        Event(
            event_id=f"e-{i:08x}", user_id=f"u{rng.integers(50_000)}", item_id=f"v{rng.integers(20_000)}",
            type="watch", ts_ms=1_650_900_000_123 + i, watch_ms=12_400, duration_ms=15_800,
            surface="short_video", device="phone", session_id="s-9", snapshot_id="u42.0.18720", position=3,
        )
        for i in range(N)
    ]  # fmt: skip
    clean = [encode_event(event) for event in events]
    keys = [event.user_id.encode() for event in events]
    broken = [value[:50] if i % 100 == 0 else value for i, value in enumerate(clean)]
    floats = [value.replace(b'"watch_ms":12400', b'"watch_ms":12400.0') for value in clean]
    spaced = [json.dumps(json.loads(value)).encode() for value in clean]
    wide = [value.replace(b"phone", "手机".encode()) for value in clean]
    escaped = [value.replace(b"phone", b"\\u624b\\u673a") for value in clean]
    shuffled = [_shuffled(value, rng) for value in clean]
    gc.freeze()
    figures = {
        "bytes": len(clean[0]),
        "clean_us": best_us(clean, keys),
        "broken_1_percent_us": best_us(broken, keys),
        "whole_floats_us": best_us(floats, keys),
        "spaced_us": best_us(spaced, keys),
        "not_ascii_us": best_us(wide, keys),
        "escapes_us": best_us(escaped, keys),
        "random_order_us": best_us(shuffled, keys),
    }
    for name, figure in figures.items():
        print(f"{name:<22}{figure}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
