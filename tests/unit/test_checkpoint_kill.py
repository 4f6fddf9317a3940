"""A real process, a real disk, kill -9: the next one starts at once and has what was told."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path


def test_killed_writers_are_followed_at_once_and_exactly(tmp_path: Path) -> None:
    rng, told = random.Random(3), 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.unit.checkpoint_child", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            first = child.stdout.readline().split()
            assert first, child.stderr.read()
            sequence, total = int(first[1]), int(first[2])
            assert sequence >= told
            assert total == sum(n for n in range(1, sequence + 1) if n % 7)
            for _ in range(rng.randrange(3, 40)):
                child.stdout.readline()
            child.kill()
            rest = child.stdout.read().splitlines()
        last = next((line.split() for line in reversed(rest) if line.count(" ") == 2), first)
        told = int(last[1])
    assert told > 20
    units = list(tmp_path.rglob("*.safetensors"))
    assert len(units) <= 4, "dead writers have left checkpoints behind"
