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

Events of one user at one time have no order of their own. Where a data set has times in seconds they
are taken by item id, as if entered from a list sorted so. On ml-100k, where half of all events tie,
that order helps every sequential learner: first-order Markov reaches R@20 .231 with it, .188 in the
random order of the file, and .167 when tied events are predicted together.
"""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from msgspec import Struct

from learners.frozen import Phase
from learners.prequential import Rules, Stream
from schemas.errors import ConfigurationError, SourceError
from schemas.records import Event
from schemas.runs import Int64

from ..sources import open_source
from ..sources.files import Folder, find_file, read_unpacked
from .columns import events_of, slots_of, stream_of, stream_of_visits
from .sessions import leave_one_out

Ties = Literal["file", "item", "together"]
"""Order of a user's events at one time: that of the file, by item id, or none (predicted together)."""

N_ACTIVE: Final = 40
N_ORDERED: Final = 400_000
PRIOR_PREFIX: Final = "krh-"
"""Of the event ids of KuaiRand's watch lists before the log."""


class Format(Struct, frozen=True, kw_only=True):
    """What holds for a format unless it is said otherwise."""

    repeats: bool = False
    """Whether seen items are ranked."""
    ties: Ties = "file"


FORMATS: Final = {
    "sample": Format(repeats=True, ties="together"),
    "kuairand": Format(repeats=True, ties="together"),
    "movielens": Format(ties="item"),
    "movietweetings": Format(ties="item"),
    "native": Format(repeats=True, ties="together"),
    "ordered": Format(),
    "sessions": Format(repeats=True),
}


class DataSet(Struct, frozen=True, kw_only=True):
    """Where a data set is below the data folder, and how it is read."""

    folder: str
    format: str
    prior: str | None = None


DATA_SETS: Final = {
    "movietweetings": DataSet(folder="movietweetings-142k", format="movietweetings"),
    "ml-latest-small": DataSet(folder="ml-latest-small", format="movielens"),
    "ml-100k": DataSet(folder="ml-100k", format="movielens"),
    "kuairand": DataSet(
        folder="kuairand-pure", format="kuairand", prior="user_history_4_08_to_4_24_order_only.parquet"
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
    folder, default = data / chosen.folder, FORMATS[chosen.format]
    prior = None if chosen.prior is None else folder / chosen.prior
    stream = load_stream(chosen.format, folder, name=name, prior=prior, ties=default.ties)
    return stream, Rules(exclude_seen=not default.repeats, ties_together=default.ties == "together")


def load_stream(
    format: str,  # noqa: A002 - the word on the command line
    path: Path | None,
    *,
    name: str | None = None,
    prior: Path | None = None,
    ties: Ties = "file",
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
    prior : Path or None
        Events that are learned and never ranked: those of a file of JSON lines, before the stream;
        for kuairand (a parquet file) the watch lists beside the log, each spread over its time.
    ties : {"file", "item", "together"}
        Only "item" orders anything here; "together" is one of the `Rules`.
    limit : int, optional
        Events at most; 400 000 for ``ordered`` by default.
    """
    if format == "ordered":
        if path is None:
            raise ConfigurationError("input", "format ordered needs the path of its data")
        owners, items = interleaved(*read_ordered(path))
        n = N_ORDERED if limit is None else limit
        return stream_of_visits(name or "ordered", owners[:n], items[:n])
    watch_lists = prior is not None and prior.suffix == ".parquet"
    source = open_source(format, path, history=watch_lists)
    events = events_of(source)
    if ties == "item":
        events = sorted(events, key=by_item)
    events = islice(events, limit)
    earlier: list[Event] = []
    if prior is not None and not watch_lists:
        earlier = list(events_of(open_source("native", prior)))
    first_ids = frozenset(event.event_id for event in earlier)
    return stream_of(
        name or source.name,
        chain(earlier, events),
        lambda event: event.event_id in first_ids or event.event_id.startswith(PRIOR_PREFIX),
    )


def by_item(event: Event) -> tuple[int, str, int, str]:
    """Time, user, then item: by number where the id is one."""
    item = event.item_id
    return event.ts_ms, event.user_id, int(item) if item.isdecimal() else -1, item


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


def ordered_leave_one_out(path: Folder, *, name: str = "ordered") -> tuple[Stream, list[Phase]]:
    """The last event of every user left out; all others interleaved as `interleaved` does."""
    users, items = read_ordered(path)
    is_last = np.append(users[1:] != users[:-1], True)
    learned = interleaved(users[~is_last], items[~is_last])
    return leave_one_out(*learned, (users[is_last], items[is_last]), name=name)


def stream_leave_one_out(stream: Stream) -> tuple[Stream, list[Phase]]:
    """The last target of every user of a stream left out, then ranked in the order of their users."""
    _, last = np.unique(stream.users[stream.target][::-1], return_index=True)
    targets = np.flatnonzero(stream.target)
    held = targets[len(targets) - 1 - last]
    order = np.concatenate([np.setdiff1d(np.arange(len(stream)), held), held])
    names = ("users", "items", "types", "ts_ms", "weight", "target", "watch_share")
    columns: dict[str, Any] = {column: getattr(stream, column)[order] for column in names}
    slots = slots_of(columns.pop("items").astype(np.int64)).astype(np.int32)
    moved = Stream(name=stream.name, n_users=stream.n_users, n_items=stream.n_items, items=slots, **columns)
    n = len(stream) - len(held)
    return moved, [Phase(0, n, learned=True), Phase(n, len(stream), learned=False)]
