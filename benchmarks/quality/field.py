"""Who runs: every baseline by name, each built anew for a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from learners.prequential import Contender

from .contenders.counting import ItemNeighbours, Markov, SkipGram
from .contenders.factors import Bpr, Isgd
from .contenders.popularity import Popular
from .contenders.refits import Ease, Ials
from .contenders.river_models import River
from .contenders.sasrec import SasRec
from .contenders.scoring import Room
from .contenders.sessions import SessionNeighbours

BASELINES: Final[dict[str, Callable[[Room], Contender]]] = {
    "popularity_1d": lambda room: Popular(room, 1.0),
    "popularity_3d": lambda room: Popular(room, 3.0),
    "popularity_7d": lambda room: Popular(room, 7.0),
    "popularity_30d": lambda room: Popular(room, 30.0),
    "popularity_ever": Popular,
    "markov": Markov,
    "skip_gram": SkipGram,
    "item_knn": ItemNeighbours,
    "vs_knn": SessionNeighbours,
    "isgd": Isgd,
    "bpr": Bpr,
    "river_biased_mf": River,
    "river_funk_mf": lambda room: River(room, kind="funk_mf"),
    "ials": Ials,
    "ease": Ease,
    "sasrec": SasRec,
}
SASREC_ON: Final = ("ml-100k", "ml-latest-small")
"""Retraining takes minutes a fit, so it is done on two sets."""


def baselines_for(data_set: str, *, quick: bool) -> list[str]:
    """Names of the baselines that run on a data set."""
    return [name for name in BASELINES if name != "sasrec" or (data_set in SASREC_ON and not quick)]
