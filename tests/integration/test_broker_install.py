"""Fetching the jars: once, safely together with others, and clear when it cannot be done."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.errors import BrokerError
from streams.broker import LocalBroker
from streams.broker_install import faults, install, pinned_jars

pytestmark = pytest.mark.integration


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No way to the network; returns the user's Maven repository, which is empty."""
    repository = tmp_path / "m2"
    repository.mkdir()
    monkeypatch.setenv("M2_REPO", str(repository))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return repository


def fill(repository: Path) -> None:
    """Put the jars where Maven would keep them."""
    jars = install()
    for jar in pinned_jars():
        target = repository / jar.path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(shutil.copyfile(jars / jar.name, repository / jar.name), target)


def test_first_use_without_the_network_says_so(offline: Path, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"cannot fetch .*Maven Central.*needs the network"):
        LocalBroker(tmp_path / "data", home=tmp_path / "home").start()
    assert not (tmp_path / "data").exists()
    assert [path.name for path in (tmp_path / "home" / "kafka").iterdir()] == ["install.lock"]


def test_several_may_install_at_once(offline: Path, tmp_path: Path) -> None:
    fill(offline)
    home = tmp_path / "home"
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: install(home), range(4)))
    assert len(folders) == 1
    assert faults(folders.pop()) == []


def test_altered_jars_are_replaced_and_never_run(offline: Path, tmp_path: Path) -> None:
    fill(offline)
    home = tmp_path / "home"
    folder = install(home)
    first, second, *_ = (folder / jar.name for jar in pinned_jars())
    first.write_bytes(first.read_bytes() + b"more")
    second.unlink()
    (folder / "intruder.jar").touch()
    assert len(faults(folder)) == 3
    assert faults(install(home)) == []

    shutil.rmtree(offline)
    first.write_bytes(b"")
    with pytest.raises(BrokerError, match="cannot fetch"):
        LocalBroker(tmp_path / "data", home=home).start()


def test_a_wrong_jar_in_the_maven_repository_is_not_taken(offline: Path, tmp_path: Path) -> None:
    fill(offline)
    jar = pinned_jars()[-1]
    (offline / jar.path).write_bytes(b"something else")
    with pytest.raises(BrokerError, match=f"cannot fetch {jar.name}"):
        install(tmp_path / "home")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match="cannot keep the jars"):
        install(tmp_path / "file")
