"""Session data in periods: lines of ``session item``, separated by a tab, comma or blanks, in order.

Read from a folder with ``period_0.txt`` .., from a tar archive of them (packed with gzip or zstd), or
from one file, which is one period.

Frozen periods (the protocol of ADER): with everything up to period t - 1 learned, the clicks of
period t are ranked from the second click of a session on, after those on items that no earlier
period held were removed. Then period t is learned as it stands.

References
----------
Mi, Lin and Faltings, ADER: Adaptively Distilled Exemplar Replay towards Continual Learning for
Session-based Recommendation, RecSys 2020.
"""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Final

import numpy as np

from learners.frozen import Phase
from learners.prequential import Stream
from schemas.errors import SourceError
from schemas.runs import Int64

from ..sources.files import read_unpacked
from .columns import stream_of_visits

PERIOD_MS: Final = 7 * 86_400_000
_NUMBER: Final = re.compile(r"(\d+)\D*$")

Clicks = tuple[Int64, Int64]
"""Session and item of each click, in order."""


def read_periods(path: Path) -> list[Clicks]:
    """Periods of a folder, an archive or a file, in order of the number in their names.

    Raises
    ------
    SourceError
        Nothing can be read, or a line is not ``session item``.
    """
    if path.is_dir():
        archives = sorted(file for file in path.iterdir() if ".tar" in file.name)
        files = sorted((file for file in path.glob("*.txt") if _NUMBER.search(file.stem)), key=_number)
        if files and files[0].stem.startswith("period"):
            return [_clicks(read_unpacked(file), file.name) for file in files]
        if not archives:
            raise SourceError(f"{path}: no period_*.txt and no archive in it")
        path = archives[0]
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if ".tar" not in path.name:
        return [_clicks(read_unpacked(path), path.name)]
    try:
        content = read_unpacked(path)
        if path.name.endswith(".zst"):
            import cramjam

            content = bytes(cramjam.zstd.decompress(content))
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = sorted(archive.getmembers(), key=lambda member: _number(Path(member.name)))
            opened = ((member.name, archive.extractfile(member)) for member in members)  # None: no file
            return [_clicks(file.read(), name) for name, file in opened if file is not None]
    except (tarfile.TarError, OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}") from error


def _number(file: Path) -> int:
    found = _NUMBER.search(file.stem)
    return int(found[1]) if found else -1


def _clicks(content: bytes, name: str) -> Clicks:
    try:
        text = content.replace(b",", b" ").decode()
        table = np.array(text.split(), dtype=np.int64).reshape(-1, 2)
    except ValueError as error:
        raise SourceError(f"{name}: every line must be 'session item', two numbers: {error}") from error
    return np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])


def frozen_periods(periods: list[Clicks], *, name: str = "sessions") -> tuple[Stream, list[Phase]]:
    """The stream and its phases: period 0 learned, then each period ranked, then learned.

    What is ranked has sessions of its own, so nothing of it enters what is learned. Times are made
    up: a period is a week, its clicks evenly spread.
    """
    users, items, times, phases = [], [], [], []
    known: Int64 = np.zeros(0, dtype=np.int64)
    n_sessions = done = 0
    for t, (sessions, clicked) in enumerate(periods):
        _, session = np.unique(sessions, return_inverse=True)
        ts_ms = t * PERIOD_MS + np.arange(len(clicked)) * PERIOD_MS // max(len(clicked), 1)
        kept = np.isin(clicked, known) if t else np.zeros(len(clicked), dtype=np.bool_)
        for rows, learned in ((np.flatnonzero(kept), False), (np.arange(len(clicked)), True)):
            if not len(rows):
                continue
            users.append(session[rows] + n_sessions)
            items.append(clicked[rows])
            times.append(ts_ms[rows])
            n_sessions += int(session.max()) + 1
            phases.append(Phase(done, done + len(rows), learned))
            done += len(rows)
        known = np.union1d(known, clicked)
    stream = stream_of_visits(name, np.concatenate(users), np.concatenate(items))
    stream.ts_ms = np.concatenate(times).astype(np.int64)
    stream.fresh_window = 0  # in the published protocol a click on the same item again is a target
    return stream, phases


def leave_one_out(users: Int64, items: Int64, held: Clicks, *, name: str) -> tuple[Stream, list[Phase]]:
    """Learn `users` and `items` in order, then rank `held`, one event of each user."""
    n = len(users)
    stream = stream_of_visits(name, np.concatenate([users, held[0]]), np.concatenate([items, held[1]]))
    return stream, [Phase(0, n, learned=True), Phase(n, len(stream), learned=False)]
