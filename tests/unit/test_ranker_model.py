"""Slots of this process to slots of the model, whatever is named first and on which side."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.interning import Interner
from schemas.settings import LearnerSettings, RankerSettings
from streams.ranker_model import Translation
from streams.replica import Replica

NAMES = [f"v{i}" for i in range(12)]


@settings(deadline=None)  # compiling may fall into it
@given(st.lists(st.tuples(st.sampled_from(["local", "model", "look", "anew"]), st.sampled_from(NAMES))))
def test_the_table_is_what_looking_up_every_id_would_give(steps: list[tuple[str, str]]) -> None:
    local = Interner()
    replica = Replica(LearnerSettings(embeddings=False), RankerSettings())
    translation = Translation(local, replica)
    for step, name in [*steps, ("look", "")]:
        if step == "local":
            local.get(name)
        elif step == "model":
            replica.items.get(name)
        elif step == "anew":
            replica.items = Interner()
            replica.anew += 1
        else:
            table = translation.table()
            assert table[: len(local)].tolist() == [replica.items.find(name) for name in local.ids]
            assert (table[len(local) :] == -1).all()


def test_histories_stay_right_aligned_without_what_the_model_does_not_know() -> None:
    local = Interner(["a", "b", "c", "d"])
    replica = Replica(LearnerSettings(embeddings=False), RankerSettings())
    for name in ("x", "d", "b"):
        replica.items.get(name)
    translation = Translation(local, replica)
    history = np.array([[-1, 0, 1, 2, 3], [-1, -1, -1, -1, -1], [-1, -1, -1, 3, 1], [0, 2, 0, 2, 0]])
    found = translation.histories(history.astype(np.int32))
    assert found.tolist() == [
        [-1, -1, -1, 2, 1],
        [-1, -1, -1, -1, -1],
        [-1, -1, -1, 1, 2],
        [-1, -1, -1, -1, -1],
    ]
