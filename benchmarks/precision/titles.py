"""A transformer of titles in several numbers, and with fewer heads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from schemas.content_settings import Precision
from streams.content.disk_models import SentenceModel
from streams.content.placement import Placement

from .heads import layers_of, weakest_first, without

N_SAMPLE = 96
"""Titles by which heads are chosen; no tag is looked at."""


def variants(folder: Path, titles: Sequence[str]) -> dict[str, Callable[[], SentenceModel]]:
    """What makes the model in each form; the heads are ranked here."""
    whole = SentenceModel(folder)
    sample = list(titles[:: max(1, len(titles) // N_SAMPLE)])
    ranked = weakest_first(network(whole), lambda: whole.encode(sample))

    def precise(precision: Precision) -> Callable[[], SentenceModel]:
        return lambda: SentenceModel(folder, Placement(precision=precision))

    def pruned(share: float, precision: Precision = "float32") -> Callable[[], SentenceModel]:
        def make() -> SentenceModel:
            model = precise(precision)()
            without(network(model), ranked[: round(share * len(ranked))])
            return model

        return make

    return {
        "float32": precise("float32"),
        "bfloat16": precise("bfloat16"),
        "float16": precise("float16"),
        "int8, dynamic": lambda: quantised(SentenceModel(folder)),
        "float32, a quarter of the heads cut": pruned(0.25),
        "float32, half of the heads cut": pruned(0.5),
        "bfloat16, a quarter of the heads cut": pruned(0.25, "bfloat16"),
    }


def network(model: SentenceModel) -> Any:
    """The module within."""
    return model._model  # noqa: SLF001 - what is measured is the inside


def quantised(model: SentenceModel) -> SentenceModel:
    """Linear layers with int8 weights, and inputs quantised as they come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch wants this done by another package
        for layer in layers_of(network(model)):
            quantize: Any = torch.ao.quantization.quantize_dynamic
            quantize(layer, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    return model
