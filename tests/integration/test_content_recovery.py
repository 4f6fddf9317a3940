"""Content workers that are killed, share partitions, or take each other's over."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from schemas.records import Item, MediaRefs
from tests import media_files as make
from tests.content_rig import Catalogue, modalities, n_done, n_partitions, ready, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_kill_9_at_any_moment_leaves_each_item_encoded_once(catalogue: Catalogue, tmp_path: Path) -> None:
    """Of every item one current vector set and tags; what was committed is never encoded again."""
    chance = random.Random(7)
    make.picture(tmp_path / "cover.png")
    make.sound(tmp_path / "tone.wav")
    n = 0
    committed: dict[str, int] = {}
    worker = catalogue.start()
    for _ in range(6):
        batch = [
            Item(
                item_id=f"i{n + i}",
                title=f"Number {n + i}",
                media=MediaRefs(cover=str(tmp_path / "cover.png"), audio=str(tmp_path / "tone.wav")),
            )
            for i in range(40)
        ]
        catalogue.put(*batch)
        n += len(batch)
        until(lambda: n_done(worker) > 0, "some are done", 120)  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.6))
        worker.child.process.send_signal(signal.SIGKILL)
        worker.child.process.wait()
        stored = Counter(key for key, _ in catalogue.records())
        assert {key: stored[key] for key in committed} == committed, "encoded again after it was committed"
        committed = dict(stored)
        worker = catalogue.start()
    ready(worker)
    worker.wait(lambda s: s["items_known"] == n and s["lag_records"] == 0 and s["waiting"] == 0)
    stored = Counter(key for key, _ in catalogue.records())
    assert {key: stored[key] for key in committed} == committed
    assert set(stored) == {f"i{i}" for i in range(n)}
    contents, tags = catalogue.contents(), catalogue.tags()
    assert set(contents) == set(tags) == set(stored)
    for key, content in contents.items():
        assert modalities(content) == {"text": 512, "image": 1024, "audio": 192}
        assert (tags[key].content_hash, tags[key].source) == (content.content_hash, content.source)
    print(f"{n} items, {len(catalogue.records())} content records after 6 kills")
    assert set(stored.values()) == {1}
    assert worker.child.stop() == 0, worker.child.tail()


def test_workers_share_the_partitions_and_take_over_from_each_other(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    make.picture(tmp_path / "cover.png")
    cover = MediaRefs(cover=str(tmp_path / "cover.png"))

    def put(first: int, n: int) -> None:
        catalogue.put(
            *[Item(item_id=f"i{i}", title=f"Title {i}", media=cover) for i in range(first, first + n)]
        )

    one = catalogue.start()
    ready(one)
    put(0, 60)
    other = catalogue.start(REELFLOW_WORKER_INSTANCE_ID="content-worker-2")
    until(lambda: n_partitions(one) == n_partitions(other) == 1, "each has a partition", 120)
    put(60, 60)
    until(lambda: len(catalogue.contents()) == 120, "all are encoded", 120)
    one.wait(lambda s: s["items_known"] == 120 and s["waiting"] == 0)
    assert all(worker.stats()["items_encoded"] > 0 for worker in (one, other))
    # What was under way when the partitions moved may have been done by both.
    assert 120 <= len(catalogue.records()) <= 120 + 2 * 16
    assert one.child.stop() == 0, one.child.tail()
    put(120, 20)
    other.wait(lambda s: s["items_known"] == 140 and s["lag_records"] == 0)
    assert set(catalogue.contents()) == set(catalogue.tags()) == {f"i{i}" for i in range(140)}
    assert other.child.stop() == 0, other.child.tail()
