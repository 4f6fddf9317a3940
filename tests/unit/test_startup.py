"""What a start leaves out, and what it must not leave behind."""

from __future__ import annotations

import subprocess
import sys

LOADS = """
import gc, sys
from streams.context import collect_later
collect_later()
from streams.startup import load_array_functions, packages_loading, prepare_kernels
from schemas.settings import LearnerSettings, Settings
load_array_functions()
assert "numba.np.arraymath" in sys.modules
assert "scipy.linalg" not in sys.modules, "imported although nobody asks for it"
settings = Settings(learner=LearnerSettings(embeddings=False))
with packages_loading(settings):
    pass
assert "torch" not in sys.modules, "imported although nothing needs it"
prepare_kernels(settings)
assert "scipy.linalg" not in sys.modules, "a kernel needs it"
assert gc.isenabled(), "nothing would ever be collected"
import scipy.linalg, numpy
print(scipy.linalg.inv(numpy.eye(2)).tolist())
"""


def test_a_start_loads_neither_scipy_nor_an_unused_torch_and_ends_with_a_collector() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[[1.0, 0.0], [0.0, 1.0]]", "scipy is hidden for good"


def test_an_error_while_packages_load_is_the_one_that_is_told() -> None:
    code = """
from schemas.errors import TopicError
from schemas.settings import Settings
from streams.startup import packages_loading
with packages_loading(Settings()):
    raise TopicError("a topic is missing")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].endswith("TopicError: a topic is missing")
