"""`reelflow demo` as a user runs it: ends by itself or by Ctrl-C, reports, leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.processes import allowed

pytestmark = pytest.mark.e2e

KEYS = {
    "events_in", "events_learned", "dead_letters", "users_with_snapshot", "snapshots",
    "event_to_snapshot_p50_s", "event_to_snapshot_p99_s", "hit_rate_10", "hit_rate_10_popularity",
    "hit_rate_10_markov", "wall_s",
}  # fmt: skip


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "demo", "--port", "0", *arguments],
            stdout=out,
            stderr=err,
            env={**os.environ, "REELFLOW_WORKER_PORT": "0"},
        )


def descendants(pid: int) -> set[int]:
    """Processes below `pid` now."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {pid}


def wait_for_text(file: Path, text: bytes, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while text not in file.read_bytes():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.05)


def report_of(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "out").read_text().splitlines()[-1])
    assert set(report) >= KEYS
    assert report["events_learned"] == report["events_in"] > 0
    assert report["users_with_snapshot"] > 0
    assert report["snapshots"] >= report["users_with_snapshot"]
    for key in ("hit_rate_10", "hit_rate_10_popularity", "hit_rate_10_markov"):
        assert 0 <= report[key] <= 1
    for contender, rates in report["quality"].items():
        assert contender in ("reelflow", "popularity", "markov")
        assert rates["hit_rate_10"] <= rates["recall_20"] <= 1
        assert 0 <= rates["mrr_20"] <= rates["recall_20"]
    assert report["quality"]["markov"]["hit_rate_10"] == report["hit_rate_10_markov"]
    return dict(report)


def assert_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 120
    while left := {pid for pid in pids if Path(f"/proc/{pid}").exists()}:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_demo_with_a_duration_ends_by_itself(tmp_path: Path) -> None:
    process = start(tmp_path, "--duration", "8", "--rate", "150")
    try:
        wait_for_text(tmp_path / "err", b"ready: open", process, 600)
        children = descendants(process.pid)
        assert len(children) >= 3  # broker, worker, gateway
        assert process.wait(240) == 0, (tmp_path / "err").read_text()
    finally:
        process.kill()
    report = report_of(tmp_path)
    assert 900 < report["events_in"] < 2_000
    assert report["users_with_snapshot"] > 100
    # How fast it is on a quiet machine is for benchmarks to say; this one may have another load.
    assert report["event_to_snapshot_p50_s"] < allowed(1.0)
    assert_gone(children)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_demo_without_a_duration_ends_on_a_signal(tmp_path: Path, name: str) -> None:
    process = start(tmp_path)
    try:
        wait_for_text(tmp_path / "err", b"ready: open", process, 600)
        children = descendants(process.pid)
        time.sleep(2)  # some events
        process.send_signal(getattr(signal, name))
        assert process.wait(180) == 0, (tmp_path / "err").read_text()
    finally:
        process.kill()
    report_of(tmp_path)
    assert_gone(children)


def test_a_killed_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start(tmp_path)
    try:
        wait_for_text(tmp_path / "err", b"ready: open", process, 600)
        children = descendants(process.pid)
    finally:
        process.kill()
        process.wait()
    assert_gone(children)
