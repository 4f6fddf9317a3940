"""Probabilities end to end: events on the real broker, the gateway's route, and a worker that is killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.records import Item
from streams.broker import LocalBroker
from tests.integration.test_surfaces import PARTITIONS, Platform
from tests.processes import running_gateway, running_worker

pytestmark = pytest.mark.integration

ON = {
    "REELFLOW_LEARNER_PROBABILITIES": "true",
    "REELFLOW_LEARNER_PROBABILITY_BITS": "14",
    "REELFLOW_LEARNER_EMBEDDINGS": "false",
    "REELFLOW_LEARNER_ATTRIBUTION_S": "600",
    "REELFLOW_WORKER_CHECKPOINT_INTERVAL_S": "1",
}
KINDS = ("cooking", "chess", "news")
TWO_DAYS_MS = 2 * 86_400_000
"""So old that questions are asked in the stream's own time, and answers do not change while nothing comes."""


def items_of(kind: str) -> list[str]:
    return [f"{kind}-{i}" for i in range(10)]


def act_all(platform: Platform) -> None:
    """Everybody is shown everything; cooking is watched and liked, chess watched, news skipped."""
    for kind in KINDS:
        platform.put(
            *(
                Item(
                    item_id=name,
                    tags=[kind],
                    creator_id=f"by-{kind}",
                    duration_ms=20_000,
                    surface="short_video",
                )
                for name in items_of(kind)
            )
        )
    ts_ms = int(time.time() * 1000) - TWO_DAYS_MS
    for i in range(300):
        user, kind = f"u{i % 20}", KINDS[i % 3]
        item = items_of(kind)[(i * 7) % 10]
        ts_ms += 10_000
        platform.act(user, item, "impression", ts_ms, surface="short_video")
        if kind == "news":
            platform.act(user, item, "skip", ts_ms + 1_000, surface="short_video")
            continue
        platform.act(
            user, item, "watch", ts_ms + 5_000, watch_ms=20_000, duration_ms=20_000, surface="short_video"
        )
        if kind == "cooking":
            platform.act(user, item, "like", ts_ms + 6_000, surface="short_video")
    platform.told()


def asked(url: str, user: str, items: list[str]) -> dict[str, Any]:
    answer = httpx.post(
        f"{url}/v1/users/{user}/score", json={"items": items, "surface": "short_video"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_what_is_liked_is_expected_to_be_liked_and_a_killed_worker_says_the_same(
    broker: LocalBroker, topics: str, tmp_path: Path
) -> None:
    new = [f"new-{kind}" for kind in KINDS]
    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path, **ON) as worker:
        platform = Platform(worker, broker.bootstrap, topics)
        act_all(platform)
        for kind in KINDS:
            platform.put(
                Item(item_id=f"new-{kind}", tags=[kind], creator_id=f"by-{kind}", duration_ms=20_000)
            )
        platform.act("u0", "cooking-0", "watch", int(time.time() * 1000) - TWO_DAYS_MS + 3_100_000)
        platform.told()
        with running_gateway(worker, tmp_path) as url:
            known = {kind: asked(url, "u1", items_of(kind))["items"] for kind in KINDS}
            mean = {
                kind: {
                    name: sum(row[name] for row in rows) / 10
                    for name in ("p_click", "p_completion", "p_like")
                }
                for kind, rows in known.items()
            }
            assert mean["cooking"]["p_like"] > mean["chess"]["p_like"] + 0.1
            assert mean["cooking"]["p_click"] > mean["news"]["p_click"] + 0.3
            assert mean["chess"]["p_completion"] > mean["news"]["p_completion"] + 0.3
            # Of the same kind and creator, though nobody has seen it.
            first, _, last = asked(url, "u1", new)["items"]
            assert first["p_like"] > last["p_like"]
            assert first["p_click"] > last["p_click"]
            assert first["ranking"] > last["ranking"]
            stranger = asked(url, "nobody", ["cooking-1", "unheard of"])
            assert (stranger["known"], [row["known"] for row in stranger["items"]]) == (False, [True, False])
            before = asked(url, "u1", [*new, *items_of("cooking")])
        digest = platform.ask("/digest")["model"]
        platform.close()
        worker.child.process.kill()
        worker.child.process.wait(30)
    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path, **ON) as worker:
        platform = Platform(worker, broker.bootstrap, topics)
        worker.wait(lambda stats: stats["ready"])
        assert platform.ask("/digest")["model"] == digest
        with running_gateway(worker, tmp_path) as url:
            assert asked(url, "u1", [*new, *items_of("cooking")]) == before
        platform.close()
