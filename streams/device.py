"""How many threads the learner's work may have beside everything else that runs in a worker."""

from __future__ import annotations

import os

from schemas.fork_join import MOST, ForkJoin


def fork_join_of(threads: int) -> ForkJoin:
    """What shares large batches, by the setting `worker.threads`; 0 for as many as the cores allow."""
    return ForkJoin(threads or min(MOST, os.cpu_count() or 1))


def spare_cores() -> None:
    """Give numpy's matrix products half the cores too; before numpy is imported, and unless told otherwise.

    Its threads wait for work by spinning, and on two cores they would take one from the event loop and
    the broker. Every process that folds the same log takes the same number: sums depend on it.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))


def use_half_the_cores() -> int:
    """Give torch half the cores; more would fight with the event loop and the producer.

    Returns the number of threads. Sums depend on it: folding again takes the same number.
    """
    import torch

    n = max(1, (os.cpu_count() or 2) // 2)
    torch.set_num_threads(n)
    return n
