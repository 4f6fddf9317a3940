"""Ratings with times: MovieLens in its three layouts, and MovieTweetings.

Every rating is a ``watch`` without watch_ms, whatever its value: who rated a film has seen it, and
what was thought of it is not what these streams are for. An item's tags are its genres, its
category the first of them.

==============  ==========================  =====================  =============================
layout          ratings                     catalogue              fields
==============  ==========================  =====================  =============================
csv             ratings.csv                 movies.csv             header, commas
dat             ratings.dat                 movies.dat             ``::``
100k            u.data                      u.item                 tabs, ``|``
==============  ==========================  =====================  =============================

Every file may be packed (``.gz``). Ids are kept as they are written, leading zeros included.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from msgspec import Struct

from schemas.errors import SourceError
from schemas.records import Event, Item

from .files import Folder, find_file, read_lines
from .source import TableSource

Rating = tuple[str, str, int]
"""User, item, time in ms."""

_NO_GENRE: Final = "(no genres listed)"
_GENRES_100K: Final = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)


class _Layout(Struct, frozen=True):
    """How the files of one layout are named and split."""

    ratings: str
    movies: str
    split_rating: Callable[[str], list[str]]
    split_movie: Callable[[str], list[str]]
    header: bool
    genres_of: Callable[[list[str]], list[str]]


def _csv_fields(line: str) -> list[str]:
    return next(csv.reader([line]))


def _dat_fields(line: str) -> list[str]:
    return line.split("::")


def _tab_fields(line: str) -> list[str]:
    return line.split("\t")


def _bar_fields(line: str) -> list[str]:
    return line.split("|")


def _genre_list(fields: list[str]) -> list[str]:
    return [genre for genre in fields[2].split("|") if genre and genre != _NO_GENRE]


def _genre_flags(fields: list[str]) -> list[str]:
    flags = fields[5 : 5 + len(_GENRES_100K)]
    return [name for name, flag in zip(_GENRES_100K, flags, strict=True) if flag == "1"]


_LAYOUTS: Final = (
    _Layout("ratings.csv", "movies.csv", _csv_fields, _csv_fields, True, _genre_list),
    _Layout("ratings.dat", "movies.dat", _dat_fields, _dat_fields, False, _genre_list),
    _Layout("u.data", "u.item", _tab_fields, _bar_fields, False, _genre_flags),
)


def load_movielens(folder: Folder) -> TableSource:
    """Source of a MovieLens folder; the layout is recognised by the file names.

    Raises
    ------
    SourceError
        No layout matches, or a line cannot be read.
    """
    return _load(folder, "movielens", "ml")


def load_movietweetings(folder: Folder) -> TableSource:
    """Source of a MovieTweetings folder (``ratings.dat``, ``movies.dat``).

    Raises
    ------
    SourceError
        A file is missing, or a line cannot be read.
    """
    return _load(folder, "movietweetings", "mt")


def _load(folder: Folder, name: str, prefix: str) -> TableSource:
    for layout in _LAYOUTS:
        ratings, movies = find_file(folder, layout.ratings), find_file(folder, layout.movies)
        if ratings is not None and movies is not None:
            break
    else:
        known = " or ".join(f"{layout.ratings} with {layout.movies}" for layout in _LAYOUTS)
        raise SourceError(f"{folder}: no {known} in it")
    rows = list(_ratings(ratings, layout))
    times = np.array([ts_ms for _, _, ts_ms in rows], dtype=np.int64)
    order = np.argsort(times, kind="stable")

    def events() -> Iterator[Event]:
        for row in order.tolist():
            user, item, ts_ms = rows[row]
            yield Event(
                event_id=f"{prefix}-{row}",
                user_id=user,
                item_id=item,
                type="watch",
                ts_ms=ts_ms,
                surface="long_video",
            )

    return TableSource(name, list(_movies(movies, layout)), times[order], events)


def _ratings(file: Folder, layout: _Layout) -> Iterator[Rating]:
    for number, line in _numbered(file, layout):
        try:
            user, item, _, seconds = layout.split_rating(line)
            yield user, item, int(seconds) * 1000
        except ValueError as error:
            raise SourceError(f"{file}, line {number}: {error}") from error


def _movies(file: Folder, layout: _Layout) -> Iterator[Item]:
    for number, line in _numbered(file, layout):
        try:
            fields = layout.split_movie(line)
            genres = layout.genres_of(fields)
        except (ValueError, IndexError) as error:
            raise SourceError(f"{file}, line {number}: {error}") from error
        yield Item(
            item_id=fields[0],
            surface="long_video",
            title=fields[1],
            tags=genres,
            category=genres[0] if genres else None,
        )


def _numbered(file: Folder, layout: _Layout) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_lines(file), start=1):
        if line and not (layout.header and number == 1):
            yield number, line
