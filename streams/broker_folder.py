"""The data folder of a local broker: who owns it, what it holds, how Kafka is configured in it.

::

    broker.json         Kafka version and cluster of the data, and how the last start was made (`BrokerState`)
    broker.pid          process of the last start
    broker.lock         locked by the running broker itself, so a crash never leaves it behind
    broker.log          output of the last start
    server.properties   configuration of the last start
    log/                Kafka's own data
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import uuid
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas.errors import BrokerError

from .broker_install import KAFKA_VERSION
from .broker_process import HOST

NODE_ID = 1
TAIL_LINES = 20


class BrokerState(Struct, frozen=True, kw_only=True):
    """What ``broker.json`` records."""

    kafka: str
    cluster_id: str
    port: int
    heap_mb: int


class BrokerFolder:
    """Paths and records of one data folder; makes nothing until it is asked to."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.state_file = self.path / "broker.json"
        self.pid_file = self.path / "broker.pid"
        self.lock_file = self.path / "broker.lock"
        self.log_file = self.path / "broker.log"
        self.properties_file = self.path / "server.properties"
        self.logs = self.path / "log"

    def claim(self) -> int:
        """Make the folder if need be and lock it; returns the locked descriptor.

        The broker inherits the descriptor: the lock lives exactly as long as the last process that
        holds it.

        Raises
        ------
        BrokerError
            When the folder is someone else's, cannot be written, or a broker runs in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign()
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BrokerError(f"cannot use the data folder {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise BrokerError(f"a broker is already running in {self.path} (process {self.pid()})") from None
        return fd

    def locked(self) -> bool:
        """Whether a broker runs in this folder."""
        try:
            fd = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise BrokerError(f"cannot use the data folder {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def pid(self) -> int | None:
        """Process of the last start; trust it only while the folder is locked."""
        try:
            return int(self.pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def state(self) -> BrokerState | None:
        """What was recorded, None for a folder not used yet.

        Raises
        ------
        BrokerError
            When the record cannot be read, or its data is of another Kafka version or cluster.
        """
        try:
            state = msgspec.json.decode(self.state_file.read_bytes(), type=BrokerState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise BrokerError(f"{self.state_file} cannot be read: {error}; {self._way_out}") from None
        if state.kafka != KAFKA_VERSION:
            raise BrokerError(
                f"{self.path} is of Apache Kafka {state.kafka}, this is {KAFKA_VERSION}; {self._way_out}"
            )
        found = self._cluster_of_data()
        if found is not None and found != state.cluster_id:
            raise BrokerError(
                f"{self.path} is of cluster {found}, expected {state.cluster_id}; {self._way_out}"
            )
        return state

    def record(self, state: BrokerState) -> None:
        """Write ``broker.json`` in one step."""
        partial = self.state_file.with_suffix(".partial")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
        partial.replace(self.state_file)

    def formatted(self) -> bool:
        """Whether Kafka's own data is there."""
        return self._cluster_of_data() is not None

    def tail(self) -> str:
        """The end of the log, for error messages."""
        try:
            lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(lines[-TAIL_LINES:]) or "(its log is empty)"

    def remove(self) -> bool:
        """Delete the folder; False when there is none.

        Raises
        ------
        BrokerError
            When it is not a broker's data folder or cannot be deleted.
        """
        if not self.path.exists():
            return False
        try:
            self._refuse_foreign()
            shutil.rmtree(self.path)
        except OSError as error:
            raise BrokerError(f"cannot remove {self.path}: {error}") from None
        return True

    @property
    def _way_out(self) -> str:
        return "choose another folder, or remove this one with `reelflow broker clean`"

    def _refuse_foreign(self) -> None:
        names = {entry.name for entry in self.path.iterdir()}
        if names - {self.lock_file.name} and self.state_file.name not in names:
            raise BrokerError(
                f"{self.path} has files that are not a reelflow broker's; choose another data folder"
            )

    def _cluster_of_data(self) -> str | None:
        try:
            text = (self.logs / "meta.properties").read_text(encoding="utf-8")
        except OSError:
            return None
        fields = dict(line.partition("=")[::2] for line in text.splitlines() if not line.startswith("#"))
        return fields.get("cluster.id")


def new_cluster_id() -> str:
    """A random cluster id as Kafka writes them: 22 characters of URL-safe base64."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # Kafka's own tools would take it for an option
            return text


def server_properties(logs: Path, port: int, controller_port: int) -> str:
    """Configuration of a single KRaft node on loopback.

    The log cleaner's buffer comes out of the heap, which its default of 128 MiB would half fill.
    After a crash the broker is let in again only when the session of its former life is over, hence a
    session shorter than the default of 9 s. Internal topics have few partitions: each costs files, and
    time when the first group or transaction needs them.
    """
    settings = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "log.dirs": str(logs).replace("\\", "\\\\"),
        "auto.create.topics.enable": "false",
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        "broker.session.timeout.ms": 6_000,
        "broker.heartbeat.interval.ms": 1_000,
        "log.cleaner.enable": "true",
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
