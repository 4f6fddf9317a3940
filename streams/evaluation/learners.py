"""Learners that `reelflow evaluate` knows, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from learners.contenders import MarkovContender, PopularityContender
from learners.prequential import Contender, Rules
from schemas.errors import ConfigurationError
from schemas.settings import LearnerSettings, assigned, load_settings

REELFLOW: Final = "reelflow"
DEFAULT: Final = (REELFLOW, "popularity-1d", "popularity-30d", "markov")
KNOWN: Final = "reelflow, popularity-<days>d, popularity-ever, markov"
SEEDED: Final = frozenset({REELFLOW})
_POPULARITY: Final = re.compile(r"popularity(?:-(\d*\.?\d+)d|-(ever))?$")


PLAIN: Final = LearnerSettings(device="cpu")
"""What `reelflow` learns with where nothing is set."""

_NO_PART: Final = frozenset({"seen", "sync_interval_s", "sync_bytes_per_s", "max_users"})
"""Settings of roles: an evaluation knows all that was seen, publishes nothing and has its users at hand."""


def learner_settings(texts: Iterable[str]) -> LearnerSettings:
    """`PLAIN` but for texts ``learner.name=value``.

    Raises
    ------
    ConfigurationError
        A name or a value is wrong, or the setting plays no part in an evaluation.
    """
    overrides = assigned(texts)
    for section, values in overrides.items():
        for key in values:
            if section != "learner" or key in _NO_PART:
                raise ConfigurationError(f"{section}.{key}", "plays no part in an evaluation")
    return load_settings(
        {}, None, {"learner": {"device": PLAIN.device, **overrides.get("learner", {})}}
    ).learner


def make_contender(name: str, rules: Rules, seed: int = 0, learner: LearnerSettings = PLAIN) -> Contender:
    """A new contender; ``popularity`` alone has a half-life of one day.

    Parameters
    ----------
    name : str
    rules : Rules
    seed : int
        Number of the run, added to the seed of the settings.
    learner : LearnerSettings
        What `reelflow` learns with.

    Raises
    ------
    ConfigurationError
        The name is unknown.
    """
    if name == REELFLOW:
        from .contender import ReelflowContender, SparseContender

        learner = msgspec.structs.replace(learner, seed=learner.seed + seed)
        made = ReelflowContender if learner.embeddings else SparseContender
        return made(learner, exclude_seen=rules.exclude_seen)
    if name == "markov":
        return MarkovContender()
    found = _POPULARITY.match(name)
    if found is None or (found[1] is not None and not float(found[1])):
        raise ConfigurationError("learner", f"must be one of {KNOWN}, not {name!r}")
    return PopularityContender(float("inf") if found[2] else float(found[1] or 1.0), name)
