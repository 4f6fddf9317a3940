"""Checks docker-compose.yml with `docker-compose config`, wherever a Compose command is installed.

Always checks what needs no Compose: every health check, loopback ports, the non-root image, files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
ONE_SHOT = {"topics", "replay"}


def problems() -> list[str]:
    """What is wrong, one line each."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    found = []
    for name, service in compose["services"].items():
        if name not in ONE_SHOT and "healthcheck" not in service:
            found.append(f"service {name} has no health check")
        found += [
            f"service {name} publishes {port} beyond loopback"
            for port in service.get("ports", [])
            if not str(port).startswith("127.0.0.1:")
        ]
        for volume in service.get("volumes", []):
            source = str(volume).split(":", 1)[0]
            if source.startswith(".") and not (ROOT / source).exists():
                found.append(f"service {name} mounts {source}, which does not exist")
            if not source.startswith(".") and source not in compose["volumes"]:
                found.append(f"service {name} uses the volume {source}, which is not declared")
    if "\nUSER reelflow\n" not in (ROOT / "Dockerfile").read_text(encoding="utf-8"):
        found.append("the image does not run as a user of its own")
    return found


def compose_command() -> list[str] | None:
    """`docker compose` or `docker-compose`, whichever works."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            probe = subprocess.run([*command, "version"], capture_output=True, check=False)
            if probe.returncode == 0:
                return command
    return None


def main() -> int:
    """Print problems; exit code 1 when there are any."""
    found = problems()
    command = compose_command()
    if command is None:
        print("docker-compose is not installed: its own check of docker-compose.yml is skipped")
    else:
        result = subprocess.run(
            [*command, "-f", str(ROOT / "docker-compose.yml"), "config", "-q"],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if result.returncode:
            found.append(result.stderr.strip())
    for problem in found:
        print(f"docker-compose.yml: {problem}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
