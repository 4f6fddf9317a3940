"""What the warm-up runs, so that no kernel is compiled while partitions are held."""

from __future__ import annotations

from typing import Any

import pytest

from learners import ease, embedding_step, row_copies
from schemas.settings import Settings
from serving import recommender
from streams.warm_up import warm_up


def test_a_refit_of_ease_and_the_mixtures_lists_are_among_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: set[str] = set()

    def noted(module: Any, name: str) -> None:
        kernel = getattr(module, name)

        def call(*given: Any) -> Any:
            ran.add(name)
            return kernel(*given)

        monkeypatch.setattr(module, name, call)

    kernels = [
        (ease, "_learn"),
        (ease, "_largest"),
        (recommender, "gather_users"),
        (recommender, "write_lists"),
        (row_copies, "_find_runs"),
        (row_copies, "_copy_runs"),
    ]
    kernels += [(embedding_step, "_unpool")]
    for module, name in kernels:
        noted(module, name)
    warm_up(Settings())
    assert ran == {name for _, name in kernels}
