"""Children that end with their parent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from streams.processes import _ends_with


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
@pytest.mark.parametrize(("parent", "code"), [(os.getpid(), 0), (0, 1)], ids=["there", "gone"])
def test_a_child_whose_parent_is_gone_already_never_starts(parent: int, code: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], preexec_fn=_ends_with(parent))  # noqa: PLW1509
    assert child.wait(20) == code
