"""The list of pinned jars and what is said about a folder that differs from it."""

from __future__ import annotations

import re
from pathlib import Path

from streams.broker_install import KAFKA_VERSION, faults, jars_dir, pinned_jars


def test_the_list_pins_the_broker_and_all_it_needs() -> None:
    jars = pinned_jars()
    names = [jar.name for jar in jars]
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in names
    assert f"kafka-clients-{KAFKA_VERSION}.jar" in names
    assert "slf4j-simple-1.7.36.jar" in names
    assert len(set(names)) == len(names) > 40
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in jars)


def test_every_path_is_that_of_its_coordinate() -> None:
    for jar in pinned_jars():
        group, artifact, version = jar.coordinate
        assert str(jar.path) == f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}.jar"


def test_every_fault_is_named(tmp_path: Path) -> None:
    n = len(pinned_jars())
    assert len(faults(tmp_path / "absent")) == n
    (tmp_path / pinned_jars()[0].name).write_bytes(b"not a jar")
    (tmp_path / "intruder.jar").touch()
    found = faults(tmp_path)
    assert len(found) == n + 1
    assert f"{pinned_jars()[0].name} has another checksum" in found
    assert f"{pinned_jars()[1].name} is missing" in found
    assert "intruder.jar does not belong there" in found


def test_the_folder_carries_the_version(tmp_path: Path) -> None:
    assert jars_dir(tmp_path) == tmp_path / "kafka" / KAFKA_VERSION
