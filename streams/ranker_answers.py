"""What a ranker tells of itself; as `streams.answers`, of its own users and of the model it follows.

Every method but `readiness`, `version` and `registry` must run on the learner thread.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from schemas.records import EVENT_TYPES
from schemas.runs import Float32, Int32
from serving.gateway_models import ScoreRequest

from .ranker_core import RankerCore


class RankerAnswers:
    """Reads a `RankerCore`; changes nothing but gauges.

    Parameters
    ----------
    core : RankerCore
    model_lag : Callable[[], tuple[int, int]]
        Records of the model topics that are waited for, and those refused.
    """

    def __init__(self, core: RankerCore, model_lag: Callable[[], tuple[int, int]]) -> None:
        self._core = core
        self._model_lag = model_lag
        self._version = version("reelflow")
        core.metrics.info.labels(self._version, core.model_name, "cpu").set(1)

    @property
    def registry(self) -> CollectorRegistry:
        """Where the metrics live."""
        return self._core.metrics.registry

    def version(self) -> dict[str, str]:
        """Distribution version."""
        return {"name": "reelflow", "version": self._version}

    def readiness(self) -> dict[str, Any]:
        """Whether lists are being published, and what they wait for."""
        return dict(msgspec.structs.asdict(self._core.readiness))

    def refresh_gauges(self) -> None:
        """Set the gauges that are read rather than counted."""
        core, metrics = self._core, self._core.metrics
        metrics.users.set(sum(len(part.state.users) for part in core.partitions.values()))
        metrics.items.set(len(core.model.items))
        metrics.item_slots.set(core.item_table.ratio(len(core.model.names.items)))
        metrics.ready.set(core.ready)
        metrics.recovery.set(core.held.recovered_ratio())
        metrics.lag_records.set(core.lag_records())
        metrics.model_lag_records.set(self._model_lag()[0])
        metrics.model_age.set(core.model_age_s() or 0.0)
        withdrawn = core.model.catalogue.unavailable(int(core.now_s() * 1000))
        metrics.coverage.set(core.publisher.coverage.ratio(len(core.model.items), withdrawn, core.now_s()))

    def stats(self) -> dict[str, Any]:
        """The ranker's figures."""
        core = self._core
        counts = core.held.counts()
        return {
            "events_per_s": round(core.rate.per_second(core.now_s()), 1),
            "events_learned": counts.applied,
            "duplicates": counts.duplicates,
            "dead_letters": dict(counts.dead),
            "users_with_snapshot": core.publisher.n_users,
            "snapshots": core.publisher.n_snapshots,
            "pending_snapshots": core.n_pending(),
            "event_to_snapshot_p50_s": core.publisher.latencies.quantile(0.5),
            "event_to_snapshot_p99_s": core.publisher.latencies.quantile(0.99),
            "event_to_snapshot_held_back_p99_s": core.publisher.latencies_held.quantile(0.99),
            "committed": core.n_committed,
            "ready": core.ready,
            "recovered": core.held.recovered_ratio(),
            "lag_records": core.lag_records(),
            "partitions": sorted(core.partitions),
            "n_items": len(core.model.items),
            "n_users": sum(len(part.state.users) for part in core.partitions.values()),
            "model": self._model(),
        }

    def digest(self) -> dict[str, Any]:
        """Hashes of the user state, and counts, by partition."""
        core = self._core
        ids = core.model.names.items.ids
        parts = sorted(core.partitions.items())
        return {
            "users": {str(index): part.state.digest(ids) for index, part in parts},
            "counts": {str(index): msgspec.to_builtins(part.counts) for index, part in parts},
        }

    def user(self, user_id: str) -> dict[str, Any] | None:
        """A user's newest events, newest first; None for a user of a partition that is not held."""
        core = self._core
        facts, ids = core.model.names.facts, core.model.names.items
        for part in core.partitions.values():
            local = part.state.users.find(user_id)
            if local >= 0:
                break
        else:
            return None
        recent = []
        for item, kind, ts_ms in part.state.recent(local):
            known = facts.facts(item)
            recent.append(
                {
                    "item_id": ids.id_of(item),
                    "type": EVENT_TYPES[kind],
                    "ts_ms": int(ts_ms),
                    "title": known.title if known else None,
                    "tags": list(known.tags) if known else [],
                }
            )
        return {"user_id": user_id, "recent": recent, "session": int(part.state.session_index[local])}

    def score(self, user_id: str, asked: ScoreRequest) -> dict[str, Any] | None:
        """Probabilities stay with the learner."""
        return None

    def items(self, item_ids: list[str]) -> dict[str, Any]:
        """Catalogue facts of items."""
        return {"items": dict(self._core.model.names.facts.describe(item_ids))}

    def next_tags(self, tag: str, steps: int) -> dict[str, Any] | None:
        """The tag chain stays with the learner."""
        return None

    def similar(self, item_id: str, limit: int) -> dict[str, Any] | None:
        """Items watched by the same people around the same time, or close in the embedding."""
        model = self._core.model
        slot = model.items.find(item_id)
        if slot < 0:
            return None
        withdrawn = model.catalogue.unavailable(int(self._core.now_s() * 1000))
        items, scores = model.replica.ranker.similar_items(slot, limit, withdrawn)
        return {"item_id": item_id, "items": self._scored(items, scores)}

    def popular(self, limit: int) -> dict[str, Any]:
        """What is popular now; score is the item's decayed share of interest."""
        model = self._core.model
        popularity = model.replica.popularity
        withdrawn = model.catalogue.unavailable(int(self._core.now_s() * 1000))
        items = popularity.top(limit, 0, withdrawn=withdrawn)
        items = items[items >= 0]
        return {"items": self._scored(items, popularity.shares(0)[items])}

    def _model(self) -> dict[str, Any]:
        head = self._core.model.replica.head
        lag, refused = self._model_lag()
        age_s = self._core.model_age_s()
        return {
            "name": self._core.model_name,
            "epoch": None if head is None else head.epoch,
            "sequence": None if head is None else head.sequence,
            "events_learned": None if head is None else head.events_learned,
            "waiting_at_learner": None if head is None else head.n_waiting,
            "age_s": age_s,
            "stale": self._core.publisher.stale,
            "lag_records": lag,
            "refused": refused,
        }

    def _scored(self, items: Int32, scores: Float32) -> list[dict[str, Any]]:
        ids = self._core.model.items
        return [
            {"item_id": ids.id_of(int(item)), "score": round(float(score), 6)}
            for item, score in zip(items, scores, strict=True)
            if item >= 0
        ]
