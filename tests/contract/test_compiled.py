"""Every compiled function lets other threads run, and is compiled once a machine."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from numba.core.registry import CPUDispatcher

PACKAGES = ("schemas", "learners", "serving", "streams")


@pytest.mark.parametrize("package", PACKAGES)
def test_compiled_functions_release_the_interpreter_and_are_cached(package: str) -> None:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        members: dict[str, Any] = vars(importlib.import_module(module.name))
        for name, member in members.items():
            if isinstance(member, CPUDispatcher):
                where = f"{module.name}.{name}"
                assert member.targetoptions.get("nogil"), f"{where} holds the interpreter"
                cache: Any = getattr(member, "_cache", None)
                assert cache.cache_path, f"{where} is compiled anew each time"


def test_there_are_some() -> None:
    from learners import transition_kernels
    from streams import record_kernels

    for module in (transition_kernels, record_kernels):
        assert any(isinstance(member, CPUDispatcher) for member in vars(module).values())
