"""The command line: help without loading torch, errors in one line that name the setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from streams.cli import COMMANDS


def reelflow(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from streams.cli import cli\n"
        "result = CliRunner().invoke(cli, ['--help']); print(result.output)\n"
        "assert not {'torch', 'numba', 'faust'} & set(sys.modules), 'heavy'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert all(f"\n  {name}" in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    result = reelflow(name, "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: " in result.stdout
    assert len(result.stdout) > 150


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"REELFLOW_WORKER_PORT": "http"}, "worker.port"),
        ({"REELFLOW_WORKER_PROT": "1"}, "REELFLOW_WORKER_PROT"),
        ({"REELFLOW_KAFKA_SECURITY_PROTOCOL": "TLS"}, "kafka.security_protocol"),
    ],
)
@pytest.mark.parametrize("name", ["worker", "gateway", "config"])
def test_a_wrong_setting_is_named_in_one_line(name: str, environ: dict[str, str], named: str) -> None:
    result = reelflow(name, **environ)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: setting {named}: ")
    assert result.stderr.count("\n") == 1


def test_config_masks_secrets() -> None:
    result = reelflow("config", REELFLOW_KAFKA_SASL_PASSWORD="hunter2")  # noqa: S106 - made up
    assert json.loads(result.stdout)["kafka"]["sasl_password"] == "***"
    assert "hunter2" not in result.stdout + result.stderr
