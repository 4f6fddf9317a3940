"""A step of the encoder on a GPU as one captured graph.

A step is some 130 small operations. Launched one by one they take milliseconds of the CPU, for a
quarter of a millisecond of the GPU; a captured graph is launched as one. A graph has fixed shapes
and addresses: a step is copied to where the graph reads, padded to the next of a few shapes, and
what is padding changes nothing (weights 0, corrections -inf, histories -1). Rows are gathered from
the tables before and applied after, so tables may grow. What the host has goes over in one copy.

The same step gives the same bits each time: shapes follow from the step alone, and `row_sums`
keeps the order.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.runs import Float32, Int32, Int64

from .adagrad import DenseParameter, row_norms
from .embedding_options import EmbeddingOptions
from .embedding_rows import Numbered
from .embedding_step import MAX_ROWS, Dense, StepArrays, StepGradients, StepInput, gradients

_FEWEST_ITEMS: Final = 2_048
_FEWEST_NEGATIVES: Final = 32
_GROWTH: Final = 4
"""Shapes of real negatives are apart by this factor; of items by two."""

_WARM_UP: Final = 3


class StepShape(NamedTuple):
    """Sizes that a graph is captured for."""

    targets: int  # P
    negatives: int  # Q
    drawn: int  # C: more than are ever drawn, so that the last column is always closed
    items: int  # R
    history: int  # H

    @property
    def rows(self) -> int:
        """B, which is also the number of users."""
        return self.targets + self.negatives

    @classmethod
    def of(cls, step: StepArrays, n_items: int, options: EmbeddingOptions) -> StepShape:
        """The shape for a step of so many distinct items."""
        targets = min(options.step_targets, MAX_ROWS) * (1 + options.shifts)
        drawn = options.negatives + (options.step_targets if options.in_batch else 0) + 1
        negatives = _FEWEST_NEGATIVES
        while negatives < len(step.negative):
            negatives *= _GROWTH
        items = max(_FEWEST_ITEMS, 1 << (drawn - 1).bit_length(), 1 << max(n_items - 1, 0).bit_length())
        return cls(targets, negatives, drawn, items, step.history.shape[1])


class StepBuffers:
    """Where a graph reads its step, and the pinned memory it is written to first.

    Parameters
    ----------
    shape : StepShape
    device : torch.device
    """

    def __init__(self, shape: StepShape, device: torch.device) -> None:
        self.shape = shape
        b, p, c = shape.rows, shape.targets, shape.drawn
        integers = {
            "slots": shape.items, "history": b * shape.history, "user": b, "held": b,
            "target": p, "hit_columns": p, "negative": shape.negatives,
        }  # fmt: skip
        floats = {"weight": b, "target_correction": p, "correction": c, "share": c}
        n_bytes = 8 * sum(integers.values()) + 4 * sum(floats.values())
        self._host = torch.zeros(n_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
        self._there: dict[str, NDArray[Any]] = {}
        self.tensors: dict[str, Tensor] = {}
        at = 0
        for sizes, kind in ((integers, torch.int64), (floats, torch.float32)):
            for name, n in sizes.items():
                end = at + n * kind.itemsize
                self._there[name] = self._host[at:end].view(kind).numpy()
                self.tensors[name] = self._device[at:end].view(kind)
                at = end
        self.input = StepInput(
            history=self.tensors["history"].view(b, shape.history),
            hit_rows=torch.arange(p, device=device),
            **{name: self.tensors[name] for name in StepInput._fields if name not in {"history", "hit_rows"}},
        )

    def fill(self, step: StepArrays, slots: Int32, held: Int32) -> None:
        """Write a step, items `slots` (R',) and user rows `held` (U',), with its padding, and send it."""
        p, q, c, n = len(step.target), len(step.negative), len(step.correction), self.shape.targets
        there, closed = self._there, self.shape.drawn - 1
        _put(there["slots"], slots, 0)
        _put(there["held"], held, -1)
        history = there["history"].reshape(self.shape.rows, self.shape.history)
        for first, last, rows in ((0, n, slice(0, p)), (n, self.shape.rows, slice(p, p + q))):
            end = first + rows.stop - rows.start
            history[first:end], history[end:last] = step.history[rows], -1
            there["user"][first:end] = step.user[rows]
            there["user"][end:last] = np.arange(end, last)
            there["weight"][first:end], there["weight"][end:last] = step.weight[rows], 0.0
        if not c:  # nothing to compare a target with
            there["weight"][:n] = 0.0
        _put_rows(there["target"], step.target)
        _put(there["hit_columns"], np.where(step.target < c, step.target, closed), closed)
        _put_rows(there["negative"], step.negative)
        _put(there["target_correction"], step.target_correction, 0.0)
        _put(there["correction"], step.correction, -np.inf)
        _put(there["share"], step.share, 0.0)
        self._device.copy_(self._host, non_blocking=True)


class Found(NamedTuple):
    """A step's gradients for its R items and U users, their norms, and whether all of it is finite."""

    gradients: StepGradients
    item_norms: Tensor  # (R,)
    user_norms: Tensor  # (U,)
    finite: Tensor  # () bool


