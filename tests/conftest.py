"""Fixtures that every part of the test suite shares."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from schemas.settings import KafkaSettings
from streams.broker import LocalBroker

with warnings.catch_warnings():  # it loads its protocol in a deprecated way, once, on import
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401

PARTITIONS = 4


@pytest.fixture(scope="session")
def broker() -> Iterator[LocalBroker]:
    """A real broker for the whole session; ends with it, and its data with it."""
    with tempfile.TemporaryDirectory(prefix="reelflow-test-") as folder, LocalBroker(Path(folder)) as running:
        yield running


@pytest.fixture
def topics(broker: LocalBroker) -> str:
    """The prefix under which all topics exist, empty, with 4 partitions each."""
    from streams.topics import create_topics

    prefix = f"t{uuid4().hex[:12]}"
    create_topics(KafkaSettings(bootstrap=broker.bootstrap, prefix=prefix, partitions=PARTITIONS))
    return prefix
