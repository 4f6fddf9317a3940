"""KuaiRand: impressions of a short-video feed with watch time and every kind of feedback.

Read from the published folder: the logs ``log_standard_*`` (csv or parquet) and the catalogue
``video_features_basic_*.csv``, packed or not. One row of the log becomes

==============================  ==================================================================
row                             events, all with the row's time, in this order
==============================  ==================================================================
is_click or long_view           ``watch`` with play_time_ms and duration_ms
neither                         ``impression`` (shown, and swiped away within seconds), same fields
is_like, is_follow, is_comment  ``like``, ``follow``, ``comment``
is_forward, is_hate             ``share``, ``dislike``
==============================  ==================================================================

play_time_ms exceeds duration_ms where a video was looped. Titles are not in the data; tags are
numbers, so they are named ``tag7``. The times of day are China's.

With `history`, the lists ``user_history_*.parquet`` (the videos a user watched before the log, in
order but without times) come first, as ``watch`` without watch_ms and ``like``: each user's list is
spread over 2022-04-08 .. that user's last known time by sorted uniform draws, seeded.

References
----------
Gao et al., KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos,
CIKM 2022.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.errors import SourceError
from schemas.records import Event, EventType, Item

from .files import Folder, find_file, find_files, read_lines, read_unpacked
from .source import TableSource

LOG_COLUMNS: Final = (
    "user_id",
    "video_id",
    "time_ms",
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "play_time_ms",
    "duration_ms",
)
VIDEO_COLUMNS: Final = ("video_id", "author_id", "upload_dt", "video_duration", "tag")
FEEDBACK: Final[tuple[tuple[str, EventType, str], ...]] = (
    ("is_like", "like", "l"),
    ("is_follow", "follow", "f"),
    ("is_comment", "comment", "c"),
    ("is_forward", "share", "s"),
    ("is_hate", "dislike", "d"),
)
"""Column of the log, type of the event, letter of its event_id."""

_CHINA: Final = timezone(timedelta(hours=8))
HISTORY_START_MS: Final = int(datetime(2022, 4, 8, tzinfo=_CHINA).timestamp() * 1000)

Column = NDArray[np.int64]

_KINDS: Final[tuple[tuple[EventType, str], ...]] = (
    ("impression", "i"),
    ("watch", "w"),
    *((kind, letter) for _, kind, letter in FEEDBACK),
)


_PREFIXES: Final = ("kr", "krh")
_LOG, _HISTORY = range(2)


class _Rows(Struct, frozen=True, kw_only=True):
    """Events as columns, sorted by time; -1 is an unknown number.

    `origin` indexes `_PREFIXES` and `kind` indexes `_KINDS`; `row` is the row in the origin.
    """

    origin: Column
    row: Column
    user: Column
    video: Column
    ts_ms: Column
    kind: Column
    watch_ms: Column
    duration_ms: Column

    def events(self) -> Iterator[Event]:
        columns = (getattr(self, name).tolist() for name in self.__struct_fields__)
        for origin, row, user, video, ts_ms, kind, watch_ms, duration_ms in zip(*columns, strict=True):
            name, letter = _KINDS[kind]
            yield Event(
                event_id=f"{_PREFIXES[origin]}-{row}-{letter}",
                user_id=f"u{user}",
                item_id=f"v{video}",
                type=name,
                ts_ms=ts_ms,
                watch_ms=watch_ms if watch_ms >= 0 else None,
                duration_ms=duration_ms if duration_ms > 0 else None,
                surface="short_video",
            )


def load_kuairand(
    folder: Folder, *, history: bool = False, seed: int = 0, name: str = "kuairand"
) -> TableSource:
    """Source of a KuaiRand folder.

    Parameters
    ----------
    folder : Path or Traversable
        With the files named above.
    history : bool
        Whether the watch lists before the log come first.
    seed : int
        Of the times given to those lists.

    Raises
    ------
    SourceError
        A file is missing or not as published.
    """
    rows = _log_rows(read_log(folder))
    if history:
        file = find_file(folder, "user_history_*.parquet")
        if file is None:
            raise SourceError(f"{folder}: no user_history_*.parquet in it; leave --history out")
        rows = _merged(_history_rows(file, seed), rows)
    return TableSource(name, _videos(folder), rows.ts_ms, rows.events)


def read_log(folder: Folder, columns: Sequence[str] = LOG_COLUMNS) -> dict[str, Column]:
    """Columns of every log in `folder`, one after the other.

    Raises
    ------
    SourceError
        There is none, or it is not as published.
    """
    logs = [file for file in find_files(folder, "log_standard_*") if _is_table(file)]
    if not logs:
        raise SourceError(f"{folder}: no log_standard_*.parquet or .csv in it")
    tables = [_read_table(file, columns) for file in logs]
    log = {name: np.concatenate([table[name] for table in tables]) for name in columns}
    if not len(log["time_ms"]):
        raise SourceError(f"{folder}: the log is empty")
    return log


def _merged(earlier: _Rows, later: _Rows) -> _Rows:
    """Rows of both by time; at equal times the earlier ones first."""
    order = np.argsort(np.concatenate([earlier.ts_ms, later.ts_ms]), kind="stable")
    return _Rows(
        **{
            name: np.concatenate([getattr(earlier, name), getattr(later, name)])[order]
            for name in _Rows.__struct_fields__
        }
    )


def _is_table(file: Folder) -> bool:
    return file.name.removesuffix(".gz").endswith((".parquet", ".csv"))


def _read_table(file: Folder, columns: Sequence[str]) -> dict[str, Column]:
    content = read_unpacked(file)
    if ".parquet" in file.name:
        table = read_parquet(content, file, columns)
        return {name: table[name].to_numpy().astype(np.int64) for name in columns}
    reader = csv.reader(io.StringIO(content.decode()))
    header = next(reader, [])
    if missing := [name for name in columns if name not in header]:
        raise SourceError(f"{file}: no column {missing[0]}")
    places = [header.index(name) for name in columns]
    try:
        values = np.array([[int(float(row[at])) for at in places] for row in reader], dtype=np.int64)
    except (ValueError, IndexError) as error:
        raise SourceError(f"{file}, line {reader.line_num}: {error}") from error
    values = values.reshape(-1, len(columns))
    return {name: values[:, i] for i, name in enumerate(columns)}


def read_parquet(content: bytes, file: Folder, columns: Sequence[str]) -> Any:
    """Table of a packed file's content that has at least these columns.

    Raises
    ------
    SourceError
        It is no such file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except pa.ArrowInvalid as error:
        raise SourceError(f"{file}: {error}") from error
    if missing := [name for name in columns if name not in table.column_names]:
        raise SourceError(f"{file}: no column {missing[0]}")
    return table


