"""Fixtures of the tests on the real broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from streams.broker import LocalBroker
from tests.content_rig import Catalogue
from tests.transport_rig import Cluster


@pytest.fixture
def cluster(broker: LocalBroker) -> Cluster:
    """The broker as tests see it from outside."""
    return Cluster(broker.bootstrap)


@pytest.fixture
def catalogue(broker: LocalBroker, tmp_path: Path) -> Iterator[Catalogue]:
    """Topics of their own, and the content workers that a test starts on them."""
    with ExitStack() as stack:
        yield Catalogue(broker.bootstrap, tmp_path, stack)
