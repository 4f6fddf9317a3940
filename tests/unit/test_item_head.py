"""The head of a large catalogue: exact for what it holds, an estimate for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learners import item_head
from learners.item_head import ItemHead
from schemas.errors import StateError

N_ITEMS = 400
DIM = 8


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> ItemHead:
    for name, value in {"REFRESH": 500, "HALF_LIFE": 2_000}.items():
        monkeypatch.setattr(item_head, name, value)
    return ItemHead(DIM, 50)


def _values(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.3, (N_ITEMS, DIM)).astype(np.float32))


def _targets(seed: int, n: int, first: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return (first + (N_ITEMS - first) * rng.random(n) ** 3).astype(np.int32)


def _users() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(9).normal(0, 1, (30, DIM)).astype(np.float32))


def test_the_head_is_what_was_watched_lately(head: ItemHead) -> None:
    values, users, closed = _values(), _users(), torch.zeros(N_ITEMS)
    assert not head.pays
    head.learned(_targets(1, 1_000), values)
    assert head.pays
    early = set(head.best(users, values, closed, 50, 0).items.ravel().tolist())
    for seed in range(40):
        head.learned(_targets(seed, 500, first=200), values)
    late = set(head.best(users, values, closed, 50, 0).items.ravel().tolist())
    assert len(early) == len(late) == 50
    assert min(late) >= 200 > np.median(sorted(early))


def test_what_is_found_is_exact_and_the_normaliser_is_near(head: ItemHead) -> None:
    values, users, closed = _values(), _users(), torch.zeros(N_ITEMS)
    closed[3] = -torch.inf
    head.learned(np.concatenate([np.arange(N_ITEMS, dtype=np.int32), _targets(1, 2_000)]), values)
    found = head.best(users, values, closed, 10, 1)
    logits = (users @ values.T + closed).numpy()
    np.testing.assert_allclose(found.logits, np.take_along_axis(logits, found.items, axis=1), rtol=1e-5)
    assert 3 not in found.items
    exact = torch.logsumexp(torch.from_numpy(logits), dim=1).numpy()
    np.testing.assert_allclose(found.log_z, exact, atol=0.15)
    assert abs(float((found.log_z - exact).mean())) < 0.03


def test_a_restored_head_goes_on_with_the_same_items(head: ItemHead) -> None:
    values, twin = _values(), ItemHead(DIM, 50)
    head.learned(_targets(1, 1_300), values)
    twin.restore(head.snapshot())
    for one in (head, twin):
        one.learned(_targets(2, 700), values)
    mine, theirs = head.snapshot(), twin.snapshot()
    assert all((mine[name] == theirs[name]).all() for name in mine)
    broken = head.snapshot() | {"head_items": np.array([N_ITEMS + 5], dtype=np.int32)}
    with pytest.raises(StateError, match="head_items"):
        twin.restore(broken)


def test_imported_rows_make_a_head_too(head: ItemHead) -> None:
    values = _values()
    items = np.arange(N_ITEMS, dtype=np.int32)
    head.imported(items, N_ITEMS - items, values)
    head.imported(items[:200], N_ITEMS - items[:200], values)
    assert head.pays
    assert set(head.best(_users(), values, torch.zeros(N_ITEMS), 50, 0).items.ravel().tolist()) == set(
        range(50)
    )
