"""The evaluation of new items: when they are in the catalogue, what is asked, and that nothing leaks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from benchmarks.content.cold import KEYS, figures, measure
from learners.contenders import PopularityContender
from learners.content_evidence import NEW
from learners.content_kernels import UNPUBLISHED
from learners.prequential import (
    MICRO_BATCH,
    Bools,
    Contender,
    Played,
    Rules,
    Stream,
    asked_of,
    is_asked,
    past_of,
    play,
)
from schemas.learner import Contexts
from schemas.records import Event, Item
from schemas.runs import Float32, Int32
from streams.cli import cli
from streams.evaluation.catalogues import Catalogued, released_ms, with_catalogue
from streams.evaluation.cold import CONTENT, best_baseline, contents_of, evaluate_cold, parts_of_rows
from streams.evaluation.columns import stream_of
from streams.evaluation.content_contenders import (
    ON_SHELF,
    ContentContender,
    ContentNeighbours,
    Contents,
    NewOnly,
    Shelf,
)
from streams.evaluation.learners import PLAIN

YEAR_MS = 31_556_952_000
START_MS = 40 * YEAR_MS
LEARNER = replace(PLAIN, dim=16)
KINDS = 4


def event(n: int, user: int, item: int, ts_ms: int) -> Event:
    return Event(event_id=f"e{n}", user_id=f"u{user}", item_id=f"i{item}", type="watch", ts_ms=ts_ms)


def catalogued(n: int = 1_500, n_items: int = 200, seed: int = 0) -> Catalogued:
    """Users of four kinds; items are published one after the other, and watched by those of their kind."""
    rng = np.random.default_rng(seed)
    events = []
    for i in range(n):
        user = int(rng.integers(40))
        newest = 40 + i * (n_items - 60) // n
        item = min(int(newest - rng.integers(40)), n_items - 1)
        events.append(event(i, user, item - item % KINDS + user % KINDS, START_MS + i * 60_000))
    items = [
        Item(
            item_id=f"i{item}",
            title=f"Film {item}",
            tags=[f"kind {item % KINDS}"],
            published_ts_ms=max(START_MS + (item - 60) * n * 60_000 // (n_items - 60), 0),
        )
        for item in range(n_items)
    ]
    return with_catalogue(stream_of("films", events, lambda _: False), events, items)


def encoded(titles: Sequence[str]) -> Float32:
    """Vectors of titles that say which kind an item is, somewhat."""
    found = np.random.default_rng(1).normal(size=(len(titles), 8))
    for row, title in enumerate(titles):
        found[row, int(title.split()[1]) % KINDS] += 2.0
    return found.astype(np.float32)


def played(stream: Stream, contenders: list[Contender]) -> Played:
    ticks = count()
    return play(stream, contenders, Rules(exclude_seen=True), lambda: float(next(ticks)))


def test_an_item_is_in_the_catalogue_from_its_publication_on_or_from_its_first_event() -> None:
    events = [event(0, 0, 1, START_MS), event(1, 1, 2, START_MS + 5), event(2, 0, 3, START_MS + 9)]
    items = [
        Item(item_id="i3", title="Late (2009)"),  # before it was watched
        Item(item_id="i2", title="No year"),
        Item(item_id="i1", title="Wrong (2050)"),  # after it was watched
        Item(item_id="i4", title="Never (1990)"),
    ]
    found = with_catalogue(stream_of("few", events, lambda _: False), events, items)
    names = [None if item is None else item.item_id for item in found.items]
    assert names == ["i4", "i3", "i1", "i2"]
    listed = found.stream.listed_ms
    assert listed is not None
    assert listed.tolist() == [
        released_ms(items[3]),
        released_ms(items[0]),
        START_MS,
        START_MS + 5,
    ]
    past = past_of(found.stream)
    asked = is_asked(found.stream, past, Rules())
    # i1 and i2 are not known before they are watched, i3 is.
    assert asked.tolist() == [False, False, True]
    question = asked_of(found.stream, past, np.array([2]), Rules())
    assert question.n_items == 4


def test_a_stream_without_a_catalogue_asks_what_it_always_asked() -> None:
    found = catalogued().stream
    bare = replace(found, listed_ms=None)
    past = past_of(bare)
    always = bare.target & (past.n_visits > 0) & ~past.repeated
    np.testing.assert_array_equal(is_asked(bare, past, Rules()), always)
    more = is_asked(found, past, Rules()) & ~is_asked(bare, past, Rules())
    assert more.sum() > 50
    assert (past.n_visits[more] == 0).all()


def shuffled_after(stream: Stream, t: int) -> Stream:
    """Other labels from row `t` on, of items that are in the catalogue by then."""
    items = stream.items.copy()
    assert stream.listed_ms is not None
    known = np.flatnonzero(stream.listed_ms <= stream.ts_ms[t])
    items[t:] = np.random.default_rng(1).choice(known, len(items) - t)
    return replace(stream, items=items)


@pytest.mark.parametrize("shelf", [False, True])
def test_what_is_watched_later_changes_no_earlier_place(shelf: bool) -> None:
    found, t = catalogued(), 900
    contents = contents_of(found, encoded)

    def places(stream: Stream) -> Int32:
        contender = ContentContender(LEARNER, contents, exclude_seen=True)
        contenders: list[Contender] = [Shelf(contender), contender] if shelf else [contender]
        run = played(stream, contenders)
        name = f"{CONTENT}{ON_SHELF}" if shelf else CONTENT
        return run.ranks[name][run.rows < t]

    before = places(found.stream)
    assert len(before) > 500
    assert ((before >= 0) & (before < 20)).sum() > 50
    np.testing.assert_array_equal(before, places(shuffled_after(found.stream, t)))


def test_what_is_published_later_is_not_known_earlier() -> None:
    found, t = catalogued(), 5 * MICRO_BATCH - 1  # what a batch brings is there for all of it
    contents = contents_of(found, encoded)
    assert found.stream.listed_ms is not None
    later = found.stream.listed_ms > found.stream.ts_ms[t]
    assert 20 < later.sum() < len(later) - 20
    changed = {name: np.where(later[:, None], -each, each) for name, each in contents.vectors.items()}
    other = Contents(changed, np.where(later, UNPUBLISHED, contents.published_ms))
    ranks = []
    for one in (contents, other):
        run = played(found.stream, [ContentContender(LEARNER, one, exclude_seen=True)])
        ranks.append(run.ranks[CONTENT][run.rows <= t])
    np.testing.assert_array_equal(ranks[0], ranks[1])


class Asking:
    """A contender that keeps what it was asked."""

    name = "asking"

    def __init__(self) -> None:
        self.withdrawn: list[Bools] = []

    def places(
        self,
        contexts: Contexts,
        targets: Int32,
        seen: Int32,
        withdrawn: Bools,
    ) -> Int32:
        self.withdrawn.append(withdrawn)
        assert not withdrawn[targets].any()
        return np.zeros(len(targets), dtype=np.int32)


def test_on_the_shelf_stands_what_has_at_most_five_events() -> None:
    found = catalogued().stream
    asking = Asking()
    shelf = Shelf(asking, "shelf")  # type: ignore[arg-type]
    popular = NewOnly(PopularityContender(1.0))
    run = played(found, [shelf, popular])
    past = past_of(found)
    cold = parts_of_rows(past, run.rows)["cold"]
    ranks = run.ranks["shelf"]
    # What a batch brought is counted with the next: some are still on the shelf that just left it.
    assert (ranks[cold] == 0).all()
    assert ((ranks == 0) & (past.n_visits[run.rows] > NEW + 20)).sum() == 0
    assert asking.withdrawn[-1].any()
    best = run.ranks[popular.name]
    assert best[cold].min() == 0
    assert best[cold].max() < found.n_items


def test_new_items_are_found_by_what_they_are() -> None:
    found = catalogued()
    contents = contents_of(found, encoded)
    nothing = {name: np.full_like(each, np.nan) for name, each in contents.vectors.items()}
    blind = Contents(nothing, contents.published_ms)
    knowing = ContentContender(LEARNER, contents, exclude_seen=True)
    other = ContentContender(LEARNER, blind, exclude_seen=True, name="blind")
    neighbours = ContentNeighbours(contents)
    run = played(found.stream, [knowing, other, neighbours])
    unseen = parts_of_rows(past_of(found.stream), run.rows)["unseen"]
    recall = {name: ((ranks >= 0) & (ranks < 20))[unseen].mean() for name, ranks in run.ranks.items()}
    assert recall[CONTENT] > recall["blind"] + 0.1, recall
    assert recall["content-knn"] > 0.1


def films(folder: Path) -> None:
    found = catalogued(600, 120)
    target = folder / "ml-latest-small"
    target.mkdir(parents=True)
    lines = ["movieId,title,genres"]
    lines += [
        f"{item.item_id[1:]},{item.title} (1999),Kind{int(item.item_id[1:]) % KINDS}"
        for item in found.items
        if item is not None
    ]
    (target / "movies.csv").write_text("\n".join(lines) + "\n")
    stream = found.stream
    ids = [item.item_id[1:] if item is not None else "" for item in found.items]
    rows = ["userId,movieId,rating,timestamp"]
    rows += [
        f"{user},{ids[item]},4.0,{ms // 1000}"
        for user, item, ms in zip(stream.users, stream.items, stream.ts_ms, strict=True)
    ]
    (target / "ratings.csv").write_text("\n".join(rows) + "\n")


def test_the_report_has_every_part_and_the_benchmark_its_keys(tmp_path: Path) -> None:
    films(tmp_path)
    report = evaluate_cold("ml-latest-small", tmp_path, encoded, learner=LEARNER, ablation=True)
    rows = report["rows"]
    assert rows["unseen"] + rows["few"] == rows["cold"]
    assert rows["cold"] + rows["warm"] == rows["all"] > 300
    assert report["stream"]["modalities"] == {"text": 120, "facts": 120}
    assert best_baseline(report) not in {CONTENT, "content-knn", "by-support"}
    found = figures(report)
    assert set(found) == set(KEYS)
    low, high = found["cold_delta_interval"]
    assert low <= found["cold_recall_20"] - found["cold_recall_20_best_baseline"] <= high
    assert found["new_only_recall_20"] > 0


def test_what_is_absent_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    assert measure(["kuairand"], None, said.append)["cold_recall_20"] == {}
    assert measure(["kuairand"], tmp_path, said.append)["warm_delta"] == {}
    assert "REELFLOW_DATA" in said[0]
    assert "kuairand: left out" in said[1]


def test_the_command_prints_tables_or_json(tmp_path: Path) -> None:
    films(tmp_path)
    asked = ["evaluate-content", "--input", str(tmp_path), "--data-set", "ml-latest-small", "--no-titles"]
    asked += ["--limit", "300", "--set", "learner.dim=16"]
    text = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert "which of the new items" in text.output
    found = CliRunner().invoke(cli, [*asked, "--json"], catch_exceptions=False)
    (report,) = json.loads(found.output)
    assert report["stream"]["events"] == 300
    assert report["stream"]["modalities"] == {"facts": 120}
