"""`make bench-closed-loop`: viewers who are shown what was recommended, by surface and by policy.

    python -m benchmarks.closed_loop [--surfaces short_video,...] [--policies reelflow,...] [--seeds N]
        [--users N] [--items N] [--hours H] [--plot FILE]

On every surface the same simulated platform is served in turn by reelflow at once, by the same
models refit every simulated hour, by decayed popularity, and at random. The platform's model of
taste (`streams/sources/sim_reactions.py`: tags, their weights, quality, moods; `docs/closed-loop.md`) is not
the learner's form, and its digest is printed. Figures are those of a simulation and no more.

Prints a table a surface, and one JSON object on the last line: surface -> policy -> measure -> [value,
low, high], and `over_refit`: measure -> [relative difference of reelflow to hourly refit, low, high].
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any, Final

from schemas.codec import decode_event
from schemas.records import SURFACES
from streams.sources import sim_config, sim_feed, sim_items, sim_reactions, sim_users, simulator
from streams.sources.sim_config import HOUR_MS, SimulatorConfig
from streams.sources.simulator import Platform
from streams.sources.source import Record, item_record

from .plot import plot_svg
from .served import PopularLists, RandomLists, ReelflowLists, ServedLists
from .tally import MEASURES, Tally, estimate, relative, resamples

POLICIES: Final = ("reelflow", "hourly_refit", "popularity", "random")
STEP_MS: Final = 2_000
LOYALTY: Final = 1.5
TASTE: Final = (sim_config, sim_items, sim_users, sim_reactions, sim_feed, simulator)


def digest_of_taste() -> str:
    """BLAKE2b-128 of the modules that say what viewers like: frozen before anything is compared."""
    hasher = hashlib.blake2b(digest_size=16)
    for module in TASTE:
        hasher.update(Path(str(module.__file__)).read_bytes())
    return hasher.hexdigest()


def config_of(surface: str, users: int, items: int, seed: int) -> SimulatorConfig:
    """A platform with one surface, whose viewers come back the sooner, the more they were pleased."""
    return SimulatorConfig(
        users=users,
        items=items,
        seed=seed,
        surface=surface,  # type: ignore[arg-type]  # checked
        loyalty=LOYALTY,
        sessions_per_day=12.0,
        start_ms=sim_config.START_MS + 10 * HOUR_MS,
        duplicates=0.0,
        late=0.0,
        step_ms=STEP_MS,
    ).checked()


def serve(policy: str, config: SimulatorConfig, hours: float, warm_h: float) -> Tally:
    """Let viewers be served for `hours` of event time; what counts begins after `warm_h`."""
    holder: list[Platform] = []

    def world() -> sim_items.ItemWorld:
        return holder[0].items

    lists: ServedLists
    if policy == "random":
        lists = RandomLists(config.users, world, config.seed)
    elif policy == "popularity":
        lists = PopularLists(config.users, world)
    else:
        lists = ReelflowLists(
            config.users, world, refit_ms=HOUR_MS if policy == "hourly_refit" else 0, seed=config.seed
        )
    platform = Platform(config, lists)
    holder.append(platform)
    end_ms = config.start_ms + round(hours * HOUR_MS)
    from_ms = config.start_ms + round(warm_h * HOUR_MS)
    tally = Tally(config.users, from_ms, end_ms)
    opening: list[Record] = [item_record(platform.items.item(n)) for n in range(len(platform.items))]
    lists.observe(opening, [], config.start_ms)
    is_warm = False
    while platform.now_ms < end_ms:
        if not is_warm and platform.now_ms >= from_ms:
            lists.n_asked, lists.n_left, is_warm = 0, 0, True
        records = list(platform.step(min(STEP_MS, end_ms - platform.now_ms)))
        events = [decode_event(r.value) for r in records if r.kind == "event" and r.value is not None]
        tally.add(events)
        lists.observe(records, events, platform.now_ms)
    tally.close()
    tally.left_ratio = lists.n_left / max(lists.n_asked, 1)
    return tally


def print_surface(surface: str, found: dict[str, list[Tally]], weights: Any, n_items: int) -> dict[str, Any]:
    """Print a surface's table; its part of the JSON object."""
    result: dict[str, Any] = {}
    print(f"\n{surface}: {len(weights[0])} viewers")
    print("  ".join([f"{'':>13}", *(f"{name:>32}" for name in MEASURES), "    items shown"]))
    for policy, tallies in found.items():
        estimates = {name: estimate(tallies, name, weights) for name in MEASURES}
        shown = sum(tally.n_shown for tally in tallies) / len(tallies)
        left = max(tally.left_ratio for tally in tallies)
        print("  ".join([f"{policy:>13}", *(f"{e!s:>32}" for e in estimates.values()), f"{shown:>15,.0f}"]))
        if left > 0:
            print(f"{'':>15}{left:.2%} of these views had nothing on the list: the platform's own mix")
        result[policy] = {name: [e.value, e.low, e.high] for name, e in estimates.items()}
        result[policy]["coverage"] = shown / n_items
    if {"reelflow", "hourly_refit"} <= set(found):
        over = {n: relative(found["reelflow"], found["hourly_refit"], n, weights) for n in MEASURES}
        print(
            "reelflow over hourly refit: "
            + ", ".join(f"{name} {e.value:+.1%} [{e.low:+.1%}, {e.high:+.1%}]" for name, e in over.items())
        )
        result["over_refit"] = {name: [e.value, e.low, e.high] for name, e in over.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--surfaces", default=",".join(SURFACES))
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--warm-hours", type=float, default=2.0, help="not counted")
    parser.add_argument("--plot", type=Path, help="write the comparison as an SVG file")
    arguments = parser.parse_args()
    print(f"digest of the viewers' taste: {digest_of_taste()}")
    weights = resamples(arguments.users * arguments.seeds)
    result: dict[str, Any] = {}
    for surface in arguments.surfaces.split(","):
        found: dict[str, list[Tally]] = {}
        for policy in arguments.policies.split(","):
            for seed in range(arguments.seeds):
                started_s = time.monotonic()
                config = config_of(surface, arguments.users, arguments.items, seed)
                tally = serve(policy, config, arguments.hours, arguments.warm_hours)
                found.setdefault(policy, []).append(tally)
                print(f"{surface} {policy} seed {seed}: {time.monotonic() - started_s:.0f} s", flush=True)
        result[surface] = print_surface(surface, found, weights, arguments.items)
    if arguments.plot is not None:
        arguments.plot.write_text(plot_svg(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
