"""Installs a built wheel into a fresh environment, far from the sources, and runs the product from it.

Run as ``python tests/wheel_smoke.py dist/reelflow-*.whl``; prints what it did, exits non-zero on failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"

INSIDE = """
import importlib.metadata as metadata, importlib.resources as resources, pathlib, sys
import learners, schemas, serving, streams
for package in (learners, schemas, serving, streams):
    assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), package.__file__
    assert (resources.files(package) / "py.typed").is_file(), package
assert {point.name for point in metadata.entry_points(group="faust.transports")} >= {"reelflow"}
for name in ("page/index.html",):
    assert (resources.files(serving) / name).is_file(), name
for name in ("broker_jars.sha256", "sample/LICENSE"):
    assert (resources.files(streams) / name).is_file(), name
print("package data and entry points are in place")
"""


def run(command: list[str], cwd: Path, **environ: str) -> str:
    """Standard output of a command that must succeed."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    result = subprocess.run(
        command, cwd=cwd, env=kept | environ, capture_output=True, text=True, check=False, timeout=600
    )
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} exited {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def constraints(folder: Path) -> Path:
    """The lock file's versions without its hashes: the wheel itself has none there."""
    lines = [line.split(" \\")[0] for line in LOCK.read_text(encoding="utf-8").splitlines()]
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    file = folder / "constraints.txt"
    file.write_text("\n".join(pins) + "\n", encoding="utf-8")
    return file


def main(wheel: Path) -> None:
    """Install, look, and run the demo for a few seconds."""
    uv = str(Path(sys.executable).parent / "uv")
    with tempfile.TemporaryDirectory(prefix="reelflow-wheel-") as name:
        folder = Path(name)
        run([uv, "venv", "--quiet", "--python", sys.executable, "fresh"], folder)
        python, command = str(folder / "fresh/bin/python"), str(folder / "fresh/bin/reelflow")
        run(
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--python",
                python,
                "--constraint",
                str(constraints(folder)),
                str(wheel),
            ],
            folder,
        )
        print(run([python, "-c", INSIDE], folder).strip())
        print(run([command, "--version"], folder).strip())
        assert json.loads(run([command, "schemas", "asyncapi"], folder))["asyncapi"].startswith("3.")
        output = run(
            [command, "demo", "--duration", "5", "--rate", "300", "--port", "0"],
            folder,
            REELFLOW_WORKER_PORT="0",
        )
        report = json.loads(output.strip().splitlines()[-1])
        assert report["events_learned"] == report["events_in"] > 500, report
        assert report["users_with_snapshot"] > 100, report
        print(f"the demo ran from the wheel: {report['events_learned']} events learned")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
