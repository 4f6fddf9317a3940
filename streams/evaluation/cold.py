"""How well new items are found: prequential ranks by how many events an item had so far.

Two questions are asked of every contender, with the same rows:

- **full**: the place of the target among all that is in the catalogue, as in `reelflow evaluate`.
- **new**: its place among new items (at most `NEW` events) only, asked where the target is one: which of them
  belongs on a shelf for what is new.

Parts are by the target's events before it: ``unseen`` (0), ``few`` (1 to 5), ``cold`` (both), ``young`` (6 to
20), ``warm`` (6 and more), ``all``; users without an earlier event are left out. Means over rows, 95 %
intervals by user, differences paired by row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from learners.contenders import PopularityContender
from learners.content_evidence import NEW
from learners.content_facts import FACTS, facts_vector
from learners.content_kernels import UNPUBLISHED
from learners.prequential import Contender, Stream, past_of, play
from learners.ranking_metrics import METRICS, mean_by_user
from learners.stream_kernels import Past
from schemas.runs import Float32, Float64, Int32
from schemas.settings import LearnerSettings

from ..item_words import words_of
from .catalogues import Catalogued, load_catalogued, plain_title, released_ms
from .contender import ReelflowContender
from .content_contenders import ON_SHELF, ContentContender, ContentNeighbours, Contents, NewOnly, Shelf
from .learners import PLAIN, REELFLOW
from .report import as_numbers

COLD_SETS: Final = ("movietweetings", "ml-latest-small", "kuairand")
CONTENT: Final = "content"
CONTENT_KNN: Final = "content-knn"
TEXT: Final = "text"
MEASURED: Final = ("recall_20", "recall_100", "ndcg_20")
YOUNG: Final = 20
HALF_LIVES_D: Final = (1.0, 30.0)
NEW_HALF_LIVES_D: Final = (7.0, 30.0)
"""Half-lives of popularity in days, and of that among new items."""
BATCH: Final = 32

BY_SUPPORT: Final = "by-support"

Bools = NDArray[np.bool_]
Encode = Callable[[Sequence[str]], Float32]


def contents_of(catalogued: Catalogued, encode: Encode | None) -> Contents:
    """What the catalogue's records say; titles by `encode`, where there are any and it is given."""
    items = catalogued.items
    nothing = facts_vector(())
    vectors: dict[str, Float32] = {}
    titled = [slot for slot, item in enumerate(items) if item is not None and item.title]
    if encode is not None and titled:
        text: Float32 = np.full((0, 0), np.nan, dtype=np.float32)
        for start in range(0, len(titled), BATCH):
            slots = titled[start : start + BATCH]
            found = encode([plain_title(items[slot]) for slot in slots])
            if not len(text):
                text = np.full((len(items), found.shape[1]), np.nan, dtype=np.float32)
            text[slots] = found
        vectors[TEXT] = text
    vectors[FACTS] = np.stack([nothing if item is None else facts_vector(words_of(item)) for item in items])
    published = [None if item is None else released_ms(item) for item in items]
    return Contents(
        vectors, np.array([UNPUBLISHED if ms is None else ms for ms in published], dtype=np.int64)
    )


def field_of(
    contents: Contents, learner: LearnerSettings, *, exclude_seen: bool, ablation: bool = False
) -> list[Contender]:
    """Who is measured: reelflow with and without content, what is popular, and nearest by content.

    With `ablation`, also reelflow that weighs new items by their number of events, and knows no content.
    """
    plain = ReelflowContender(learner, exclude_seen=exclude_seen)
    known = ContentContender(learner, contents, exclude_seen=exclude_seen, name=CONTENT)
    found: list[Contender] = [Shelf(plain), plain, Shelf(known), known]
    if ablation:
        nothing = {name: np.full_like(each, np.nan) for name, each in contents.vectors.items()}
        blind = replace(
            contents, vectors=nothing, published_ms=np.full_like(contents.published_ms, UNPUBLISHED)
        )
        found.append(ContentContender(learner, blind, exclude_seen=exclude_seen, name=BY_SUPPORT))
    found += [PopularityContender(days) for days in HALF_LIVES_D]
    found += [NewOnly(PopularityContender(days)) for days in NEW_HALF_LIVES_D]
    knn = ContentNeighbours(contents, CONTENT_KNN)
    return [*found, knn, NewOnly(knn)]


def parts_of_rows(past: Past, rows: NDArray[np.int64]) -> dict[str, Bools]:
    """Which asked rows belong to which part, see the module; (R,) each."""
    n, known = past.n_visits[rows], past.n_events[rows] > 0
    return {
        "unseen": known & (n == 0),
        "few": known & (n > 0) & (n <= NEW),
        "cold": known & (n <= NEW),
        "young": known & (n > NEW) & (n <= YOUNG),
        "warm": known & (n > NEW),
        "all": known,
    }


