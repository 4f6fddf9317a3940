"""Fixtures of the tests on the real broker."""

from __future__ import annotations

import pytest

from streams.broker import LocalBroker
from tests.transport_rig import Cluster


@pytest.fixture
def cluster(broker: LocalBroker) -> Cluster:
    """The broker as tests see it from outside."""
    return Cluster(broker.bootstrap)
