"""Every kind of hostile medium through a content worker on the real broker."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.content_rig import Catalogue, ready
from tests.hostile_catalogue import (
    SETTINGS,
    faults,
    file_cases,
    good_cases,
    items,
    mixed,
    place_cases,
    silent_server,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_each_hostile_medium_is_one_dead_letter_and_the_good_ones_are_encoded(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    """The short form of ``benchmarks.hostile_worker``: each kind once, but for those that take their time."""
    media = tmp_path / "media"
    media.mkdir()
    with silent_server() as ports:
        places = [case for case in place_cases(media, *ports) if case.reason != "slow_server"]
        kinds = [*file_cases(media), *places]
        cases = mixed(kinds, len(kinds), good_cases(media), 6)
        worker = catalogue.start(
            REELFLOW_CONTENT_ROOTS=json.dumps([str(media)]),
            REELFLOW_CONTENT_HOSTS=json.dumps([f"127.0.0.1:{ports[1]}", "127.0.0.2"]),
            **SETTINGS,
        )
        ready(worker)
        catalogue.put(*items(cases))
        worker.wait(lambda stats: stats["items_done"] == len(cases))
    found = Counter(case.reason for case in cases.values())
    assert len(kinds) >= 35
    assert len(found) == 15, "14 reasons, and good ones"
    assert faults(catalogue, cases) == []
    assert worker.child.stop() == 0, worker.child.tail()
