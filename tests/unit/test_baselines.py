"""Baseline lists: heads first, then popular, nothing twice, nothing seen."""

from __future__ import annotations

import numpy as np

from learners.baselines import lists_with_popular


def test_heads_then_popular() -> None:
    heads = np.array([[4, 1, -1], [-1, -1, -1]], dtype=np.int32)
    history = np.array([[-1, 1], [-1, -1]], dtype=np.int32)
    popular = np.array([0, 4, 2, 3], dtype=np.int32)
    withdrawn = np.array([False, False, True, False, False])
    lists = lists_with_popular(heads, history, popular, withdrawn, 3)
    assert lists.tolist() == [[4, 0, 3], [0, 4, 3]]


def test_short_catalogue_is_padded() -> None:
    none = np.zeros((1, 0), dtype=np.int32)
    history = np.array([[0]], dtype=np.int32)
    lists = lists_with_popular(none, history, np.array([0, 1], np.int32), np.zeros(2, np.bool_), 4)
    assert lists.tolist() == [[1, -1, -1, -1]]
