"""The data folder of the local broker: ownership, versions, locking. No JVM is started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import BrokerError
from streams.broker import LocalBroker
from streams.broker_folder import BrokerFolder, BrokerState, new_cluster_id, server_properties
from streams.broker_install import KAFKA_VERSION
from streams.broker_process import ended, until


def used_folder(path: Path, *, kafka: str = KAFKA_VERSION, data_cluster: str | None = None) -> BrokerFolder:
    folder = BrokerFolder(path)
    path.mkdir()
    state = BrokerState(kafka=kafka, cluster_id=new_cluster_id(), port=1234, heap_mb=256)
    folder.record(state)
    folder.logs.mkdir()
    meta = f"#\nnode.id=1\ncluster.id={data_cluster or state.cluster_id}\nversion=1\n"
    (folder.logs / "meta.properties").write_text(meta)
    return folder


def test_a_recorded_state_is_read_back(tmp_path: Path) -> None:
    folder = used_folder(tmp_path / "data")
    state = folder.state()
    assert state is not None
    assert (state.port, state.heap_mb) == (1234, 256)
    assert folder.formatted()
    assert LocalBroker(tmp_path / "data").bootstrap == "127.0.0.1:1234"


def test_an_unused_folder_has_no_state(tmp_path: Path) -> None:
    folder = BrokerFolder(tmp_path / "data")
    assert folder.state() is None
    assert not folder.locked()
    assert not folder.formatted()
    assert not folder.remove()
    with pytest.raises(BrokerError, match="no broker was started"):
        _ = LocalBroker(tmp_path / "data").bootstrap


def test_data_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = used_folder(tmp_path / "data", kafka="9.9.9")
    with pytest.raises(BrokerError, match=r"is of Apache Kafka 9\.9\.9, this is .*broker clean"):
        folder.state()


def test_data_of_another_cluster_is_refused(tmp_path: Path) -> None:
    other = new_cluster_id()
    folder = used_folder(tmp_path / "data", data_cluster=other)
    with pytest.raises(BrokerError, match=f"is of cluster {re.escape(other)}, expected"):
        folder.state()


def test_an_unreadable_state_names_its_file(tmp_path: Path) -> None:
    folder = used_folder(tmp_path / "data")
    folder.state_file.write_text("{")
    with pytest.raises(BrokerError, match=r"broker\.json cannot be read"):
        folder.state()


def test_a_folder_of_something_else_is_neither_used_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"\xff\xd8")
    folder = BrokerFolder(tmp_path)
    with pytest.raises(BrokerError, match="choose another data folder"):
        folder.claim()
    with pytest.raises(BrokerError, match="choose another data folder"):
        LocalBroker(tmp_path).clean()
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match="cannot use the data folder"):
        BrokerFolder(tmp_path / "file" / "data").claim()


def test_the_lock_lives_as_long_as_its_last_holder(tmp_path: Path) -> None:
    folder = BrokerFolder(tmp_path / "data")
    lock = folder.claim()
    heir = os.dup(lock)  # what a child process inherits
    os.close(lock)
    assert folder.locked()
    with pytest.raises(BrokerError, match="already running"):
        folder.claim()
    os.close(heir)
    assert not folder.locked()
    os.close(folder.claim())


def test_a_claim_that_went_no_further_can_be_repeated(tmp_path: Path) -> None:
    os.close(BrokerFolder(tmp_path / "data").claim())
    os.close(BrokerFolder(tmp_path / "data").claim())
    assert BrokerFolder(tmp_path / "data").pid() is None


def test_the_tail_is_the_end_of_the_log(tmp_path: Path) -> None:
    folder = BrokerFolder(tmp_path)
    assert folder.tail() == "(its log is empty)"
    folder.log_file.write_text("\n".join(f"line {i}" for i in range(100)))
    assert folder.tail().splitlines()[0] == "line 80"
    assert folder.tail().splitlines()[-1] == "line 99"


def test_cluster_ids_are_what_kafka_takes() -> None:
    ids = {new_cluster_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", text) for text in ids)


def test_every_listener_is_on_loopback() -> None:
    lines = dict(line.split("=", 1) for line in server_properties(Path("/data/log"), 9, 10).splitlines())
    listeners = lines["listeners"].split(",") + lines["advertised.listeners"].split(",")
    assert all("://127.0.0.1:" in listener for listener in listeners)
    assert lines["auto.create.topics.enable"] == "false"


def test_nothing_runs_in_a_new_folder(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "data")
    status = broker.status()
    assert (status.running, status.ready, status.pid, status.bootstrap) == (False, False, None, None)
    with pytest.raises(BrokerError, match="no broker is running"):
        broker.stop()
    assert not broker.clean()
    assert not (tmp_path / "data").exists()


def test_a_process_has_ended_when_it_is_gone_or_a_zombie() -> None:
    assert not ended(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()  # its end closes the pipe; nobody has collected it yet
        assert until(lambda: ended(child.pid), 10)
        assert child.returncode is None
    assert ended(child.pid)