def _log_rows(log: dict[str, Column]) -> _Rows:
    """Events of the log, sorted by time; the row is that of the files as they stand."""
    rows = np.arange(len(log["time_ms"]))
    watched = (log["is_click"] == 1) | (log["long_view"] == 1)
    kinds = [watched.astype(np.int64)]
    sources = [rows]
    for i, (column, _, _) in enumerate(FEEDBACK):
        chosen = np.flatnonzero(log[column] == 1)
        sources.append(chosen)
        kinds.append(np.full(len(chosen), i + 2, dtype=np.int64))
    row = np.concatenate(sources)
    kind = np.concatenate(kinds)
    # By time; then by row, so that a row's feedback follows its watch.
    order = np.lexsort((kind, row, log["time_ms"][row]))
    row, kind = row[order], kind[order]
    timed = kind < 2
    return _Rows(
        origin=np.full(len(row), _LOG),
        row=row,
        user=log["user_id"][row],
        video=log["video_id"][row],
        ts_ms=log["time_ms"][row],
        kind=kind,
        watch_ms=np.where(timed, log["play_time_ms"][row], -1),
        duration_ms=np.where(timed, log["duration_ms"][row], -1),
    )


def _history_rows(file: Folder, seed: int) -> _Rows:
    """The watch lists as events; a like follows the last watch of its video in the list."""
    table = read_parquet(read_unpacked(file), file, ("user_id", "last_time_ms", "watch_seq", "like_seq"))
    lists: list[list[int]] = table["watch_seq"].to_pylist()
    likes: list[list[int]] = table["like_seq"].to_pylist()
    lengths = np.array([len(videos) for videos in lists], dtype=np.int64)
    n = int(lengths.sum())
    owner = np.repeat(np.arange(len(lists)), lengths)
    video = np.array([v for videos in lists for v in videos], dtype=np.int64)
    start_of = np.cumsum(lengths) - lengths
    last_ms = table["last_time_ms"].to_numpy().astype(np.int64)[owner]
    # Sorting (owner, draw) sorts the draws of each list in its place; the last watch is at last_time_ms.
    draws = np.random.default_rng(seed).random(n)
    draws = draws[np.lexsort((draws, owner))]
    draws[(start_of + lengths - 1)[lengths > 0]] = 1.0
    ts_ms = HISTORY_START_MS + (draws * np.maximum(0, last_ms - HISTORY_START_MS)).astype(np.int64)
    liked = []
    for i, videos in enumerate(likes):
        last_at = {v: int(start_of[i]) + at for at, v in enumerate(lists[i])} if videos else {}
        liked += sorted({last_at[v] for v in videos if v in last_at})
    row = np.concatenate([np.arange(n), np.array(liked, dtype=np.int64)])
    kind = np.concatenate([np.ones(n, dtype=np.int64), np.full(len(liked), 2, dtype=np.int64)])
    order = np.lexsort((kind, row, ts_ms[row]))
    row, kind = row[order], kind[order]
    unknown = np.full(len(row), -1, dtype=np.int64)
    user = table["user_id"].to_numpy().astype(np.int64)[owner]
    return _Rows(
        origin=np.full(len(row), _HISTORY),
        row=row,
        user=user[row],
        video=video[row],
        ts_ms=ts_ms[row],
        kind=kind,
        watch_ms=unknown,
        duration_ms=unknown,
    )


def _videos(folder: Folder) -> list[Item]:
    file = find_file(folder, "video_features_basic_*.csv")
    if file is None:
        raise SourceError(f"{folder}: no video_features_basic_*.csv in it")
    reader = csv.DictReader(read_lines(file))
    if missing := [name for name in VIDEO_COLUMNS if name not in (reader.fieldnames or ())]:
        raise SourceError(f"{file}: no column {missing[0]}")
    try:
        return [_video(row) for row in reader]
    except ValueError as error:
        raise SourceError(f"{file}, line {reader.line_num}: {error}") from error


def _video(row: dict[str, str]) -> Item:
    tags = [f"tag{int(float(tag))}" for tag in row["tag"].split(",") if tag]
    uploaded = row["upload_dt"]
    return Item(
        item_id=f"v{row['video_id']}",
        surface="short_video",
        tags=tags,
        category=tags[0] if tags else None,
        creator_id=f"a{row['author_id']}",
        duration_ms=int(float(row["video_duration"])) if row["video_duration"] else None,
        published_ts_ms=(
            int(datetime.fromisoformat(uploaded).replace(tzinfo=_CHINA).timestamp() * 1000)
            if uploaded
            else None
        ),
    )
