"""Variants on the real broker: viewers take up the lists of one way, and the worker comes to use that one."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.broker import LocalBroker
from tests.processes import running_worker

from .test_surfaces import PARTITIONS, Platform, items

pytestmark = pytest.mark.integration

VIEWERS = 120
CLIPS = 30
MOST_ROUNDS = 40
LIKED = "explores"


def test_the_way_that_viewers_prefer_is_used_most(broker: LocalBroker, topics: str, tmp_path: Path) -> None:
    """Both ways make the same lists here: only the name in the snapshot tells viewers what to do."""
    settings = {
        "REELFLOW_RANKER_VARIANTS": '{"plain": {}, "explores": {"live_exploration": 2.0}}',
        "REELFLOW_RANKER_VARIANT_MEMORY": "600",
        "REELFLOW_RANKER_EXCLUDE_SEEN": "false",
    }
    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path, **settings) as worker:
        platform = Platform(worker, broker.bootstrap, topics)
        try:
            viewers = [f"viewer{i}" for i in range(VIEWERS)]
            # Whoever acts first is otherwise learned alone, once in some runs, and has nothing in the list.
            for i in range(CLIPS):
                platform.act("first", f"clip-{i}", surface="short_video", watch_ms=9_000, duration_ms=10_000)
            platform.told()
            for i, viewer in enumerate(viewers):
                platform.act(
                    viewer, f"clip-{i % CLIPS}", surface="short_video", watch_ms=9_000, duration_ms=10_000
                )
            platform.told()
            first = platform.ask("/stats")["variants"]
            assert set(first) == {"plain", LIKED}
            assert min(found["lists"] for found in first.values()) > 0
            share = first[LIKED]["share"]
            for turn in range(MOST_ROUNDS):
                for viewer in viewers:
                    found = platform.lists[viewer]
                    item = items(found)[turn % 5]
                    platform.act(viewer, item, "impression", surface="short_video")
                    if found["model"]["variant"] == LIKED:
                        platform.act(viewer, item, watch_ms=10_000, duration_ms=10_000, surface="short_video")
                    else:
                        platform.act(viewer, item, "skip", surface="short_video")
                platform.told()
                figures = platform.ask("/stats")["variants"]
                share = figures[LIKED]["share"]
                if share >= 0.9:
                    break
            assert share >= 0.9, figures
            assert figures[LIKED]["reward"] > figures["plain"]["reward"] + 0.3
            before = {name: found["lists"] for name, found in figures.items()}
            for viewer in viewers:
                platform.act(viewer, "clip-1", "impression", surface="short_video")
            platform.told()
            after = platform.ask("/stats")["variants"]
            made = {name: found["lists"] - before[name] for name, found in after.items()}
            assert made[LIKED] > 4 * made["plain"] >= 0
        finally:
            platform.close()
