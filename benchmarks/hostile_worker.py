"""Hundreds of items with hostile media, good ones among them, through `reelflow content-worker` on a broker.

Run as ``python -m benchmarks.hostile_worker``; needs the extra ``content``. Every kind of
`tests.hostile_catalogue` comes in turn: files that are cut, bombs, named wrongly, endless, heavy or slow to
decode, and places that lead nowhere, are not allowed or do not answer. The last line is one JSON object. Ends
with 1 unless

- each hostile item has one dead letter, with the reason of its kind, and each good one its vectors;
- no process that fetches and decodes a medium lasted longer than both its limits and half a second;
- none took more memory than its limit on top of its decoder, and the worker grew by less than `GROWTH_MIB`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click

from streams.broker import LocalBroker
from streams.content.decoder import MARGIN_S
from tests.content_rig import Catalogue, ready
from tests.hostile_catalogue import (
    SETTINGS,
    faults,
    file_cases,
    good_cases,
    items,
    mixed,
    place_cases,
    silent_server,
    slow_file,
)
from tests.processes import RunningWorker

from .process_tree import ProcessTree, Seen, mib

FETCH_S, DECODE_S = 2.0, 3.0
GROWTH_MIB = 200.0
"""Encoders allocate for their first batches; beyond these nothing may stay."""

SLACK_S = 0.2
"""Of the looks at processes, and of a busy machine."""


def settled(worker: RunningWorker, n: int) -> float:
    """Seconds until `n` items are done."""
    start = time.monotonic()
    worker.wait(lambda stats: stats["items_done"] >= n and stats["waiting"] == 0, 1_200)
    return time.monotonic() - start


def figures(jobs: list[Seen], decoders: list[Seen]) -> dict[str, float]:
    """Counts, times in seconds and peaks in MiB of processes."""
    seconds = sorted(one.seconds for one in jobs)
    return {
        "media_processes_seen": len(jobs),
        "medium_median_s": round(seconds[len(seconds) // 2], 2),
        "medium_longest_s": round(seconds[-1], 2),
        "medium_peak_mib": round(max(one.peak_mib for one in jobs), 1),
        "decoders": len(decoders),
        "decoder_peak_mib": round(max(one.peak_mib for one in decoders), 1),
    }


@click.command()
@click.option("--hostile", default=532, show_default=True, help="Items with hostile media.")
@click.option("--good", default=50, show_default=True, help="Items with good media.")
@click.option("--cover-text", is_flag=True, help="Read words on covers too; needs the extra ocr.")
def main(hostile: int, good: int, *, cover_text: bool) -> None:
    """Print the reasons, the figures, and one JSON object."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(LocalBroker(folder / "broker"))
        ports = stack.enter_context(silent_server())
        media = folder / "media"
        media.mkdir()
        kinds = [*file_cases(media), slow_file(media), *place_cases(media, *ports)]
        cases = mixed(kinds, hostile, good_cases(media), good)
        catalogue = Catalogue(broker.bootstrap, folder, stack)
        worker = catalogue.start(
            REELFLOW_CONTENT_FETCH_S=str(FETCH_S),
            REELFLOW_CONTENT_DECODE_S=str(DECODE_S),
            REELFLOW_CONTENT_COVER_TEXT=json.dumps(cover_text),
            REELFLOW_CONTENT_ROOTS=json.dumps([str(media)]),
            REELFLOW_CONTENT_HOSTS=json.dumps([*(f"127.0.0.1:{port}" for port in ports), "127.0.0.2"]),
            **SETTINGS,
        )
        ready(worker)
        pid = worker.child.process.pid
        before_mib = mib(pid, "VmRSS")
        with ProcessTree(pid) as tree:
            catalogue.put(*items(cases))
            took_s = settled(worker, len(cases))
        found = faults(catalogue, cases)
        reasons = Counter(one["reelflow_reason"] for one in catalogue.letters().values())
        measured = figures(list(tree.grandchildren.values()), list(tree.children.values())) | {
            "seconds": round(took_s, 1),
            "stood_still_s": round(tree.stood_still_s, 1),
            "worker_before_mib": round(before_mib, 1),
            "worker_peak_mib": round(mib(pid, "VmHWM"), 1),
        }
        worker.child.stop()
    for fault in found[:20]:
        click.echo(fault)
    for reason, count in sorted(reasons.items()):
        click.echo(f"{reason:18}{count:6}")
    if measured["stood_still_s"]:
        click.echo("the machine stood still meanwhile: times and reasons may be due to that")
    counts = {"hostile": hostile, "kinds": len(kinds), "good": good, "faults": len(found)}
    click.echo(json.dumps(counts | {"reasons": dict(reasons)} | measured))
    sys.exit(bool(found) or not within(measured))


def within(measured: dict[str, float]) -> bool:
    """Whether times and memory are as the module says."""
    memory_mib = measured["decoder_peak_mib"] + float(SETTINGS["REELFLOW_CONTENT_DECODE_MEMORY_MIB"])
    return (
        measured["medium_longest_s"] <= FETCH_S + DECODE_S + MARGIN_S + SLACK_S
        and measured["medium_peak_mib"] <= memory_mib
        and measured["worker_peak_mib"] - measured["worker_before_mib"] <= GROWTH_MIB
    )


if __name__ == "__main__":
    main()
