"""KuaiRand as impressions with their context, and its watch lists as prior history.

=============  ==============================================================================
categories     user, item, creator, tag, duration (twelve bins), surface (the tab it was shown in),
               hour (eighths of the day in China), music, upload (kind of video and of upload),
               activity, segment (anonymous attribute 3 of the user)
numbers        duration, age, width and orientation of the video, the first eight tabs;
               of the user: followers, friends, days since registration, flags, activity, anonymous
               attribute 1
=============  ==============================================================================

A video is complete when it was played for its duration. Of the watch lists each watch is known to be
long or not; the long ones are found in the list of long watches from its end on (that list may
begin before the other one). Times are as in `streams.sources.kuairand`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from learners.impressions import Impressions
from schemas.errors import SourceError
from schemas.runs import Float32, Int32, Int64

from ..sources.files import Folder, find_file, read_lines, read_unpacked
from ..sources.kuairand import HISTORY_START_MS, LOG_COLUMNS, read_log, read_parquet

CATEGORIES: Final = (
    "user",
    "item",
    "creator",
    "tag",
    "duration",
    "surface",
    "hour",
    "music",
    "upload",
    "activity",
    "segment",
)
DURATIONS_MS: Final = (7e3, 1e4, 1.5e4, 2e4, 3e4, 4.5e4, 6e4, 9e4, 1.2e5, 1.8e5, 3e5)
N_TABS: Final = 8
FEW: Final = 10
"""An attribute with at most so many values is taken as numbers, one a value."""

_COUNTS: Final = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_FLAGS: Final = ("is_lowactive_period", "is_live_streamer", "is_video_author")
_CHINA_MS: Final = 8 * 3_600_000
_DAY_MS: Final = 86_400_000
_UNKNOWN_UPLOAD_MS: Final = 1_650_800_000_000

Rows = list[dict[str, str]]


class ImpressionData(Struct, kw_only=True):
    """What an evaluation of probabilities runs over."""

    name: str
    impressions: Impressions
    prior: Impressions | None
    categories: tuple[str, ...]
    numbers: tuple[str, ...]
    user_numbers: frozenset[str]
    attributes: Int32
    """(I, A) of every item, for the attention."""


class _Videos(Struct):
    categories: dict[str, Int32]
    duration_ms: Int64
    uploaded_ms: Int64
    width: Float32
    height: Float32


class _Users(Struct):
    categories: dict[str, Int32]
    numbers: dict[str, Float32]


def load_impressions(folder: Path, prior: Path | None = None, limit: int | None = None) -> ImpressionData:
    """Impressions of a KuaiRand folder, by time and then user; with `prior`, the watch lists of that file.

    Raises
    ------
    SourceError
        A file is missing or not as published.
    """
    log = read_log(folder, (*LOG_COLUMNS, "tab"))
    order = np.lexsort((log["user_id"], log["time_ms"]))[:limit]
    log = {name: column[order] for name, column in log.items()}
    videos = _videos(_table(folder, "video_features_basic_*.csv*"), int(log["video_id"].max()) + 1)
    users = _users(_table(folder, "user_features_*.csv*"), int(log["user_id"].max()) + 1)
    user, item, ts_ms = log["user_id"], log["video_id"], log["time_ms"]
    hour = (ts_ms + _CHINA_MS) % _DAY_MS // (_DAY_MS // 8)
    numbers = _item_numbers(videos, log)
    of_user = {name: column[user] for name, column in users.numbers.items()}
    outcomes = np.stack(
        [
            log["is_click"] == 1,
            log["long_view"] == 1,
            log["play_time_ms"] >= log["duration_ms"],
            log["is_like"] == 1,
        ],
        axis=1,
    ).astype(np.int8)
    everything = numbers | of_user
    impressions = Impressions(
        users=user.astype(np.int32),
        items=item.astype(np.int32),
        ts_ms=ts_ms,
        categories=_categories(videos, users, user, item, log["tab"], hour),
        numbers=np.stack(list(everything.values()), axis=1).astype(np.float32),
        outcomes=outcomes,
    )
    names = ("creator", "tag", "duration", "music", "upload")
    return ImpressionData(
        name="kuairand",
        impressions=impressions,
        prior=None if prior is None else _watch_lists(prior, videos, users, len(everything)),
        categories=CATEGORIES,
        numbers=tuple(everything),
        user_numbers=frozenset(of_user),
        attributes=np.stack([videos.categories[name] for name in names], axis=1),
    )


def _table(folder: Folder, pattern: str) -> Rows:
    file = find_file(folder, pattern)
    if file is None:
        raise SourceError(f"{folder}: no {pattern} in it")
    return list(csv.DictReader(read_lines(file)))


def _coded(rows: Rows, places: Int64, n: int, value: Callable[[dict[str, str]], Any]) -> Int32:
    """Number of each row's value in order of appearance, by place; 0 where there is no row."""
    codes: dict[Any, int] = {}
    column = np.zeros(n, dtype=np.int32)
    for place, row in zip(places.tolist(), rows, strict=True):
        column[place] = codes.setdefault(value(row), len(codes))
    return column


