"""Probabilities of click and long view beside what people would use instead, on KuaiRand-Pure.

    python -m benchmarks.probability --data FOLDER [--models reelflow,...] [--plot FILE]

FOLDER holds `kuairand-pure`, or is that folder. Impressions in order of time, each predicted before it is
learned, the watch lists before the log as prior history; figures are of the last 70 %. Prints a table a
target and, on the last line, one JSON object: target -> model -> auc, user_auc, logloss, ece,
us_per_event. user_auc of reelflow is that of its ranking head; user_auc_of_probability is beside it.
`reelflow_without_history` is the same learner without the watch lists.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import torch
from msgspec.structs import replace

from streams.evaluation.impression_data import ImpressionData, load_impressions
from streams.evaluation.impressions import Predicted, build, impressions_report, play_learner
from streams.evaluation.impressions_text import impressions_text, reliability_html

from .baselines import factorisation_alone, item_ctr, lightgbm, river_model

OURS: Final = "reelflow"
MODELS: Final = (
    OURS,
    "reelflow_without_history",
    "fm",
    "lightgbm_6h",
    "river_logistic",
    "river_fm",
    "item_ctr",
)
PRIOR: Final = "user_history_4_08_to_4_24_order_only.parquet"
KEPT: Final = (
    "auc",
    "user_auc",
    "logloss",
    "ece",
    "us_per_event",
    "user_auc_of_probability",
    "accuracy",
    "precision",
    "recall",
    "f1",
)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(data: ImpressionData, models: list[str]) -> dict[str, Predicted]:
    """Run the models; those that need our learner's inputs share its run."""
    found: dict[str, Predicted] = {}
    impressions = data.impressions

    def keep(name: str, predicted: Predicted) -> None:
        """Also say its figures: the models behind it take their time."""
        found[name] = predicted
        say(json.dumps({name: figures(impressions_report(data, {name: predicted}))}))

    if {OURS, "fm", "lightgbm_6h"} & {*models}:
        learner = build(data, say=say)
        seen = learner.seen(len(impressions))
        ours = play_learner(learner, impressions, say, seen)
        if OURS in models:
            keep(OURS, ours)
        if "fm" in models:
            keep("fm", factorisation_alone(seen, ours.us_per_event))
    if "reelflow_without_history" in models:
        keep("reelflow_without_history", play_learner(build(replace(data, prior=None)), impressions, say))
    if "item_ctr" in models:
        keep("item_ctr", item_ctr(impressions))
    for kind in ("logistic", "fm"):
        if f"river_{kind}" in models:
            keep(f"river_{kind}", river_model(kind, impressions, data.categories))
    if "lightgbm_6h" in models:
        keep("lightgbm_6h", lightgbm(impressions, seen, say))
    return {name: found[name] for name in models}


def figures(report: dict[str, Any]) -> dict[str, Any]:
    return {
        target: {name: {key: entry[key] for key in KEPT} for name, entry in models.items()}
        for target, models in report["targets"].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.probability",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("REELFLOW_DATA"), help="or REELFLOW_DATA")
    parser.add_argument("--models", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--limit", type=int, help="impressions")
    parser.add_argument("--plot", type=Path, help="HTML file with reliability plots")
    given = parser.parse_args()
    if given.data is None:
        parser.error("--data or REELFLOW_DATA must name the folder of the data sets")
    models = given.models.split(",") if given.models else list(MODELS)
    if unknown := {*models} - {*MODELS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    folder = given.data / "kuairand-pure"
    folder = folder if folder.is_dir() else given.data
    data = load_impressions(folder, folder / PRIOR, given.limit)
    report = impressions_report(data, measure(data, models))
    text = impressions_text(report)
    print(text)
    if given.plot is not None:
        given.plot.write_text(reliability_html(report, text), encoding="utf-8")
    print(json.dumps(figures(report)))


if __name__ == "__main__":
    main()
