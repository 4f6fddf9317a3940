"""A decoder: a process that forks one job for each medium, and outlives whatever the job does.

Started by the pool as ``python -m streams.content.decoder``. It imports the decoding packages once, so that a
job starts within milliseconds, and holds nothing of one medium when the next comes. A job

1. lowers its limits: address space, processor time, size of files, no core; it ends when the decoder does;
2. fetches, says so, decodes, and writes one frame with the result or the refusal;
3. reads what stands on a picture, if that is wanted, within what is left of the limits, and writes it again;
4. is killed when fetching, or the rest, takes longer than its limit, and judged by how it ended unless a
   picture is here.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct, structs

from schemas.errors import ExtraError, MediaError
from schemas.media import MediaModality, MediaReason

from .cover_text import CoverReader
from .decoded import Decoded, Picture, UInt8, pack
from .fetch import open_medium
from .frames_io import (
    DECODED,
    FAILED,
    FETCHED,
    JOB,
    READY,
    REFUSED,
    RESULT,
    EndOfFrames,
    read_frame,
    write_frame,
)
from .kinds import check_kind
from .limits import MIB, Form, MediaLimits, SourceRules

READS_COVERS: Final = "--covers"
"""Argument of a decoder whose jobs may ask for the words on pictures."""

PR_SET_PDEATHSIG: Final = 1
MARGIN_S: Final = 0.5
"""What ending a job that is over its time may take."""

Decode = Callable[[BinaryIO, str, MediaLimits, Form], Decoded]
DecodeBoth = Callable[[BinaryIO, str, MediaLimits, Form], tuple[Picture, UInt8 | None]]


class Job(Struct, frozen=True):
    """One medium to fetch and decode."""

    reference: str
    modality: MediaModality
    rules: SourceRules
    limits: MediaLimits
    form: Form


def main() -> None:
    """Serve jobs on standard input until it ends; replies go to standard output."""
    jobs, replies = os.dup(0), os.dup(1)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 0)
    os.dup2(quiet, 1)  # libraries print there; errors of our own stay on standard error
    try:
        decoders = load_decoders(read_covers=READS_COVERS in sys.argv)
    except ExtraError as error:
        write_frame(replies, FAILED, f"{error.extra} {error.missing}".encode())
        return
    libc = ctypes.CDLL(None)
    write_frame(replies, READY)
    while True:
        try:
            kind, payload = read_frame(jobs)
        except EndOfFrames:
            return
        if kind == JOB:
            job = msgspec.msgpack.decode(payload, type=Job)
            write_frame(replies, *run_job(job, decoders, libc, (jobs, replies), quiet))


class Decoders(Struct, frozen=True):
    """What decodes each modality, and what reads the words on pictures."""

    decode: dict[MediaModality, Decode]
    both: DecodeBoth
    covers: CoverReader | None


def load_decoders(*, read_covers: bool) -> Decoders:
    """The decoding functions, with their packages imported."""
    from .decode_audio import decode_audio
    from .decode_image import decode_both, decode_image
    from .decode_video import decode_video

    decode: dict[MediaModality, Decode] = {
        "image": decode_image,
        "audio": decode_audio,
        "video": decode_video,
    }
    return Decoders(decode, decode_both, CoverReader() if read_covers else None)


def run_job(
    job: Job, decoders: Decoders, libc: ctypes.CDLL, foreign: tuple[int, ...], quiet: int
) -> tuple[bytes, bytes]:
    """Fork, wait within the limits, and return the frame that answers the job."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                for handle in (*foreign, reading):
                    os.close(handle)
                os.dup2(quiet, 2)
                _work(job, decoders, writing)
                code = 0
        finally:
            os._exit(code)
    os.close(writing)
    phase: MediaReason = "slow_server"
    picture = b""
    try:
        kind, payload = read_frame(reading, time.monotonic() + job.limits.fetch_s)
        if kind == FETCHED:
            phase = "timeout"
            deadline = time.monotonic() + job.limits.decode_s
            kind, payload = read_frame(reading, deadline)
            if kind == DECODED:
                picture = payload
                kind, payload = read_frame(reading, deadline)
        return (kind, payload) if kind == RESULT or not picture else (RESULT, picture)
    except TimeoutError:
        if picture:
            return RESULT, picture
        limit = job.limits.fetch_s if phase == "slow_server" else job.limits.decode_s
        return _refused(phase, f"more than {limit:g} s")
    except EndOfFrames:
        _, status = os.waitpid(pid, 0)
        pid = 0
        return (RESULT, picture) if picture else _judged(status)
    finally:
        os.close(reading)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _judged(status: int) -> tuple[bytes, bytes]:
    """Why a job ended that said nothing."""
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if ended == signal.SIGXCPU:
        return _refused("timeout", "processor time")
    if ended == signal.SIGKILL:  # not by us: the system is out of memory
        return _refused("memory", "killed")
    return _refused("crashed", f"signal {ended}" if ended else f"exit code {os.WEXITSTATUS(status)}")


def _refused(reason: MediaReason, message: str) -> tuple[bytes, bytes]:
    return REFUSED, msgspec.msgpack.encode((reason, message))


def _work(job: Job, decoders: Decoders, writing: int) -> None:
    """The job itself, in its own process."""
    _lower_limits(job.limits)
    try:
        file, name = open_medium(job.reference, job.rules, job.limits)
        write_frame(writing, FETCHED)
        kind = check_kind(file, name, job.modality)
        if job.modality == "image" and job.form.text_side and decoders.covers is not None:
            answer = _read_cover(file, kind, job, decoders, writing)
        else:
            answer = (RESULT, pack(decoders.decode[job.modality](file, kind, job.limits, job.form)))
    except MediaError as error:
        answer = _refused(error.reason, error.message)
    except MemoryError:
        answer = _refused("memory", f"more than {job.limits.memory_mib} MiB")
    except Exception as error:  # noqa: BLE001 - whatever a hostile file brings about is its refusal
        answer = _refused("unreadable", f"{type(error).__name__}: {error}")
    write_frame(writing, *answer)


def _read_cover(file: BinaryIO, kind: str, job: Job, decoders: Decoders, writing: int) -> tuple[bytes, bytes]:
    """A picture is told at once, so that it is there whatever reading it leads to."""
    picture, pixels = decoders.both(file, kind, job.limits, job.form)
    if pixels is None or decoders.covers is None:
        return RESULT, pack(picture)
    write_frame(writing, DECODED, pack(picture))
    return RESULT, pack(structs.replace(picture, text=decoders.covers.read(pixels)))


def _lower_limits(limits: MediaLimits) -> None:
    # Most of what is mapped now are the packages; the limit is for what comes on top.
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    space = mapped + limits.memory_mib * MIB
    for what, value in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_CPU, limits.decode_cpu_s),
        (resource.RLIMIT_FSIZE, limits.max_bytes + MIB),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value + (what == resource.RLIMIT_CPU)))


if __name__ == "__main__":
    main()
