"""Fixtures that every part of the test suite shares."""

from __future__ import annotations

import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from schemas.settings import KafkaSettings
from streams.broker import LocalBroker
from streams.device import spare_cores

with warnings.catch_warnings():  # it loads its protocol in a deprecated way, once, on import
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.net.inet import KafkaNetSocket

# As the processes that tests start, whose digests are compared with ours. Nothing above imports numpy.
spare_cores()

PARTITIONS = 4


class _Collected(socket.socket):
    """A socket that may be left to the collector.

    kafka-python leaves those of failed, abandoned and half-opened connections to it, and the warning
    then ends whatever test runs at that moment.
    """

    def __del__(self) -> None:
        self.close()


def _socket(
    self: Any,
    family: int = socket.AF_UNSPEC,
    sock_type: int = socket.SOCK_STREAM,
    proto: int = socket.IPPROTO_TCP,
) -> socket.socket:
    return _Collected(family, sock_type, proto)


KafkaNetSocket.socket = _socket


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
