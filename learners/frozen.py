"""Evaluation in phases: learn one part of a stream, rank another with the model as it then is.

What published tables report: the last event of every user left out (one phase of each kind), or
period after period, each ranked with what the periods before it taught.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from .prequential import (
    MICRO_BATCH,
    Contender,
    Played,
    Rules,
    Stream,
    Taught,
    asked_of,
    interactions_of,
    past_of,
)


class Phase(Struct, frozen=True):
    """Rows ``first .. last - 1`` of a stream, to be learned or to be ranked and never learned."""

    first: int
    last: int
    learned: bool


def play_frozen(
    stream: Stream,
    phases: Sequence[Phase],
    contenders: Sequence[Contender],
    rules: Rules,
    clock: Callable[[], float],
    *,
    on_progress: Callable[[int], None] | None = None,
) -> Played:
    """Run phases in order; asked for are the targets of ranked phases whose user has a history.

    Histories within a ranked phase grow from event to event. Users of a ranked phase that are to
    learn nothing from it need slots of their own: the fold does not distinguish the phases.
    """
    past = past_of(stream)
    names = [contender.name for contender in contenders]
    rows: list[int] = []
    ranks: dict[str, list[np.ndarray[tuple[int], np.dtype[np.int32]]]] = {name: [] for name in names}
    rank_s, learn_s = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for phase in phases:
        for first in range(phase.first, phase.last, MICRO_BATCH):
            part = slice(first, min(first + MICRO_BATCH, phase.last))
            here = np.flatnonzero(
                stream.target[part] & (past.n_visits[part] > 0) & (past.n_positives[part] > 0)
            )
            here = here + first
            if phase.learned:
                taught = here[here % rules.teach_every == 0]
                taught = taught[~past.repeated[taught]] if rules.exclude_seen else taught
                asked = asked_of(stream, past, taught, rules) if len(taught) else None
                batch = interactions_of(stream, past, part)
                for contender in contenders:
                    at = clock()
                    if asked is not None and isinstance(contender, Taught):
                        contender.teach(asked)
                    contender.learn(batch)
                    learn_s[contender.name] += clock() - at
            elif len(here):
                asked = asked_of(stream, past, here, rules)
                rows += here.tolist()
                for contender in contenders:
                    at = clock()
                    ranks[contender.name].append(contender.ranks(asked))
                    rank_s[contender.name] += clock() - at
            if on_progress is not None:
                on_progress(part.stop)
    none = np.zeros(0, dtype=np.int32)
    return Played(
        rows=np.array(rows, dtype=np.int64),
        ranks={name: np.concatenate([none, *found]) for name, found in ranks.items()},
        lists={},
        rank_s=rank_s,
        learn_s=learn_s,
    )
