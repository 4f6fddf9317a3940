"""Quality of the next item beside what people would use instead, prequentially, by full ranking.

    python -m benchmarks.quality --data FOLDER [--only ml-100k,...] [--learners reelflow,...] [--quick]

FOLDER holds the data sets of `streams.evaluation.data_sets`; one that is absent is left out, and said so.
Every contender is ranked on the same rows: known users and items among the last fifth of the
stream's targets. Prints a table a data set (R@20 in per cent with its 95 % interval by user, the
paired difference to reelflow with its own, CPU time), the window in which reelflow is furthest behind
popularity, and, on the last line, one JSON object: data set -> learner -> recall_20, recall_10, ndcg_10,
mrr_20, as fractions, and `<metric>_interval`, [low, high].
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from msgspec.structs import replace

from learners.prequential import Played, Stream, past_of, play
from learners.ranking_metrics import hit, worst_window
from schemas.errors import ReelflowError
from schemas.runs import Float64, Int32
from streams.evaluation.data_sets import DATA_SETS, load_data_set
from streams.evaluation.learners import REELFLOW, make_contender

from .contenders.scoring import Room
from .field import BASELINES, baselines_for
from .figures import METRICS, averaged, figure_of, gains_of

OURS: Final = REELFLOW
QUICK: Final = ("ml-100k", "ml-latest-small")
SCORED: Final = 0.2
YARDSTICK: Final = "popularity_1d"
PLACES: Final = 20
WINDOW: Final = 2_000


def measure(name: str, data: Path, learners: list[str], seeds: int) -> dict[str, Any]:
    """Run a data set, print its table, and give its part of the JSON object."""
    stream, rules = load_data_set(name, data)
    room = Room(stream.n_users, stream.n_items)
    last = replace(rules, score_from=1.0 - SCORED)
    baselines = [BASELINES[learner](room) for learner in learners if learner != OURS]
    played = play(stream, baselines, last, time.process_time)
    runs: list[Played] = []
    if OURS in learners:
        # Our mixture learns from what it is asked, so it is asked from the start; popularity, too, for
        # the worst window.
        for seed in range(seeds):
            both = [make_contender(OURS, rules, seed), *([] if seed else [BASELINES[YARDSTICK](room)])]
            runs.append(play(stream, both, rules, time.process_time))
    known = played.rows[past_of(stream).n_events[played.rows] > 0]
    users = stream.users[known]
    gains: dict[str, dict[str, Float64]] = {}
    if runs:
        gains[OURS] = averaged([gains_of(one.ranks[OURS][np.isin(one.rows, known)]) for one in runs])
    for learner, ranks in played.ranks.items():
        gains[learner] = gains_of(ranks[np.isin(played.rows, known)])
    cost = {learner: _cost(learner, [played], stream) for learner in played.ranks}
    if runs:
        cost[OURS] = _cost(OURS, runs, stream)
    _print_table(name, stream, cost, gains, users)
    if runs:
        _print_worst_window(stream, runs)
    return {learner: _as_json(gains[learner], users) for learner in gains}


def _as_json(gains: dict[str, Float64], users: Int32) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for metric in METRICS:
        figure = figure_of(gains[metric], users)
        report[metric] = round(figure.mean, 5)
        report[f"{metric}_interval"] = [round(figure.low, 5), round(figure.high, 5)]
    return report


def _cost(learner: str, runs: list[Played], stream: Stream) -> tuple[float, float]:
    """CPU: microseconds of learning an event, and seconds of ranking and learning together; of a run."""
    learn_s = float(np.mean([one.learn_s[learner] for one in runs]))
    rank_s = float(np.mean([one.rank_s[learner] for one in runs]))
    return 1e6 * learn_s / len(stream), learn_s + rank_s


def _print_worst_window(stream: Stream, runs: list[Played]) -> None:
    """Of all targets of known users, from the first on: where reelflow is furthest behind popularity."""
    rows = runs[0].rows
    known = past_of(stream).n_events[rows] > 0
    ours = np.mean([hit(one.ranks[OURS], PLACES) for one in runs], axis=0)
    theirs = hit(runs[0].ranks[YARDSTICK], PLACES)
    found = worst_window(ours[known], theirs[known], stream.users[rows][known], WINDOW)
    if found is None:
        return
    window, standard_errors = found
    print(
        f"worst window of {WINDOW} against {YARDSTICK}: {100 * window.mean.value:+.2f} points of R@{PLACES}, "
        f"{standard_errors:+.2f} standard errors, targets {window.first} to {window.last} of {known.sum()}"
    )
    sys.stdout.flush()


def _print_table(
    name: str, stream: Stream, cost: dict[str, tuple[float, float]], gains: dict[str, dict[str, Float64]],
    users: Int32,
) -> None:  # fmt: skip
    print(
        f"\n{name}: {len(stream)} events, {len(users)} ranked, {stream.n_users} users, {stream.n_items} items"
    )
    print(
        f"| {'learner':16} | R@20 % {'':7} | R@10 % | nDCG@10 % | MRR@20 % | reelflow ahead by (R@20) "
        "| learning us/event | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for learner in sorted(gains, key=lambda one: -float(gains[one]["recall_20"].mean())):
        means = {metric: 100.0 * float(gains[learner][metric].mean()) for metric in METRICS}
        figure = figure_of(gains[learner]["recall_20"], users)
        ahead = ""
        if OURS in gains and learner != OURS:
            lead = figure_of(gains[OURS]["recall_20"] - gains[learner]["recall_20"], users)
            ahead = f"{100 * lead.mean:+.2f} [{100 * lead.low:+.2f}, {100 * lead.high:+.2f}]"
        learn_us, cpu_s = cost[learner]
        print(
            f"| {learner:16} | {means['recall_20']:6.2f} +- {100 * (figure.high - figure.mean):.2f} "
            f"| {means['recall_10']:.2f} | {means['ndcg_10']:.2f} | {means['mrr_20']:.2f} "
            f"| {ahead:24} | {learn_us:.1f} | {cpu_s:.0f} |"
        )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("REELFLOW_DATA"), help="or REELFLOW_DATA")
    parser.add_argument("--only", help=f"data sets, of {', '.join(DATA_SETS)}")
    parser.add_argument("--learners", help=f"of {OURS}, {', '.join(BASELINES)}")
    parser.add_argument("--seeds", type=int, help="runs of reelflow that are averaged; 3, or 1 with --quick")
    parser.add_argument(
        "--quick", action="store_true", help=f"{' and '.join(QUICK)} only, nothing of minutes"
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.data is None:
        parser.error("--data or REELFLOW_DATA must name the folder of the data sets")
    names = given.only.split(",") if given.only else list(QUICK if given.quick else DATA_SETS)
    wanted = given.learners.split(",") if given.learners else None
    unknown = {*names} - {*DATA_SETS} | {*(wanted or [])} - {OURS, *BASELINES}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(given.threads)
    report: dict[str, Any] = {}
    for name in names:
        learners = wanted or [OURS, *baselines_for(name, quick=given.quick)]
        try:
            report[name] = measure(name, given.data, learners, given.seeds or (1 if given.quick else 3))
        except ReelflowError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    print(json.dumps(report))
    if not report:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