def _numbers(rows: Rows, places: Int64, n: int, name: str, missing: float = 0.0) -> Float32:
    column = np.full(n, missing, dtype=np.float32)
    for place, row in zip(places.tolist(), rows, strict=True):
        try:
            column[place] = float(row[name])
        except ValueError:
            column[place] = missing
    return column


def _places(rows: Rows, name: str, at_least: int) -> tuple[Int64, int]:
    try:
        places = np.array([int(row[name]) for row in rows], dtype=np.int64)
    except (KeyError, ValueError) as error:
        raise SourceError(f"column {name}: {error}") from error
    return places, max(int(places.max(initial=0)) + 1, at_least)


def _videos(rows: Rows, at_least: int) -> _Videos:
    places, n = _places(rows, "video_id", at_least)
    try:
        uploaded = np.full(n, _UNKNOWN_UPLOAD_MS, dtype=np.int64)
        for place, row in zip(places.tolist(), rows, strict=True):
            if row["upload_dt"]:
                date = datetime.fromisoformat(row["upload_dt"]).replace(tzinfo=UTC)
                uploaded[place] = int(date.timestamp() * 1_000)
        duration = _numbers(rows, places, n, "video_duration").astype(np.int64)
        return _Videos(
            {
                "creator": _coded(rows, places, n, lambda row: row["author_id"]),
                "tag": _coded(rows, places, n, lambda row: row["tag"].split(",")[0]),
                "duration": np.searchsorted(DURATIONS_MS, duration).astype(np.int32) + (duration > 0),
                "music": _coded(rows, places, n, lambda row: row["music_id"]),
                "upload": _coded(rows, places, n, lambda row: (row["upload_type"], row["video_type"])),
            },
            duration,
            uploaded,
            _numbers(rows, places, n, "server_width"),
            _numbers(rows, places, n, "server_height"),
        )
    except (KeyError, ValueError) as error:
        raise SourceError(f"videos: {error}") from error


def _users(rows: Rows, at_least: int) -> _Users:
    places, n = _places(rows, "user_id", at_least)
    try:
        numbers = {name: np.log1p(np.maximum(_numbers(rows, places, n, name), 0.0)) for name in _COUNTS}
        numbers |= {name: _numbers(rows, places, n, name, -1.0) for name in _FLAGS}
        attributes = [name for name in ("onehot_feat1", "onehot_feat3") if name in rows[0]]
        coded = {
            name: _coded(rows, places, n, lambda row, name=name: row[name])  # type: ignore[misc]
            for name in ("user_active_degree", *attributes)
        }
    except KeyError as error:
        raise SourceError(f"users: no column {error}") from error
    for name, column in coded.items():
        n_values = int(column.max(initial=0)) + 1
        if n_values <= FEW:
            numbers |= {f"{name}={v}": (column == v).astype(np.float32) for v in range(1, n_values)}
    unknown = np.zeros(n, dtype=np.int32)
    chosen = {
        "activity": coded["user_active_degree"],
        "segment": coded.get("onehot_feat3", unknown),
    }
    return _Users(chosen, numbers)


