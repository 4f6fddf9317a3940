"""Fixtures of the fault suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.settings import Settings
from streams.broker import LocalBroker
from streams.broker_process import free_port


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Kernels in the compile cache: the first start on a machine compiles for minutes under load."""
    from streams.warm_up import warm_up

    warm_up(Settings())


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker that a test may stop and kill."""
    with LocalBroker(tmp_path / "kafka", port=free_port()) as running:
        yield running
