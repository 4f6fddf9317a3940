"""Taking turns without a lock: compiled loops on several threads share the rows of one batch.

Rows divided beforehand leave the quicker thread waiting for the slower one, and how quick each is nobody
knows: the machine's other work decides. So a thread claims a few rows, works through them, and claims more
until none are left. Which thread has a row changes from run to run; what comes of it must not depend on that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from schemas.compiled import inlined
from schemas.runs import Int64


def _generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    first = builder.gep(array.data, [ir.IntType(64)(0)])
    return builder.atomic_rmw("add", first, args[1], "monotonic")


@intrinsic
def _fetch_add(_typing: Any, turn: Any, _n: Any) -> tuple[Any, Callable[..., Any]]:
    return types.int64(turn, types.int64), _generate


@inlined
def claim(turn: Int64, n: int) -> int:
    """Add `n` to ``turn[0]`` and return what it was, as one step for all threads.

    `turn` (1,) int64. Callable from compiled code only. Nothing else is ordered by it: results are read
    after the threads have been joined.
    """
    return int(_fetch_add(turn, n))
