"""A writer that journals, tells and checkpoints until it is killed; see test_checkpoint_kill.py."""

from __future__ import annotations

import sys

import numpy as np

from streams.checkpoint.epochs import Owner, claim
from streams.checkpoint.format import Cut
from streams.checkpoint.journal import JournalEntry, JournalRun
from streams.checkpoint.store import open_store


def main(url: str) -> None:
    """Claim, recover, say how far, go on; prints each sequence once it is durable."""
    tenure = claim(open_store(url), owner=Owner.here("writer"), take_over=False)
    base = tenure.base
    total = 0 if base is None else int(base.units["model"]["total"][0])
    for entry in tenure.tail():
        total += sum(run.next for run in entry.runs)
    sequence = tenure.end
    print("recovered", sequence, total, flush=True)
    while True:
        sequence += 1
        if sequence % 7 == 0:
            tenure.journal.append(JournalEntry(sequence=sequence, runs=[], kind="cut"))
            # Large enough to be killed while it is written.
            arrays = {"total": np.array([total]), "rest": np.zeros(500_000)}
            tenure.write(Cut(sequence=sequence, units={"model": arrays}, meta={}))
            tenure.prune(2)
        else:
            run = JournalRun(topic="t", partition=0, first=0, next=sequence)
            tenure.journal.append(JournalEntry(sequence=sequence, runs=[run]))
            total += sequence
            tenure.journal.wait_durable(sequence)
        print("told", sequence, total, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
