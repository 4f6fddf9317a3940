"""The local broker: what its users may rely on, and what it says when it cannot run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer

from schemas.errors import BrokerError
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.broker_folder import new_cluster_id
from streams.broker_process import ended
from streams.topics import check_topics, create_topics

pytestmark = pytest.mark.integration


def reelflow(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streams.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not reached in {timeout_s} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    return not ended(pid)


def port_of(broker: LocalBroker) -> int:
    return int(broker.bootstrap.rpartition(":")[2])


def pid_of(broker: LocalBroker) -> int:
    pid = broker.folder.pid()
    assert pid is not None
    return pid


def can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listening_addresses(pid: int) -> set[str]:
    """Hexadecimal addresses, as Linux shows them, on which a process listens."""
    inodes = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_topics_survive_a_restart_and_nothing_survives_a_stop(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "data")
    with broker:
        pid, port, cluster = pid_of(broker), port_of(broker), broker.status().cluster_id
        create_topics(KafkaSettings(bootstrap=broker.bootstrap, prefix="kept", partitions=2))
    assert not alive(pid)
    assert can_listen(port)
    assert not broker.status().running
    with broker:
        assert broker.status().cluster_id == cluster
        assert check_topics(KafkaSettings(bootstrap=broker.bootstrap, prefix="kept", partitions=2)) == []
    assert broker.clean()
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_listens_on_loopback_only(broker: LocalBroker) -> None:
    assert listening_addresses(pid_of(broker)) == {"0000000000000000FFFF00000100007F"}


def test_status_of_a_running_broker(broker: LocalBroker) -> None:
    status = broker.status()
    assert status.running
    assert status.ready
    assert status.bootstrap == broker.bootstrap


def test_a_second_broker_in_the_folder_is_refused(broker: LocalBroker) -> None:
    pid = pid_of(broker)
    for port in (0, port_of(broker)):
        with pytest.raises(BrokerError, match=f"already running in .*process {pid}"):
            LocalBroker(broker.folder.path, port=port).start()
    assert broker.status().ready


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} of 127.0.0.1 is taken"):
            LocalBroker(tmp_path / "data", port=port).start()
    assert not (tmp_path / "data").exists()


def test_data_of_another_version_or_cluster_is_not_started(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "data")
    with broker:
        pass
    state = broker.folder.state()
    assert state is not None
    for changed, message in (
        ({"kafka": "3.9.0"}, "Kafka 3.9.0"),
        ({"cluster_id": new_cluster_id()}, "cluster"),
    ):
        broker.folder.record(msgspec.structs.replace(state, **changed))
        with pytest.raises(BrokerError, match=message):
            LocalBroker(tmp_path / "data").start()
        assert not broker.folder.locked()


def test_a_broker_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "data")
    with broker:
        pass
    starved = LocalBroker(tmp_path / "data", heap_mb=1)  # less than the JVM takes
    with pytest.raises(BrokerError, match=r"has died; its log ends:\n[^$]*heap"):
        starved.start()
    assert not starved.status().running


def test_a_broker_that_never_answers_is_ended(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "data", timeout_s=0.2)
    with pytest.raises(BrokerError, match="did not answer within"):
        broker.start()
    assert not broker.folder.locked()
    with LocalBroker(tmp_path / "data"):
        pass


def test_a_killed_broker_is_noticed_and_can_be_started_again(tmp_path: Path) -> None:
    with LocalBroker(tmp_path / "data") as broker:
        broker.check()
        os.kill(pid_of(broker), signal.SIGKILL)
        until(lambda: not broker.folder.locked())
        with pytest.raises(BrokerError, match="has died"):
            broker.check()
        with pytest.raises(BrokerError, match="no broker is running"):
            broker.stop()
        broker.start()
        assert broker.status().ready


@pytest.mark.skipif(sys.platform != "linux", reason="a service of the Linux kernel")
def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from streams.broker import LocalBroker\n"
        "broker = LocalBroker(Path(sys.argv[1])); broker.start(); print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        while parent.stdout.readline() != "ready\n":
            assert parent.poll() is None
        broker = LocalBroker(tmp_path / "data")
        pid = pid_of(broker)
        parent.kill()
    until(lambda: not broker.folder.locked())
    until(lambda: not alive(pid))


def test_transactions_and_no_topics_by_accident(broker: LocalBroker, topics: str) -> None:
    catalogue = topic_names(topics).catalogue
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "transactional.id": topics, "message.timeout.ms": 20_000}
    )
    producer.init_transactions(30)
    for ending in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        producer.produce(catalogue, b"item", ending.__name__.encode())
        ending(30)
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": topics,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([catalogue])
    message = None
    deadline = time.monotonic() + 120
    while message is None and time.monotonic() < deadline:
        message = consumer.poll(1.0)
    consumer.close()
    assert message is not None
    assert message.key() == b"commit_transaction"

    delivered: list[Any] = []
    plain = Producer({"bootstrap.servers": broker.bootstrap, "topic.metadata.propagation.max.ms": 0})
    plain.produce("nobody-made-this", b"x", on_delivery=lambda error, _: delivered.append(error))
    plain.flush(20)
    assert delivered[0] is not None
    assert "nobody-made-this" not in plain.list_topics(timeout=10).topics


def test_the_command_line_runs_a_broker_in_the_background(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    assert reelflow("broker", "status", *data).returncode == 1
    stopped = reelflow("broker", "stop", *data)
    assert (stopped.returncode, stopped.stderr[:30]) == (1, "error: no broker is running in")
    started = reelflow("broker", "start", *data, "--port", "0")
    try:
        assert started.returncode == 0, started.stderr
        shown = reelflow("broker", "status", *data, "--json")
        status = json.loads(shown.stdout)
        assert shown.returncode == 0
        assert (status["running"], status["ready"]) == (True, True)
        assert status["bootstrap"] in started.stdout
        again = reelflow("broker", "start", *data, "--port", "0")
        assert (again.returncode, "already running" in again.stderr) == (1, True)
        assert reelflow("broker", "stop", *data).returncode == 0
        assert not alive(status["pid"])
        assert can_listen(int(status["bootstrap"].rpartition(":")[2]))
        assert json.loads(reelflow("broker", "status", *data, "--json").stdout)["running"] is False
    finally:
        cleaned = reelflow("broker", "clean", *data)
    assert cleaned.returncode == 0
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_ends_with_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "streams.cli", "broker", "start", "--port", "0", "--foreground"]
    with subprocess.Popen(
        [*command, "--data", str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("broker ready at 127.0.0.1:")
        pid = pid_of(LocalBroker(tmp_path / "data"))
        process.send_signal(number)
        assert process.wait(30) == 0
    assert not alive(pid)


def test_usage_errors_exit_with_2() -> None:
    assert reelflow("broker", "start", "--port", "70000").returncode == 2
    assert reelflow("broker", "start", "--heap", "1").returncode == 2
