"""A worker (and gateway) as a real process on free ports, for integration and end-to-end tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from schemas.errors import UnavailableError
from streams.demo import free_port
from streams.processes import Child, http_json

READY_S = 600.0
"""Until a worker is ready: the first one on a machine compiles, and that machine may be slow or shared."""

SHARED_MACHINE = 3.0
"""What limits are multiplied by, and by the load of each core: others may work beside the tests."""


def allowed(quiet_s: float) -> float:
    """Limit here and now of what takes at most `quiet_s` on a quiet machine."""
    return quiet_s * SHARED_MACHINE * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class RunningWorker:
    """A `reelflow worker` that is ready."""

    def __init__(self, child: Child, url: str, environ: dict[str, str]) -> None:
        self.child = child
        self.url = url
        self.environ = environ

    def stats(self) -> dict[str, Any]:
        return http_json(f"{self.url}/stats", timeout_s=30)

    def wait(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 240.0) -> dict[str, Any]:
        """Statistics once `condition` holds for them."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.child.check()
            try:
                stats = self.stats()
            except UnavailableError:
                stats = None
            if stats is not None and condition(stats):
                return stats
            assert time.monotonic() < deadline, f"not reached in {timeout_s} s: {stats}\n{self.child.tail()}"
            time.sleep(0.05)


def start_worker(
    bootstrap: str,
    prefix: str,
    partitions: int,
    folder: Path,
    role: str = "worker",
    module: str = "streams.cli",
    arguments: Sequence[str] = (),
    **environ: str,
) -> RunningWorker:
    """Start a worker (or another role with its port) and do not wait for it; the caller ends it."""
    port = free_port()
    settings = {
        "REELFLOW_KAFKA_BOOTSTRAP": bootstrap,
        "REELFLOW_KAFKA_PREFIX": prefix,
        "REELFLOW_KAFKA_PARTITIONS": str(partitions),
        "REELFLOW_WORKER_PORT": str(port),
        "REELFLOW_WORKER_STATE_DIR": str(folder / "state"),
        **environ,
    }
    log = folder / f"{role}-{uuid4().hex[:6]}.log"
    return RunningWorker(
        Child(role, [role, *arguments], log=log, environ=settings, module=module),
        f"http://127.0.0.1:{port}",
        settings,
    )


@contextmanager
def running_worker(
    bootstrap: str, prefix: str, partitions: int, folder: Path, **environ: str
) -> Iterator[RunningWorker]:
    """Start `reelflow worker`, wait until it is ready, stop it at the end."""
    worker = start_worker(bootstrap, prefix, partitions, folder, **environ)
    with worker.child:
        worker.child.wait_ready(f"{worker.url}/health/ready", READY_S)
        yield worker


@contextmanager
def running_gateway(worker: RunningWorker, folder: Path) -> Iterator[str]:
    """Start `reelflow gateway` before `worker`; yields its base URL."""
    port = free_port()
    environ = {
        **worker.environ,
        "REELFLOW_GATEWAY_PORT": str(port),
        "REELFLOW_GATEWAY_WORKER_URL": worker.url,
    }
    with Child("gateway", ["gateway"], log=folder / "gateway.log", environ=environ) as child:
        url = f"http://127.0.0.1:{port}"
        child.wait_ready(f"{url}/health/ready", 60)
        yield url
