"""The data sets that quality is measured on, by name, each as the protocol has it.

==================  =====================================================================
name                stream
==================  =====================================================================
movietweetings      every rating a visit, by time
ml-latest-small     as above
ml-100k             as above
kuairand            the log with its impressions; the watch lists before it are prior events
ml-1m-order-only    users interleaved, the first 400 000 events; see `ordered`
==================  =====================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import Struct

from learners.prequential import Rules, Stream
from schemas.errors import ConfigurationError, SourceError
from schemas.runs import Int64

from ..sources import open_source
from ..sources.files import Folder, find_file, read_unpacked
from .columns import events_of, stream_of, stream_of_visits

N_ACTIVE: Final = 40
N_ORDERED: Final = 400_000
PRIOR_PREFIX: Final = "krh-"
"""Of the event ids of KuaiRand's watch lists before the log."""


class DataSet(Struct, frozen=True, kw_only=True):
    """Where a data set is below the data folder, how it is read and what is asked of it."""

    folder: str
    format: str
    rules: Rules = Rules()


DATA_SETS: Final = {
    "movietweetings": DataSet(folder="movietweetings-142k", format="movietweetings"),
    "ml-latest-small": DataSet(folder="ml-latest-small", format="movielens"),
    "ml-100k": DataSet(folder="ml-100k", format="movielens"),
    "kuairand": DataSet(
        folder="kuairand-pure", format="kuairand", rules=Rules(exclude_seen=False, ties_together=True)
    ),
    "ml-1m-order-only": DataSet(folder="ml-1m-order-only", format="ordered"),
}


def load_data_set(name: str, data: Path) -> tuple[Stream, Rules]:
    """A data set of the table above, from its folder below `data`, and the rules that go with it.

    Raises
    ------
    ConfigurationError
        The name is unknown.
    SourceError
        The data cannot be read.
    """
    if name not in DATA_SETS:
        raise ConfigurationError("data set", f"must be one of {', '.join(DATA_SETS)}, not {name!r}")
    chosen = DATA_SETS[name]
    return load_stream(chosen.format, data / chosen.folder, name=name, history=True), chosen.rules


def load_stream(
    format: str,  # noqa: A002 - the word on the command line
    path: Path | None,
    *,
    name: str | None = None,
    history: bool = False,
    limit: int | None = None,
) -> Stream:
    """A stream of any format that `reelflow replay` knows, or ``ordered``.

    Parameters
    ----------
    format : str
    path : Path or None
        Folder or file; None only for the sample.
    name : str, optional
        For the report; by default that of the source.
    history : bool
        kuairand: whether the watch lists before the log are prior events.
    limit : int, optional
        Events at most; 400 000 for ``ordered`` by default.
    """
    if format == "ordered":
        if path is None:
            raise ConfigurationError("input", "format ordered needs the path of its data")
        owners, items = interleaved(*read_ordered(path))
        n = N_ORDERED if limit is None else limit
        return stream_of_visits(name or "ordered", owners[:n], items[:n])
    source = open_source(format, path, history=history and format == "kuairand")
    events = (event for i, event in enumerate(events_of(source)) if limit is None or i < limit)
    return stream_of(name or source.name, events, lambda event: event.event_id.startswith(PRIOR_PREFIX))


def read_ordered(path: Folder) -> tuple[Int64, Int64]:
    """Users and items of the ML-1M copy that keeps order but no times, each user's events in order.

    Users in descending order of their id (the published set was collected in it).

    Raises
    ------
    SourceError
        The file is missing or lacks a column.
    """
    file: Folder | None = path
    if path.is_dir():
        file = find_file(path, "ratings_no_timestamp.parquet")
    if file is None:
        raise SourceError(f"{path}: no ratings_no_timestamp.parquet in it")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table: Any = pq.read_table(pa.BufferReader(read_unpacked(file)))
        user, movie, rank = (
            table[column].to_numpy().astype(np.int64) for column in ("user", "movie", "chrono_rank")
        )
    except (pa.ArrowInvalid, KeyError) as error:
        raise SourceError(f"{file}: {error}") from error
    kept = np.flatnonzero(rank >= 0)
    order = kept[np.lexsort((rank[kept], -user[kept]))]
    return user[order], movie[order]


def interleaved(users: Int64, items: Int64, seed: int = 0) -> tuple[Int64, Int64]:
    """Interleave users' sequences: `N_ACTIVE` at once, the next event from a random one of them.

    Parameters
    ----------
    users, items : (N,)
        Each user's events together and in order; users become active in the order given.
    seed : int
        Of ``RandomState.randint``, drawn once an event.
    """
    bounds = np.flatnonzero(np.diff(users, prepend=users[:1] - 1))
    starts, ends = bounds.tolist(), [*bounds[1:].tolist(), len(users)]
    random = np.random.RandomState(seed)
    active = list(range(min(N_ACTIVE, len(starts))))
    waiting = len(active)
    order = np.empty(len(users), dtype=np.int64)
    for i in range(len(users)):
        place = random.randint(len(active))
        owner = active[place]
        order[i] = starts[owner]
        starts[owner] += 1
        if starts[owner] == ends[owner]:
            if waiting < len(starts):
                active[place] = waiting
                waiting += 1
            else:
                active.pop(place)
    return users[order], items[order]