def found_of(step: StepInput, items: Tensor, users: Tensor, dense: Dense, options: EmbeddingOptions) -> Found:
    """Gradients, norms and check at the gathered rows; see `embedding_step.gradients`."""
    found = gradients(step, items, users, dense, options.loss, half=options.half)
    item_norms, user_norms = row_norms(found.items), row_norms(found.users)
    total = found.loss + item_norms.sum() + user_norms.sum()
    for gradient in found.dense:
        total = total + gradient.square().sum()
    return Found(found, item_norms, user_norms, torch.isfinite(total))


class CapturedStep:
    """A step of one shape: `run` gives its gradients, `apply_dense` moves the dense parameters.

    What `run` gave is overwritten by the next run of any step that shares the pool.
    """

    def __init__(
        self,
        shape: StepShape,
        dense: Dense,
        parameters: Mapping[str, DenseParameter],
        options: EmbeddingOptions,
        pool: Any,
    ) -> None:
        device, dim = dense.origin.device, len(dense.origin)
        self._buffers = StepBuffers(shape, device)
        self._items = torch.zeros(shape.items, dim, device=device)
        self._users = torch.zeros(shape.rows, dim, device=device)
        none = np.zeros(0, dtype=np.int32)
        self._buffers.fill(_nothing(shape.history), none, none)

        def moved(found: Found) -> None:
            for name, parameter in parameters.items():
                parameter.apply(getattr(found.gradients.dense, name))

        def step() -> Found:
            return found_of(self._buffers.input, self._items, self._users, dense, options)

        # Libraries begin before a capture, on a stream that is not the default one; torch does not type it.
        aside: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                moved(step())  # nothing but padding: all gradients are zero
        torch.cuda.current_stream(device).wait_stream(aside)
        self._step, self._moved = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Another thread may be reading from the tables meanwhile.
        with _no_collection():
            with torch.cuda.graph(self._step, pool=pool, capture_error_mode="thread_local"):
                self._found = step()
            with torch.cuda.graph(self._moved, pool=pool, capture_error_mode="thread_local"):
                moved(self._found)

    def run(self, step: StepArrays, slots: Int32, held: Int32, items: Tensor, users: Tensor) -> Found:
        """Gradients of a step whose rows are `slots` of the table `items` and `held` of `users`."""
        self._buffers.fill(step, slots, held)
        there = self._buffers.tensors
        torch.index_select(items, 0, there["slots"], out=self._items)
        if len(users):
            torch.index_select(users, 0, there["held"].clamp(min=0), out=self._users)
            self._users *= (there["held"] >= 0)[:, None]
        self._step.replay()
        found, norms = self._found.gradients, (self._found.item_norms, self._found.user_norms)
        n, m = len(slots), len(held)
        trimmed = found._replace(items=found.items[:n], users=found.users[:m])
        return Found(trimmed, norms[0][:n], norms[1][:m], self._found.finite)

    def apply_dense(self) -> None:
        """Move the dense parameters along the gradients of the last `run`."""
        self._moved.replay()

    def slots(self, n: int) -> Tensor:
        """The first `n` slots of the last `run`, on the device: (n,) int64."""
        return self._buffers.tensors["slots"][:n]


class CapturedSteps:
    """Graphs by shape, captured when one is first needed (a tenth of a second)."""

    def __init__(
        self, dense: Dense, parameters: Mapping[str, DenseParameter], options: EmbeddingOptions
    ) -> None:
        self._dense, self._parameters, self._options = dense, parameters, options
        self._pool = torch.cuda.graph_pool_handle()
        self._steps: dict[StepShape, CapturedStep] = {}

    def of(self, step: StepArrays, numbered: Numbered) -> CapturedStep:
        """The graph for a step."""
        shape = StepShape.of(step, len(numbered.slots), self._options)
        held = self._steps.get(shape)
        if held is None:
            held = self._steps[shape] = CapturedStep(
                shape, self._dense, self._parameters, self._options, self._pool
            )
        return held


@contextmanager
def _no_collection() -> Iterator[None]:
    """The collector may come upon a graph of a model that is gone, and its end would spoil the capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _nothing(history: int) -> StepArrays:
    rows, values = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    return StepArrays(
        history=np.zeros((0, history), dtype=np.int32), user=rows, weight=values, target=rows,
        target_correction=values, correction=values, share=values, negative=rows,
    )  # fmt: skip


def _put(there: Int64 | Float32, values: NDArray[Any], padding: float) -> None:
    there[: len(values)] = values
    there[len(values) :] = padding


def _put_rows(there: Int64, rows: Int32) -> None:
    """With each place of the padding a row of its own."""
    there[: len(rows)] = rows
    there[len(rows) :] = np.arange(len(rows), len(there))
