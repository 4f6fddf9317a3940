"""What lists lose in R@20 where not all items are scored, on recorded streams.

    python -m benchmarks.ranking_loss --data FOLDER [--only ml-100k,...] [--of 50000] [--limit EVENTS]

Recorded catalogues are smaller than the head of the catalogue (`learners.item_head`), so it is cut in
proportion: to the share of the stream's items that the head is of a catalogue of `--of` items. Three
recommenders play the stream by the protocol of `benchmarks.quality`: one scores all items with its encoder,
one the head, one the head in haste (`streams.overload`), from the first event on, gate steps included.
Prints a row a data set: R@20 in per cent, and what the others have less, paired, with 95 % intervals by
user. The last line is one JSON object: data set -> head, haste -> loss, low, high, as fractions.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch

from learners.item_head import HASTY_HEAD, HEAD
from learners.prequential import Stream, past_of, play, tail_of
from schemas.settings import LearnerSettings, RankerSettings
from serving.recommender import Recommender
from streams.evaluation.contender import PLACES, ReelflowContender
from streams.evaluation.data_sets import DATA_SETS, load_data_set
from streams.model_parts import build_parts

from .quality.figures import figure_of, gains_of

ALL: Final = "all"


class Headed(ReelflowContender):
    """A contender whose encoder looks at heads of given sizes."""

    def __init__(self, name: str, heads: tuple[int, int], *, hasty: bool, exclude_seen: bool) -> None:
        settings = LearnerSettings()
        super().__init__(settings, exclude_seen=exclude_seen, name=name)
        ranker = build_parts(
            settings, RankerSettings(exclude_seen=exclude_seen), list_size=PLACES, device="cpu", n_never=0,
            heads=heads,
        ).ranker  # fmt: skip
        if not isinstance(ranker, Recommender):
            raise TypeError("the evaluation needs embeddings")
        ranker.hasty = hasty
        self._recommender = ranker


def measure(name: str, data: Path, of: int, limit: int | None) -> dict[str, dict[str, float]]:
    """Play a data set and print its row."""
    stream, rules = load_data_set(name, data)
    stream = first_events(stream, limit)
    head, hasty = (max(round(size * stream.n_items / of), 1) for size in (HEAD, HASTY_HEAD))
    contenders = [
        Headed(ALL, (stream.n_items, stream.n_items), hasty=False, exclude_seen=rules.exclude_seen),
        Headed("head", (head, hasty), hasty=False, exclude_seen=rules.exclude_seen),
        Headed("haste", (head, hasty), hasty=True, exclude_seen=rules.exclude_seen),
    ]
    played = play(stream, contenders, rules, time.process_time)
    scored = tail_of(stream, played.rows) & (past_of(stream).n_events[played.rows] > 0)
    users = stream.users[played.rows[scored]]
    gains = {one: gains_of(ranks[scored])["recall_20"] for one, ranks in played.ranks.items()}
    row = [name, str(stream.n_items), f"{head}, {hasty}", f"{100 * gains[ALL].mean():.2f}"]
    report = {}
    for one in ("head", "haste"):
        lost = figure_of(gains[ALL] - gains[one], users)
        report[one] = {"loss": round(lost.mean, 5), "low": round(lost.low, 5), "high": round(lost.high, 5)}
        row.append(f"{100 * lost.mean:+.2f} [{100 * lost.low:+.2f}, {100 * lost.high:+.2f}]")
    print(f"| {' | '.join(row)} |", flush=True)
    return report


def first_events(stream: Stream, limit: int | None) -> Stream:
    """The first `limit` events of a stream."""
    n = len(stream) if limit is None else min(limit, len(stream))
    part = slice(n)
    return Stream(
        name=stream.name,
        users=stream.users[part],
        items=stream.items[part],
        types=stream.types[part],
        ts_ms=stream.ts_ms[part],
        weight=stream.weight[part],
        target=stream.target[part],
        watch_share=stream.watch_share[part],
        n_users=stream.n_users,
        n_items=int(np.max(stream.items[part])) + 1,
        fresh_window=stream.fresh_window,
        history=stream.history,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ranking_loss",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="ml-100k,ml-latest-small,movietweetings", help=", ".join(DATA_SETS))
    parser.add_argument(
        "--of", type=int, default=50_000, help="items of the catalogue that the heads are for"
    )
    parser.add_argument("--limit", type=int, help="events of each stream")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| data set | items | head, in haste | R@20 % of all | less with the head | less in haste |")
    print("|---|---|---|---|---|---|")
    found = {name: measure(name, args.data, args.of, args.limit) for name in args.only.split(",")}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
