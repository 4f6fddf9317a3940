"""New items beside what finds them without knowing what they are, on recorded streams.

The contenders of `reelflow evaluate-content`, and counts of `benchmarks.quality`: `skip_gram` and `item_knn`,
its best without embeddings where items are new.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from learners.prequential import MICRO_BATCH, Contender, Stream
from schemas.errors import ReelflowError
from streams.content.text_encoder import SentenceEncoder
from streams.evaluation.cold import CONTENT, best_baseline, evaluate_cold
from streams.evaluation.cold_text import cold_text
from streams.evaluation.data_sets import DATA_SETS
from streams.evaluation.learners import REELFLOW

from ..quality.contenders.counting import ItemNeighbours, SkipGram
from ..quality.contenders.scoring import Room

EVERY = 16_384


def baselines(stream: Stream) -> Sequence[Contender]:
    room = Room(stream.n_users, stream.n_items)
    return [SkipGram(room), ItemNeighbours(room)]


def measure(
    names: Sequence[str],
    data: Path | None,
    say: Callable[[str], None],
    *,
    limit: int | None = None,
    ablation: bool = False,
) -> dict[str, Any]:
    """Print a set's tables, each when it is done, and give the keys of the JSON object."""
    found: dict[str, Any] = {key: {} for key in KEYS}
    if data is None:
        say("cold start: left out, neither --data nor REELFLOW_DATA names the folder of the data sets")
        return found
    encoder = SentenceEncoder()
    for name in names:
        folder = data / DATA_SETS[name].folder
        if not folder.is_dir():
            say(f"{name}: left out, there is no folder {folder}")
            continue
        try:
            report = evaluate_cold(
                name, data, encoder.encode, more=baselines, ablation=ablation, limit=limit,
                on_progress=partial(_tell, say, name),
            )  # fmt: skip
        except ReelflowError as error:
            say(f"{name}: left out, {error}")
            continue
        print(cold_text(report), end="\n\n")
        sys.stdout.flush()
        for key, value in figures(report).items():
            found[key][name] = value
    return found


def _tell(say: Callable[[str], None], name: str, done: int, total: int) -> None:
    if done % EVERY < MICRO_BATCH:
        say(f"{name}: {done:,} of {total:,} events")


KEYS = (
    "cold_recall_20",
    "cold_recall_20_best_baseline",
    "cold_best_baseline",
    "cold_delta_interval",
    "warm_delta",
    "warm_delta_interval",
    "new_only_recall_20",
    "new_only_recall_20_best_baseline",
)


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """Of a data set's report, by key; fractions."""
    best, on_shelf = best_baseline(report), best_baseline(report, on_shelf=True)
    to_best, to_plain = report["differences"], report["differences"][REELFLOW]["warm"]
    contenders = report["contenders"]
    ahead = to_best[best]
    return {
        "cold_recall_20": contenders[CONTENT]["cold"]["recall_20"]["value"],
        "cold_recall_20_best_baseline": contenders[best]["cold"]["recall_20"]["value"],
        "cold_best_baseline": best,
        "cold_delta_interval": [ahead["cold"]["low"], ahead["cold"]["high"]],
        "warm_delta": to_plain["value"],
        "warm_delta_interval": [to_plain["low"], to_plain["high"]],
        "new_only_recall_20": contenders[f"{CONTENT} (new items only)"]["cold"]["recall_20"]["value"],
        "new_only_recall_20_best_baseline": contenders[on_shelf]["cold"]["recall_20"]["value"],
    }
