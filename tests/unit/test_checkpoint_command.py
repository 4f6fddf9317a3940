"""`reelflow checkpoint`: what it prints, and that a restore goes back and only back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from schemas.errors import OwnedError
from streams.checkpoint.epochs import Tenure, claim
from streams.checkpoint.format import Cut
from streams.checkpoint.history import History
from streams.checkpoint.journal import JournalEntry, JournalRun
from streams.checkpoint.owners import Owner
from streams.checkpoint.store import Store, open_store
from streams.cli import cli

FAR = Owner(host="elsewhere", pid=1, started="", role="worker")
Run = Callable[..., Result]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path)).sub("reelflow/worker/main")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["checkpoint", arguments[0], "--store", str(tmp_path), *arguments[1:]])

    return invoke


def batch(tenure: Tenure, sequence: int) -> None:
    noted = JournalRun(topic="t", partition=0, first=10 * sequence, next=10 * sequence + 10)
    tenure.journal.append(JournalEntry(sequence=sequence, runs=[noted]))


def cut(tenure: Tenure, sequence: int) -> str:
    tenure.journal.append(JournalEntry(sequence=sequence, runs=[], kind="cut"))
    units: Any = {"model": {"at": np.array([sequence])}}
    return tenure.write(Cut(sequence=sequence, units=units, meta={"n": sequence})).name


def history_of(store: Store, keep: int = 3) -> list[str]:
    """Two tenures: entries 1 to 8 with cuts at 2, 4 and 7."""
    first = claim(store, owner=FAR, take_over=False)
    batch(first, 1)
    names = [cut(first, 2)]
    batch(first, 3)
    names.append(cut(first, 4))
    first.close()
    second = claim(store, owner=FAR, take_over=False)
    batch(second, 5)
    batch(second, 6)
    names.append(cut(second, 7))
    batch(second, 8)
    second.prune(keep)
    second.close()
    return names


def test_list_inspect_and_verify(store: Store, run: Run) -> None:
    assert "no checkpoints" in run("list").output
    names = history_of(store)
    listed = run("list").output.splitlines()
    assert [line.split()[0] for line in listed[:3]] == names
    assert listed[3].startswith("epoch 2: worker on elsewhere (pid 1), ended")
    assert [row["name"] for row in json.loads(run("list", "--json").output)["checkpoints"]] == names
    inspected = run("inspect").output
    assert names[2] in inspected
    assert "  at  int64[1]" in inspected
    assert json.loads(run("inspect", names[0], "--json").output)["meta"] == {"n": 2}
    verified = run("verify")
    assert verified.exit_code == 0
    assert verified.output.splitlines()[-1] == "journal up to entry 8  intact"


def test_damage_is_named_and_the_one_before_is_used(store: Store, run: Run) -> None:
    names = history_of(store)
    blob = f"checkpoints/{names[2]}/model.safetensors"
    data = store.read(blob)
    store.put(blob, data[:-1] + b"\1")
    verified = run("verify")
    assert verified.exit_code == 1
    assert f"unit 'model' of checkpoint {names[2]} is damaged" in verified.output
    assert f"{names[1]}  intact" in verified.output
    tenure = claim(store, owner=FAR, take_over=False)
    assert tenure.base is not None
    assert (tenure.base.name, [entry.sequence for entry in tenure.tail()]) == (names[1], [5, 6, 7, 8])


def test_restore(store: Store, run: Run) -> None:
    names = history_of(store)
    restored = run("restore", names[1])
    assert restored.exit_code == 0, restored.output
    assert f"epoch 3 goes on from {names[1]}, sequence 4" in restored.output
    assert "dropped: 1 newer checkpoints, 3 journal entries over 30 offsets" in restored.output
    tenure = claim(store, owner=FAR, take_over=False)
    assert tenure.base is not None
    assert (tenure.epoch, tenure.base.name, list(tenure.tail())) == (4, names[1], [])
    batch(tenure, 5)
    tenure.journal.wait_durable(5)
    refused = run("restore", names[0])
    assert isinstance(refused.exception, OwnedError)
    assert "worker on elsewhere" in str(refused.exception)
    tenure.close()
    assert [entry.sequence for entry in History(store).entries(after=2)] == [3, 4, 5]
    # As long as it is stored, what was left can be gone back to.
    assert run("restore", names[2], "--json").exit_code == 0
    tenure = claim(store, owner=FAR, take_over=False)
    assert tenure.base is not None
    assert tenure.base.name == names[2]
    assert [entry.sequence for entry in History(store).entries(after=2)] == [3, 4, 5, 6, 7]


def test_what_restore_left_goes_with_the_next_checkpoints(store: Store, run: Run) -> None:
    names = history_of(store)
    run("restore", names[1])
    tenure = claim(store, owner=FAR, take_over=False)
    newer = [cut(tenure, 5), cut(tenure, 6)]
    tenure.prune(2)
    assert History(store).names() == newer
    assert [name for name in store.names("checkpoints") if not name.endswith(".json")] == newer
    assert store.names("journal") == ["00000004"]
    assert next(History(store).entries(after=5)).sequence == 6
    tenure.close()


def test_restore_mends_a_lost_start_record(store: Store, run: Run) -> None:
    names = history_of(store)
    store.delete("starts/00000002")
    assert "start record of epoch 2 is missing" in run("list").output
    assert run("verify").exit_code == 1
    restored = run("restore", names[1])
    assert "note: the start record of epoch 2 is missing" in restored.output
    tenure = claim(store, owner=FAR, take_over=False)
    assert tenure.base is not None
    assert tenure.base.name == names[1]
