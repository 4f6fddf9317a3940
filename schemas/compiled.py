"""How functions over arrays are compiled here.

Compiled code counts a reference to every array that it hands to another function: two locked
instructions, 5 nanoseconds each, which is more than a small function takes. Functions marked so
borrow their arrays instead, from the caller that holds them. So they cannot make arrays; what
they write into is given to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(function: _F) -> _F:
    """Compile a function that makes no array: without the interpreter's lock, kept on disk."""
    return njit(nogil=True, cache=True, _nrt=False)(function)


def reassociated(*flags: str) -> Callable[[_F], _F]:
    """As `kernel`, where sums may be taken in another order, so that they become vector code.

    `flags` are LLVM's fast-math flags beyond ``reassoc`` and ``contract``.
    """

    def compiled(function: _F) -> _F:
        fastmath = {"reassoc", "contract", *flags}
        return njit(nogil=True, cache=True, _nrt=False, fastmath=fastmath)(function)

    return compiled


def inlined(function: _F) -> _F:
    """As `kernel`, and compiled into each caller anew: for what is small, or called in one place."""
    return njit(nogil=True, cache=True, _nrt=False, forceinline=True)(function)
