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

with warnings.catch_warnings():  # it loads its protocol in a deprecated way, once, on import
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.net.inet import KafkaNetSocket

PARTITIONS = 4

_connect = KafkaNetSocket.sock_connect


async def _connect_or_close(self: Any, net: Any, sock: socket.socket, *args: Any, **options: Any) -> Any:
    """kafka-python leaves the socket of a failed or abandoned attempt to the collector, whose warning
    then ends whatever test runs at that moment."""
    try:
        return await _connect(self, net, sock, *args, **options)
    except BaseException:
        sock.close()
        raise


KafkaNetSocket.sock_connect = _connect_or_close


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
