"""Hundreds of hostile files, good ones among them: their reasons, their time, and the memory they take.

Run as ``python -m benchmarks.hostile_media``; needs the extra ``content``. In each of `--rounds` every kind
of `tests.hostile_files` is read, then a good picture, sound and video. The last line is one JSON object:
`wrong_reasons` and `good_refused` are to be 0, `over_limit_s` is the most that any file took beyond its limit
of decoding, `pool_mib` the growth of this process, `decoder_mib` the peak of a decoder, its jobs aside.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import msgspec

from schemas.errors import MediaError
from schemas.media import MediaModality
from streams.content.limits import Form
from streams.content.pool import MediaPool
from tests import media_files
from tests.hostile_files import HOSTILE, LIMITS, Hostile


def resident_mib(pid: int | str, field: str) -> float:
    """A figure of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


class Tally:
    """What became of the files."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.n_wrong = 0
        self.over_limit_s = -1e9

    def read(self, pool: MediaPool, path: Path, hostile: Hostile) -> None:
        """Read one hostile file."""
        start = time.monotonic()
        try:
            pool.read(str(path), hostile.modality)
            reason = "none"
        except MediaError as error:
            reason = error.reason
        took_s = time.monotonic() - start
        self.over_limit_s = max(self.over_limit_s, took_s - pool.limits.decode_s)
        self.reasons[reason] += 1
        if reason != hostile.reason:
            self.n_wrong += 1
            click.echo(f"{hostile.name}: {reason} instead of {hostile.reason}")


@click.command()
@click.option("--rounds", default=16, show_default=True, help="How often every kind is read.")
def main(rounds: int) -> None:
    """Print what the files were refused for, and one JSON object."""
    tally, n_good, n_refused = Tally(), 0, 0
    with tempfile.TemporaryDirectory() as name, MediaPool(None, LIMITS, Form(), workers=1) as pool:
        folder = Path(name)
        paths = [hostile.write(folder) for hostile in HOSTILE]
        media_files.picture(folder / "good.jpg")
        media_files.sound(folder / "good.flac")
        media_files.film(folder / "good.mp4")
        good: list[tuple[str, MediaModality]] = [
            ("good.jpg", "image"),
            ("good.flac", "audio"),
            ("good.mp4", "video"),
        ]
        before_mib, decoders = resident_mib("self", "VmRSS"), pool.pids
        for _ in range(rounds):
            for hostile, path in zip(HOSTILE, paths, strict=True):
                pool.limits = msgspec.structs.replace(LIMITS, **hostile.limits)
                tally.read(pool, path, hostile)
            pool.limits = LIMITS
            for file, modality in good:
                n_good += 1
                try:
                    pool.read(str(folder / file), modality)
                except MediaError:
                    n_refused += 1
        report = {
            "hostile": tally.reasons.total(),
            "kinds": len(HOSTILE),
            "reasons": dict(tally.reasons),
            "wrong_reasons": tally.n_wrong,
            "good": n_good,
            "good_refused": n_refused,
            "over_limit_s": round(tally.over_limit_s, 2),
            "decoders_replaced": pool.n_replaced + (pool.pids != decoders),
            "pool_mib": round(resident_mib("self", "VmRSS") - before_mib, 1),
            "decoder_mib": round(max(resident_mib(pid, "VmHWM") for pid in pool.pids), 1),
        }
    for reason, count in sorted(tally.reasons.items()):
        click.echo(f"{reason:18}{count:6}")
    click.echo(json.dumps(report))
    sys.exit(bool(tally.n_wrong or n_refused))


if __name__ == "__main__":
    main()