def evaluate_cold(
    name: str,
    data: Path,
    encode: Encode | None,
    *,
    learner: LearnerSettings = PLAIN,
    more: Callable[[Stream], Sequence[Contender]] | None = None,
    ablation: bool = False,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Play a data set of `COLD_SETS` and report.

    Parameters
    ----------
    name : str
    data : Path
        Folder of the data sets.
    encode : callable, optional
        Titles to vectors; without it, titles are not read.
    learner : LearnerSettings
        What reelflow learns with.
    more : callable, optional
        Further baselines without content, for a stream.
    ablation : bool
        See `field_of`.
    limit : int, optional
        Events at most.

    Raises
    ------
    SourceError
        The data cannot be read.
    """
    catalogued, rules = load_catalogued(name, data)
    stream = first_of(catalogued.stream, limit)
    contents = contents_of(catalogued, encode)
    contenders = field_of(contents, learner, exclude_seen=rules.exclude_seen, ablation=ablation)
    contenders += more(stream) if more is not None else []

    def show(done: int) -> None:
        if on_progress is not None:
            on_progress(done, len(stream))

    played = play(stream, contenders, rules, time.process_time, on_progress=show)
    rows, past = played.rows, past_of(stream)
    parts = parts_of_rows(past, rows)
    users = stream.users[rows]
    last = (np.cumsum(stream.target) - 1)[rows] >= 0.8 * int(stream.target.sum())
    report = {
        "data_set": name,
        "stream": {
            "events": len(stream),
            "users": stream.n_users,
            "items": stream.n_items,
            "targets": int(stream.target.sum()),
            "asked": len(rows),
            "in_catalogue_at_first": int((_listed(stream) < stream.ts_ms[0]).sum()),
            "modalities": {
                key: int(np.isfinite(each).all(axis=1).sum()) for key, each in contents.vectors.items()
            },
        },
        "rows": {part: int(mask.sum()) for part, mask in parts.items()},
        "contenders": {
            key: {part: _means(ranks[mask], users[mask]) for part, mask in parts.items()}
            for key, ranks in played.ranks.items()
        },
        "last_fifth": {
            key: {part: _means(ranks[mask & last], users[mask & last]) for part, mask in parts.items()}
            for key, ranks in played.ranks.items()
        },
        "cpu_us": {
            key: {
                "rank": round(1e6 * played.rank_s[key] / max(len(rows), 1), 1),
                "learn": round(1e6 * played.learn_s[key] / max(len(stream), 1), 1),
            }
            for key in played.ranks
        },
    }
    report["differences"] = {
        key: {
            part: as_numbers(mean_by_user((_hit(played.ranks[CONTENT]) - _hit(ranks))[mask], users[mask]))
            for part, mask in parts.items()
        }
        for key, ranks in played.ranks.items()
        if key != CONTENT
    }
    shelf, cold = f"{CONTENT}{ON_SHELF}", parts["cold"]
    report["shelf_differences"] = {
        key: as_numbers(mean_by_user((_hit(played.ranks[shelf]) - _hit(ranks))[cold], users[cold]))
        for key, ranks in played.ranks.items()
        if key.endswith(ON_SHELF) and key != shelf
    }
    return report


def first_of(stream: Stream, limit: int | None) -> Stream:
    """The first events of a stream; its catalogue stays."""
    if limit is None or limit >= len(stream):
        return stream
    columns = ("users", "items", "types", "ts_ms", "weight", "target", "watch_share")
    return replace(stream, **{column: getattr(stream, column)[:limit] for column in columns})


def best_baseline(report: Mapping[str, Any], *, on_shelf: bool = False) -> str:
    """Who, of those that know no content, finds most of the cold targets among its first 20.

    Popularity of new items counts as one in the full ranking, though it lists nothing else.
    """
    found: dict[str, float] = {
        name: entry["cold"]["recall_20"]["value"] or 0.0
        for name, entry in report["contenders"].items()
        if not name.startswith((CONTENT, BY_SUPPORT))
        and (not on_shelf or name.endswith(ON_SHELF))
        and (on_shelf or name != f"{REELFLOW}{ON_SHELF}")
    }
    return max(found, key=lambda name: found[name])


def _listed(stream: Stream) -> NDArray[np.int64]:
    if stream.listed_ms is None:
        raise TypeError("a stream with its catalogue is needed")
    return stream.listed_ms


def _hit(ranks: Int32) -> Float64:
    function, k = METRICS["recall_20"]
    return function(ranks, k)


def _means(ranks: Int32, users: Int32) -> dict[str, Any]:
    found = {}
    for metric in MEASURED:
        function, k = METRICS[metric]
        found[metric] = as_numbers(mean_by_user(function(ranks, k), users))
    return found
