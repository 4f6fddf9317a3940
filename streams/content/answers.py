"""What the content worker tells of itself on its port; as `streams.answers`."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from serving.gateway_models import ScoreRequest

from .core import ContentCore
from .encoders import MODALITIES

_FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
    "mean_precision": "map",
    "ece": "ece",
}


class ContentAnswers:
    """Reads a `ContentCore`; changes nothing but gauges."""

    def __init__(self, core: ContentCore) -> None:
        self._core = core
        self._version = version("reelflow")
        models = (core.encoders.slots[name].name for name in MODALITIES)
        core.metrics.info.labels(self._version, *models).set(1)

    @property
    def registry(self) -> CollectorRegistry:
        """Where the metrics live."""
        return self._core.metrics.registry

    def version(self) -> dict[str, str]:
        """Distribution version."""
        return {"name": "reelflow", "version": self._version}

    def readiness(self) -> dict[str, Any]:
        """Whether the catalogue is read, and has been up to where it ended at the start."""
        core = self._core
        partitions = len(core.held.partitions)
        reason = core.not_ready_because or ("" if core.ready else "the catalogue is being read")
        return {"ready": core.ready, "partitions": partitions, "reason": reason}

    def refresh_gauges(self) -> None:
        """Set the gauges that are read rather than counted."""
        core, metrics = self._core, self._core.metrics
        metrics.waiting.set(core.pipeline.n_waiting)
        metrics.scans.set(core.backfill.n_scans)
        metrics.lag_records.set(core.held.lag())
        metrics.ready.set(core.ready)
        metrics.known.set(len(core.index))
        metrics.regressed.set(core.index.n_regressed)
        metrics.replaced.set(core.pool.n_replaced)
        metrics.examples.set(core.tagging.n_examples)
        metrics.tags.set(core.tagging.n_tags)
        for name, value in self._figures().items():
            metrics.tag_quality.labels(name).set(math.nan if value is None else value)

    def stats(self) -> dict[str, Any]:
        """The content worker's figures."""
        core = self._core
        return {
            "ready": core.ready,
            "partitions": core.held.partitions,
            "lag_records": core.held.lag(),
            "waiting": core.pipeline.n_waiting,
            "items_done": core.n_done,
            "items_encoded": core.n_encoded,
            "items_known": len(core.index),
            "background_offered": core.backfill.n_offered,
            "scans": core.backfill.n_scans,
            "regressed": core.index.n_regressed,
            "refused": core.index.n_refused,
            "encoders": core.encoders.digest,
            "models": {
                name: {"model": slot.name, "version": slot.version, "dims": slot.dims}
                for name, slot in core.encoders.slots.items()
                if slot.name
            },
            "tagger": {"examples": core.tagging.n_examples, "tags": core.tagging.n_tags, **self._figures()},
        }

    def digest(self) -> dict[str, Any]:
        """Of what content is made with; it keeps no other state."""
        return {"encoders": self._core.encoders.digest}

    def user(self, user_id: str) -> dict[str, Any] | None:
        """Users are not known here."""
        return None

    def score(self, user_id: str, asked: ScoreRequest) -> dict[str, Any] | None:
        """Users are not known here."""
        return None

    def items(self, item_ids: list[str]) -> dict[str, Any]:
        """What is known of the content of items."""
        known = {item_id: self._core.index.known(item_id) for item_id in item_ids}
        return {"items": {item_id: one._asdict() for item_id, one in known.items() if one is not None}}

    def next_tags(self, tag: str, steps: int) -> dict[str, Any] | None:
        """The tag chain stays with the learner."""
        return None

    def similar(self, item_id: str, limit: int) -> dict[str, Any] | None:
        """Neighbours stay with those who make lists."""
        return None

    def popular(self, limit: int) -> dict[str, Any]:
        """Popularity stays with the learner."""
        return {"items": []}

    def _figures(self) -> dict[str, float | None]:
        figures = msgspec.structs.asdict(self._core.tagging.figures())
        return {
            name: None if math.isnan(figures[key]) else round(float(figures[key]), 6)
            for key, name in _FIGURES.items()
        }
