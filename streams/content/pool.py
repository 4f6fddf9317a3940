"""Media in, small arrays out: a pool of decoders that no file can take down.

Each of the pool's decoders is a process of its own (`streams.content.decoder`) that forks a process with
limits for every medium. Should a decoder itself end or hang, it is replaced.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from schemas.errors import ExtraError, MediaError, ReelflowError
from schemas.media import MediaModality, MediaReason

from .decoded import Decoded, unpack
from .decoder import MARGIN_S, READS_COVERS, Job
from .frames_io import FAILED, JOB, REFUSED, EndOfFrames, read_frame, write_frame
from .limits import Form, MediaLimits, SourceRules

START_S = 60.0
GRACE_S = 5.0
"""Beyond the limits of a job, after which its decoder is taken for hung."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A decoder forks, so it must have no threads; and cores are for the encoders."""


class MediaPool:
    """Fetches and decodes media, `workers` at once; `read` may be called from any number of threads.

    Parameters
    ----------
    rules, limits, form
        Where media may come from, what one may cost, and in which form it is handed over. With
        ``form.text_side`` the words on pictures are read, which needs the extra ``ocr``.
    workers : int
        Decoders; each holds about 60 MB (230 MB with what reads covers), and while at work up to
        ``limits.memory_mib`` on top.

    Raises
    ------
    ExtraError
        The packages of the extra ``content`` (or ``ocr``) are not installed.
    """

    def __init__(
        self,
        rules: SourceRules | None = None,
        limits: MediaLimits | None = None,
        form: Form | None = None,
        *,
        workers: int = 2,
    ) -> None:
        self.rules = rules or SourceRules()
        self.limits = limits or MediaLimits()
        self.form = form or Form()
        self.n_replaced = 0
        self._idle: queue.SimpleQueue[_Decoder | None] = queue.SimpleQueue()
        self._decoders = [_Decoder(bool(self.form.text_side)) for _ in range(workers)]
        try:
            for decoder in self._decoders:
                decoder.wait_ready()
        except BaseException:
            self.close()
            raise
        for decoder in self._decoders:
            self._idle.put(decoder)

    def read(self, reference: str, modality: MediaModality) -> Decoded:
        """The medium at `reference` (path, ``file://``, fsspec or http(s) URL) decoded as `modality`.

        Waits for a free decoder first; then at most ``fetch_s + decode_s`` and 5.5 s more in all.

        Raises
        ------
        MediaError
            With its reason; `retriable` tells whether a later attempt may succeed.
        """
        job = msgspec.msgpack.encode(Job(reference, modality, self.rules, self.limits, self.form))
        decoder = self._idle.get()
        if decoder is None:
            self._idle.put(None)
            raise ReelflowError("the media pool is closed")
        deadline = time.monotonic() + self.limits.fetch_s + self.limits.decode_s + MARGIN_S + GRACE_S
        try:
            kind, payload = decoder.ask(job, deadline)
        except (EndOfFrames, OSError) as error:  # TimeoutError is an OSError
            hung = isinstance(error, TimeoutError)
            decoder.restart()
            self.n_replaced += 1
            raise MediaError("timeout" if hung else "crashed", "the decoder had to be replaced") from error
        except BaseException:  # interrupted: the reply would be taken for that of the next job
            decoder.restart()
            raise
        finally:
            self._idle.put(decoder)
        try:
            if kind != REFUSED:
                return unpack(payload)
            reason, message = msgspec.msgpack.decode(payload, type=tuple[MediaReason, str])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            # What a hostile file may have made of its decoder is not to be trusted either.
            raise MediaError("crashed", f"the decoder answers nonsense: {error}") from error
        raise MediaError(reason, message)

    @property
    def pids(self) -> list[int]:
        """Process ids of the decoders."""
        return [decoder.pid for decoder in self._decoders]

    def close(self) -> None:
        """End the decoders; further reads raise `ReelflowError`."""
        while True:
            with suppress(queue.Empty):
                self._idle.get_nowait()
                continue
            break
        self._idle.put(None)
        for decoder in self._decoders:
            decoder.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Decoder:
    """One decoder process and the pipes to it."""

    def __init__(self, reads_covers: bool) -> None:
        self._arguments = [READS_COVERS] if reads_covers else []
        self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> None:
        self._ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streams.content.decoder", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - what PIPE means
        assert self._process.stdout is not None  # noqa: S101
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def wait_ready(self) -> None:
        try:
            kind, payload = read_frame(self._stdout.fileno(), time.monotonic() + START_S)
        except (TimeoutError, EndOfFrames) as error:
            raise ReelflowError("a decoder does not start; its standard error says why") from error
        if kind == FAILED:
            raise ExtraError(*payload.decode().split(" ", 1))
        self._ready = True

    def ask(self, job: bytes, deadline: float) -> tuple[bytes, bytes]:
        if not self._ready:
            self.wait_ready()
            deadline += START_S
        write_frame(self._stdin.fileno(), JOB, job)
        return read_frame(self._stdout.fileno(), deadline)

    def restart(self) -> None:
        self.end()
        self._start()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdin.close()
        self._stdout.close()
