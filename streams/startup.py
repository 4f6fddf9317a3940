"""What a role does before it reads: load packages, compile, and leave all that to no collection.

A start is what stands between kill -9 and the next list. Most of it is Python that runs once, so
what can wait for something else does so meanwhile, and nothing is looked at by the cyclic collector.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import structlog

from schemas.settings import Settings

from .context import collect_rarely
from .device import use_half_the_cores
from .record_opening import compile_reader
from .warm_up import warm_up

log = structlog.get_logger(__name__)

_HIDDEN = "scipy.linalg"


@contextmanager
def packages_loading(settings: Settings) -> Iterator[None]:
    """Import torch in another thread, where it is needed, while the body waits for a broker.

    At the end the import is over and torch has its threads, and what reads records is compiled.
    """
    # Waits at its end whatever the body raises: a process must not end in the middle of an import.
    with ThreadPoolExecutor(1, "torch") as pool:
        loading = pool.submit(importlib.import_module, "torch") if settings.learner.embeddings else None
        yield
        load_array_functions()
        compile_reader()
        if loading is not None:
            loading.result()
            use_half_the_cores()


def prepare_kernels(settings: Settings) -> None:
    """Run every kernel once, then leave everything that is alive out of collections from now on."""
    gc.freeze()
    log.info("warming_up")
    started = time.perf_counter()
    warm_up(settings)
    gc.collect()  # the scratch core and its tables
    gc.freeze()
    gc.enable()
    collect_rarely()
    log.info("warmed_up", seconds=round(time.perf_counter() - started, 2))


def load_array_functions() -> None:
    """Import numba's array functions without scipy, which takes half a second to import.

    They ask for scipy only to know whether `np.convolve` may use BLAS. No kernel here convolves; one
    that multiplies matrices would import scipy when it is compiled.
    """
    if _HIDDEN in sys.modules:
        return
    sys.modules[_HIDDEN] = None  # type: ignore[assignment] # how Python says: not to be imported
    try:
        importlib.import_module("numba.np.arraymath")
    except ImportError:  # a numba that cannot do without asks again, and finds it
        pass
    finally:
        del sys.modules[_HIDDEN]
