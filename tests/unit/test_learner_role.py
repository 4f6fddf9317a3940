"""What the learner role decides before it publishes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from streams.learner import lineage_after


def head(lineage: str, sequence: int) -> Any:
    return cast("Any", SimpleNamespace(lineage=lineage, sequence=sequence))


def test_a_state_behind_its_topics_begins_a_new_lineage() -> None:
    """An older checkpoint was restored: slots may come to name other items than the topics say."""
    assert lineage_after(None, "a", 7) == "a"
    assert lineage_after(head("a", 7), "a", 7) == "a"
    assert lineage_after(head("b", 9), "a", 7) == "a"
    assert lineage_after(head("a", 9), "a", 7) != "a"
