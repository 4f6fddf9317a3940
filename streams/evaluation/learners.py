"""Learners that `reelflow evaluate` knows, by name."""

from __future__ import annotations

import re
from typing import Final

from learners.contenders import MarkovContender, PopularityContender
from learners.prequential import Contender, Rules
from schemas.errors import ConfigurationError

REELFLOW: Final = "reelflow"
DEFAULT: Final = (REELFLOW, "popularity-1d", "popularity-30d", "markov")
KNOWN: Final = "reelflow, popularity-<days>d, popularity-ever, markov"
SEEDED: Final = frozenset({REELFLOW})
_POPULARITY: Final = re.compile(r"popularity(?:-(\d*\.?\d+)d|-(ever))?$")


def make_contender(name: str, rules: Rules, seed: int = 0) -> Contender:
    """A new contender; ``popularity`` alone has a half-life of one day.

    Raises
    ------
    ConfigurationError
        The name is unknown.
    """
    if name == REELFLOW:
        from .contender import ReelflowContender

        return ReelflowContender(seed=seed, exclude_seen=rules.exclude_seen)
    if name == "markov":
        return MarkovContender()
    found = _POPULARITY.match(name)
    if found is None or (found[1] is not None and not float(found[1])):
        raise ConfigurationError("learner", f"must be one of {KNOWN}, not {name!r}")
    return PopularityContender(float("inf") if found[2] else float(found[1] or 1.0), name)
