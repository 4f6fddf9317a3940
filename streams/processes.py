"""Child processes of `reelflow demo` and of the tests: started as the command line would, always ended."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schemas.errors import UnavailableError

TAIL_BYTES = 4_000
_PR_SET_PDEATHSIG = 1


def _ends_with(parent: int) -> Callable[[], None]:
    """What a child runs first: even kill -9 of `parent` then leaves nothing behind (on Linux)."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def ask() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it ended before we asked
                os._exit(1)

    return ask


class Child:
    """A `reelflow` subcommand as a child process with its output in a log file."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        module: str = "streams.cli",
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
                start_new_session=True,  # Ctrl-C reaches the parent only, which stops us in order
                preexec_fn=_ends_with(os.getpid()),  # noqa: PLW1509 - calls prctl only, takes no lock
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def tail(self) -> str:
        """The end of its log."""
        data = self.log.read_bytes() if self.log.exists() else b""
        return data[-TAIL_BYTES:].decode("utf-8", "replace")

    def check(self) -> None:
        """Raise when it has ended."""
        code = self.process.poll()
        if code is not None:
            raise UnavailableError(
                f"reelflow {self.name} ended with code {code}; the end of its log:\n{self.tail()}"
            )

    def wait_ready(self, url: str, timeout_s: float) -> None:
        """Poll `url` until it answers 200.

        Raises
        ------
        UnavailableError
            When the process ends or the time is over; carries the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check()
            if http_status(url) == 200:
                return
            time.sleep(0.05)
        raise UnavailableError(f"reelflow {self.name} was not ready after {timeout_s:.0f} s:\n{self.tail()}")

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM, then SIGKILL after `timeout_s`; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return int(self.process.returncode)


def http_status(url: str, timeout_s: float = 2.0) -> int | None:
    """Status of a GET on one of our own loopback ports, None when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310 - our own http URL
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def http_text(url: str, timeout_s: float = 5.0) -> str:
    """Body of a GET on one of our own loopback ports.

    Raises
    ------
    UnavailableError
        When nobody answers or the answer is an error.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310 - our own http URL
            return str(response.read().decode())
    except OSError as error:
        raise UnavailableError(f"{url}: {error}") from None


def http_json(url: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """JSON object of a GET, as `http_text`."""
    value = json.loads(http_text(url, timeout_s))
    if not isinstance(value, dict):
        raise UnavailableError(f"{url} did not answer with an object")
    return value
