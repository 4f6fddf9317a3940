"""What learning an event costs in the evaluator, by learner, apart from the ranking that it asks for.

    OMP_NUM_THREADS=1 python -m benchmarks.learning_cost --data FOLDER [--only ml-100k,...]

Plays a data set as `reelflow evaluate` does (micro-batches of 128, every target ranked, the gate taught by
every one of them) with each learner's `learn_many` timed apart, in CPU time of the thread, so that other
processes disturb it less. Compiled code is loaded before. Prints a row a data set: microseconds an event of
each learner and of all; and of `yardstick`, a fixed loop of products of matrices timed in between, GFLOP/s:
what this core could do in that minute. The last line is one JSON object with the same figures.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from learners.prequential import Asked, Rules, play
from schemas.learner import Interactions
from schemas.runs import Int32
from schemas.settings import LearnerSettings, RankerSettings
from serving.recommender import Recommender
from streams.evaluation.contender import PLACES, ReelflowContender
from streams.evaluation.data_sets import DATA_SETS, load_data_set
from streams.evaluation.learners import PLAIN
from streams.model_parts import Parts, build_parts

from .ranking_loss import first_events

GATE: Final = "gate"
ALL: Final = "all"
BESIDE: Final = "other"
YARDSTICK_EVERY: Final = 64
WARM: Final = 4_096


class Clocked(ReelflowContender):
    """A contender whose learners are timed; `spent_s` by name, and `ALL` around them."""

    def __init__(self, learner: LearnerSettings, rules: Rules) -> None:
        super().__init__(learner, exclude_seen=rules.exclude_seen)
        parts = build_parts(
            learner, RankerSettings(exclude_seen=rules.exclude_seen), list_size=PLACES, device="cpu",
            n_never=0, with_tastes=False,
        )  # fmt: skip
        if not isinstance(parts.ranker, Recommender):
            raise TypeError("the evaluation needs embeddings")
        self._recommender = parts.ranker
        self.spent_s: dict[str, float] = {ALL: 0.0}
        self.rank_s = 0.0
        for learner_part in _learners(parts):
            learner_part.learn_many = self._timed(learner_part.name, learner_part.learn_many)
        # Timed from outside: what learns knows no clock.
        parts.ranker.learn_gate = self._timed(GATE, parts.ranker.learn_gate)  # type: ignore[method-assign]

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        self.spent_s[name] = 0.0

        def timed(*args: Any, **options: Any) -> Any:
            started = time.thread_time()
            found = call(*args, **options)
            self.spent_s[name] += time.thread_time() - started
            return found

        return timed

    def ranks(self, asked: Asked) -> Int32:
        """As the contender, timed."""
        started = time.thread_time()
        found = super().ranks(asked)
        self.rank_s += time.thread_time() - started
        return found

    def learn(self, batch: Interactions) -> None:
        """As the contender, timed."""
        started = time.thread_time()
        super().learn(batch)
        self.spent_s[ALL] += time.thread_time() - started


def _learners(parts: Parts) -> list[Any]:
    found = (parts.transitions, parts.popularity, parts.cooccurrence, parts.ease, parts.embeddings)
    return [part for part in found if part is not None]


class Yardstick:
    """Products of 64 x 64 and 64 x 1 024 in float32, the shapes of an encoder step."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._a = torch.from_numpy(rng.standard_normal((64, 64), dtype=np.float32))
        self._b = torch.from_numpy(rng.standard_normal((64, 1_024), dtype=np.float32))
        self.spent_s, self.flop = 0.0, 0.0

    def run(self, times: int = 20) -> None:
        """Multiply `times` times."""
        started = time.thread_time()
        for _ in range(times):
            torch.mm(self._a, self._b)
        self.spent_s += time.thread_time() - started
        self.flop += 2.0 * 64 * 64 * 1_024 * times


def measure(name: str, data: Path) -> dict[str, float]:
    """Play a data set; microseconds an event by learner, and GFLOP/s of the yardstick."""
    stream, rules = load_data_set(name, data)
    play(first_events(stream, WARM), [Clocked(PLAIN, rules)], rules, time.thread_time)
    contender, yardstick = Clocked(PLAIN, rules), Yardstick()
    seen = 0

    def progress(_: int) -> None:
        nonlocal seen
        seen += 1
        if seen % YARDSTICK_EVERY == 0:
            yardstick.run()

    play(stream, [contender], rules, time.thread_time, on_progress=progress)
    us = {part: 1e6 * spent / len(stream) for part, spent in contender.spent_s.items()}
    us[BESIDE] = us[ALL] - sum(spent for part, spent in us.items() if part != ALL)
    us["ranking"] = 1e6 * contender.rank_s / len(stream)
    return {
        **{part: round(spent, 2) for part, spent in us.items()},
        "yardstick": round(1e-9 * yardstick.flop / yardstick.spent_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning_cost",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("REELFLOW_DATA"), help="or REELFLOW_DATA")
    parser.add_argument("--only", help=f"data sets, of {', '.join(DATA_SETS)}")
    given = parser.parse_args()
    if given.data is None:
        parser.error("--data or REELFLOW_DATA must name the folder of the data sets")
    torch.set_num_threads(1)
    report = {}
    for name in given.only.split(",") if given.only else DATA_SETS:
        report[name] = measure(name, given.data)
        print(
            f"| {name} | " + " | ".join(f"{part} {value}" for part, value in report[name].items()) + " |",
            flush=True,
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