def _item_numbers(videos: _Videos, log: dict[str, Int64]) -> dict[str, NDArray[Any]]:
    item, ts_ms = log["video_id"], log["time_ms"]
    duration = videos.duration_ms[item]
    numbers: dict[str, NDArray[Any]] = {
        "duration": np.log1p(duration / 1_000),
        "shown duration": np.log1p(np.maximum(log["duration_ms"], 0) / 1_000),
        "age": np.log1p(np.maximum(ts_ms - videos.uploaded_ms[item], 0) / _DAY_MS),
        "duration unknown": duration == 0,
        "width": np.log1p(videos.width[item]),
        "landscape": videos.width[item] > videos.height[item],
    }
    return numbers | {f"tab {tab}": log["tab"] == tab for tab in range(N_TABS)}


def _categories(
    videos: _Videos, users: _Users, user: Int64, item: Int64, tab: Int64 | None, hour: Int64 | None
) -> Int32:
    unknown = np.full(len(user), -1, dtype=np.int32)
    columns: dict[str, NDArray[Any]] = {
        "user": user,
        "item": item,
        "surface": unknown if tab is None else tab,
        "hour": unknown if hour is None else hour,
        **{name: column[item] for name, column in videos.categories.items()},
        **{name: column[user] for name, column in users.categories.items()},
    }
    return np.stack([columns[name] for name in CATEGORIES], axis=1).astype(np.int32)


def _watch_lists(file: Path, videos: _Videos, users: _Users, n_numbers: int, seed: int = 0) -> Impressions:
    names = ("user_id", "last_time_ms", "watch_seq", "long_watch_seq")
    if not file.is_file():
        raise SourceError(f"{file}: there is no such file")
    table = read_parquet(read_unpacked(file), file, names)
    lists: list[list[int]] = table["watch_seq"].to_pylist()
    long_lists: list[list[int]] = table["long_watch_seq"].to_pylist()
    n = np.array([len(videos_) for videos_ in lists], dtype=np.int64)
    owner = np.repeat(np.arange(len(lists)), n)
    user = table["user_id"].to_numpy().astype(np.int64)[owner]
    item = np.array([video for videos_ in lists for video in videos_], dtype=np.int64)
    long = np.concatenate([_long_of(*pair) for pair in zip(lists, long_lists, strict=True)])
    draws = np.random.default_rng(seed).random(len(item))
    draws = draws[np.lexsort((draws, owner))]
    draws[(np.cumsum(n) - 1)[n > 0]] = 1.0
    last_ms = table["last_time_ms"].to_numpy().astype(np.int64)[owner]
    ts_ms = HISTORY_START_MS + (draws * np.maximum(0, last_ms - HISTORY_START_MS)).astype(np.int64)
    known = (user < len(users.categories["activity"])) & (item < len(videos.duration_ms))
    order = np.argsort(ts_ms, kind="stable")
    order = order[known[order]]
    user, item = user[order], item[order]
    outcomes = np.full((len(order), 4), -1, dtype=np.int8)
    outcomes[:, 1] = long[order]
    return Impressions(
        users=user.astype(np.int32),
        items=item.astype(np.int32),
        ts_ms=ts_ms[order],
        categories=_categories(videos, users, user, item, None, None),
        numbers=np.zeros((len(order), n_numbers), dtype=np.float32),
        outcomes=outcomes,
    )


def _long_of(watched: Iterable[int], long_watched: list[int]) -> NDArray[np.int8]:
    """Which watches the list of long ones holds, matched from the end."""
    backwards = list(watched)[::-1]
    found = np.zeros(len(backwards), dtype=np.int8)
    left = len(long_watched)
    for at, video in enumerate(backwards):
        if left and long_watched[left - 1] == video:
            found[at] = 1
            left -= 1
    return found[::-1]
