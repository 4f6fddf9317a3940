"""Dashboard, alert rules and compose file agree with the code's metrics and with each other."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from serving.content_metrics import ContentMetrics
from serving.gateway_metrics import GatewayMetrics
from serving.metrics import WorkerMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worker_metric_names() -> set[str]:
    text = ""
    for metrics in (WorkerMetrics, ContentMetrics):
        registry = CollectorRegistry()
        metrics(registry)
        text += generate_latest(registry).decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    names = set(types)
    for name, kind in types.items():
        if kind == "histogram":
            names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return names


def used_names(text: str) -> set[str]:
    return set(re.findall(r"\breelflow_[a-z_]+", text))


def test_dashboard_is_what_its_script_writes() -> None:
    written = json.loads((DEPLOY / "grafana" / "dashboards" / "reelflow.json").read_text())
    assert written == load("make_dashboard").dashboard()


@pytest.mark.parametrize("file", ["grafana/dashboards/reelflow.json", "prometheus/alerts.yml"])
def test_every_metric_named_exists(file: str) -> None:
    used = used_names((DEPLOY / file).read_text())
    gateway = {name for name in used if name.startswith("reelflow_gateway_")}
    assert used - gateway <= worker_metric_names()
    text = generate_latest(GatewayMetrics().registry).decode()
    assert gateway <= set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def test_compose_file() -> None:
    assert load("check_compose").problems() == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_alert_rules_fire_as_their_tests_say() -> None:
    folder = DEPLOY / "prometheus"
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        result = subprocess.run(
            ["promtool", *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
