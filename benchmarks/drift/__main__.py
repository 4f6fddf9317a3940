"""`python -m benchmarks.drift`: tastes change in the middle of an hour; is it noticed, and made good?

    python -m benchmarks.drift [--seeds N] [--first-seed N] [--only flip|steady] [--users N] [--items N]
        [--surface NAME|all] [--warm-minutes N] [--light] [--without-adapting]

Simulated viewers are shown what a `WorkerCore` listed, in event time, without a broker; what they do goes
back into it. In the runs with a flip every taste is drawn anew at minute 30 (docs/drift.md). Prints a
line a run, and one JSON object on the last line: `flip` and `steady`, each a list of runs, and `accepted`.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Final

import msgspec
import numpy as np

from schemas.records import SURFACES
from streams.device import use_half_the_cores

from .soak import Shape, Soaked, soak

NOTICED_MIN: Final = 1.0
BACK_MIN: Final = 10.0
HEADER: Final = (
    f"{'seed':>4} {'tastes':>7} {'events/min':>10} {'before':>7} {'lowest':>7} {'noticed':>8} {'back':>6} "
    f"{'alarms':>7} {'wall s':>7}"
)


def line(run: Soaked, wall_s: float) -> str:
    """A run as a row of the table."""

    def minutes(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    return (
        f"{run.seed:>4} {'flip' if run.flipped else 'steady':>7} {run.n_events / 60:>10,.0f}"
        f" {run.former:>7.3f} {run.lowest:>7.3f} {minutes(run.noticed_after_min):>8}"
        f" {minutes(run.recovered_after_min):>6} {len(run.alarms):>7} {wall_s:>7.0f}"
    )


def described(run: Soaked) -> dict[str, Any]:
    """A run for the JSON object."""
    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.asdict(run) | {"hit_rate": []})
    found["hit_rate"] = np.round(run.hit_rate, 4).tolist()
    return found


def accepted(flips: list[Soaked], steady: list[Soaked]) -> dict[str, bool | None]:
    """The three requirements; None where no run says anything of one."""

    def within(values: list[float | None], most: float) -> bool | None:
        return all(value is not None and value <= most for value in values) if values else None

    return {
        "noticed_within_a_minute": within([run.noticed_after_min for run in flips], NOTICED_MIN),
        "back_within_ten_minutes": within([run.recovered_after_min for run in flips], BACK_MIN),
        "no_alarm_without_flip": not any(run.alarms for run in steady) if steady else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", choices=("flip", "steady"))
    parser.add_argument("--users", type=int, default=Shape().users)
    parser.add_argument("--items", type=int, default=Shape().items)
    parser.add_argument("--surface", choices=(*SURFACES, "all"), default=Shape().surface)
    parser.add_argument("--warm-minutes", type=int, default=Shape().warm_min)
    parser.add_argument("--light", action="store_true", help="transitions and popularity alone")
    parser.add_argument("--without-adapting", action="store_true", help="notice, and do nothing")
    arguments = parser.parse_args()
    shape = Shape(
        users=arguments.users,
        items=arguments.items,
        surface=None if arguments.surface == "all" else arguments.surface,
        warm_min=arguments.warm_minutes,
        embeddings=not arguments.light,
        adapts=not arguments.without_adapting,
    )
    if shape.embeddings:
        use_half_the_cores()
    runs: dict[str, list[Soaked]] = {"flip": [], "steady": []}
    print(HEADER)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for kind, found in runs.items():
            if arguments.only in {None, kind}:
                started_s = time.monotonic()
                run = soak(seed, shape, flips=kind == "flip")
                found.append(run)
                print(line(run, time.monotonic() - started_s), flush=True)
    verdict = accepted(runs["flip"], runs["steady"])
    result = {kind: [described(run) for run in found] for kind, found in runs.items()}
    print(json.dumps(result | {"accepted": verdict}))


if __name__ == "__main__":
    main()
