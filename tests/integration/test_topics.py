"""Topics on the real broker."""

from __future__ import annotations

import pytest

from schemas.settings import KafkaSettings
from streams.broker import LocalBroker
from streams.topics import check_topics, create_topics

pytestmark = pytest.mark.integration


def test_created_topics_pass_the_check(broker: LocalBroker, topics: str) -> None:
    kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix=topics, partitions=4)
    assert check_topics(kafka) == []
    assert create_topics(kafka) == []
