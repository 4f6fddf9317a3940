"""From what the command line says to a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from learners.frozen import Phase, play_frozen
from learners.prequential import Contender, Played, Rules, Stream, past_of, play
from schemas.errors import ConfigurationError, SourceError
from schemas.settings import LearnerSettings

from .data_sets import FORMATS, Ties, load_stream, ordered_leave_one_out, stream_leave_one_out
from .learners import PLAIN, REELFLOW, SEEDED, make_contender
from .report import frozen_report, prequential_report
from .sessions import frozen_periods, read_periods

ProtocolName = Literal["prequential", "leave-one-out", "frozen-periods", "impressions"]
Progress = Callable[[str, int, int], None]
"""Told what is being done, how many events of it are done, and of how many."""

PROTOCOLS: Final[tuple[ProtocolName, ...]] = ("prequential", "leave-one-out", "frozen-periods", "impressions")


class Asking(Struct, frozen=True, kw_only=True):
    """What to evaluate, and how."""

    format: str
    path: Path | None = None
    learners: tuple[str, ...]
    protocol: ProtocolName = "prequential"
    repeats: bool | None = None
    """Whether seen items are ranked; None takes the format's default."""
    ties: Ties | None = None
    prior: Path | None = None
    limit: int | None = None
    score_from: float = 0.0
    teach_every: int = 1
    n_seeds: int = 1
    learner: LearnerSettings = PLAIN
    """What `reelflow` learns with; every learner is handed `history` of it."""


def rules_of(asking: Asking) -> tuple[Rules, Ties]:
    """Rules and order of ties, from what was said or the format's default."""
    default = FORMATS[asking.format]
    ties = asking.ties or default.ties
    repeats = default.repeats if asking.repeats is None else asking.repeats
    rules = Rules(
        exclude_seen=not repeats,
        ties_together=ties == "together",
        score_from=asking.score_from,
        teach_every=asking.teach_every,
    )
    return rules, ties


def evaluate(asking: Asking, on_progress: Progress | None = None) -> dict[str, Any]:
    """Run the protocol and report.

    Raises
    ------
    ConfigurationError
        An option is unknown, or does not go with the protocol.
    SourceError
        The data cannot be read.
    """
    if asking.protocol == "impressions":
        raise ConfigurationError("protocol", "impressions is run by evaluate_impressions")
    rules, ties = rules_of(asking)
    for name in asking.learners:
        make_contender(name, rules) if name != REELFLOW else None
    if (asking.protocol == "frozen-periods") != (asking.format == "sessions"):
        raise ConfigurationError("protocol", "frozen-periods goes with format sessions, and only with it")
    if asking.protocol == "prequential" and asking.teach_every != 1:
        raise ConfigurationError("teach-every", "a prequential run teaches with all that it ranks")
    stream, phases = _read(asking, ties)
    if not len(stream):
        raise SourceError(f"{asking.path}: no events in it")
    stream = msgspec.structs.replace(stream, history=asking.learner.history)
    runs = []
    for seed in range(asking.n_seeds):
        names = [name for name in asking.learners if seed == 0 or name in SEEDED]
        if names:
            contenders = [make_contender(name, rules, seed, asking.learner) for name in names]
            runs.append(_run(stream, phases, contenders, rules, seed, on_progress))
    reference = REELFLOW if REELFLOW in asking.learners else None
    if phases is None:
        report = prequential_report(stream, past_of(stream), runs, reference)
    else:
        report = frozen_report(stream, [phase.last for phase in phases], runs, reference)
    return {
        "protocol": asking.protocol,
        "repeats": not rules.exclude_seen,
        "ties": ties,
        "seeds": asking.n_seeds,
        "teach_every": asking.teach_every,
        "settings": _changed(asking.learner),
        **report,
    }


def _changed(learner: LearnerSettings) -> dict[str, Any]:
    """What is set otherwise than by default."""
    plain = msgspec.to_builtins(PLAIN)
    return {key: value for key, value in msgspec.to_builtins(learner).items() if value != plain[key]}


def _read(asking: Asking, ties: Ties) -> tuple[Stream, list[Phase] | None]:
    if asking.format == "sessions":
        if asking.path is None:
            raise ConfigurationError("input", "format sessions needs the path of its data")
        return frozen_periods(read_periods(asking.path))
    if asking.protocol == "leave-one-out" and asking.format == "ordered":
        if asking.path is None:
            raise ConfigurationError("input", "format ordered needs the path of its data")
        return ordered_leave_one_out(asking.path)
    stream = load_stream(asking.format, asking.path, ties=ties, prior=asking.prior, limit=asking.limit)
    if asking.protocol == "leave-one-out":
        return stream_leave_one_out(stream)
    return stream, None


def _run(
    stream: Stream,
    phases: list[Phase] | None,
    contenders: list[Contender],
    rules: Rules,
    seed: int,
    on_progress: Progress | None,
) -> Played:
    def show(done: int) -> None:
        if on_progress is not None:
            on_progress(f"{stream.name}, seed {seed}", done, len(stream))

    if phases is None:
        return play(stream, contenders, rules, time.perf_counter, on_progress=show)
    return play_frozen(stream, phases, contenders, rules, time.perf_counter, on_progress=show)
