"""Faults of the checkpoint store: amid a checkpoint, a full disk, damage between two lives."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from streams.broker import LocalBroker
from tests.chaos.checks import check_all
from tests.chaos.faulty import Faults
from tests.chaos.lives import TIMEOUT_S, flowing, kafka_of, kill, life, log_of, until_reached
from tests.chaos.load import Load

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(TIMEOUT_S)]


def checkpoints(folder: Path) -> list[Path]:
    """Manifests, oldest first."""
    return sorted((folder / "state").glob("*/*/*/checkpoints/*.json"))


def test_killed_amid_a_checkpoint(broker: LocalBroker, tmp_path: Path) -> None:
    """One unit of it is on the disk: nobody takes it for a checkpoint, and it does not stay."""
    kafka, faults = kafka_of(broker), Faults(tmp_path / "faults")
    with ExitStack() as stack, Load(kafka, rate=2_000) as load:
        worker = life(kafka, tmp_path, faults=faults, worker_checkpoint_interval_s="0.2")
        stack.callback(worker.child.stop)
        worker.wait(lambda stats: stats["committed"] > 0)
        faults.arm("unit")
        until_reached(worker, faults, "unit")
        kill(worker)
        whole = {manifest.with_suffix("") for manifest in checkpoints(tmp_path)}
        (unfinished,) = {unit.parent for unit in (tmp_path / "state").rglob("model.safetensors")} - whole
        again = life(kafka, tmp_path)
        stack.callback(again.child.stop)
        flowing(again)
        assert not unfinished.exists()
        load.finish()
        check_all(again, kafka, load)


def test_a_full_disk(broker: LocalBroker, tmp_path: Path) -> None:
    """Checkpoints fail for a while; nothing is committed meanwhile, and the next one stands for all."""
    kafka, faults = kafka_of(broker), Faults(tmp_path / "faults")
    faults.arm("full")
    with ExitStack() as stack, Load(kafka, rate=2_000) as load:
        worker = life(kafka, tmp_path, faults=faults, worker_checkpoint_interval_s="0.2")
        stack.callback(worker.child.stop)
        worker.wait(
            lambda stats: stats["events_learned"] > 4_000 and "checkpoint_failed" in log_of(worker), 180
        )
        assert worker.stats()["committed"] == 0
        assert not checkpoints(tmp_path)
        faults.disarm("full")
        worker.wait(lambda stats: stats["committed"] > 0)
        kill(worker)
        again = life(kafka, tmp_path)
        stack.callback(again.child.stop)
        flowing(again)
        load.finish()
        check_all(again, kafka, load)


def test_the_newest_checkpoint_is_damaged(broker: LocalBroker, tmp_path: Path) -> None:
    """A bit has flipped between two lives: the checkpoint before it is used, and the journal from there."""
    kafka = kafka_of(broker)
    with ExitStack() as stack, Load(kafka, rate=2_000) as load:
        worker = life(kafka, tmp_path, worker_checkpoint_interval_s="0.5")
        stack.callback(worker.child.stop)
        flowing(worker)
        worker.wait(lambda stats: log_of(worker).count("checkpoint_written") > 3)
        kill(worker)
        *_, previous, newest = checkpoints(tmp_path)
        flip_a_bit(newest.with_suffix("") / "model.safetensors")
        again = life(kafka, tmp_path)
        stack.callback(again.child.stop)
        flowing(again)
        log = log_of(again)
        assert f'"name": "{newest.stem}"' in next(line for line in log.splitlines() if "damaged" in line)
        assert previous.stem in next(line for line in log.splitlines() if "checkpoint_loaded" in line)
        load.finish()
        check_all(again, kafka, load)


def flip_a_bit(path: Path) -> None:
    """In the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
