"""What the worker tells of itself: statistics, a user's recent events, similar and popular items.

Every method but `readiness`, `version` and `registry` must run on the learner thread.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from learners.evaluation import STREAM_METRICS, PrequentialBoard
from schemas.records import EVENT_TYPES, SURFACES
from serving.gateway_models import ScoreRequest

from .audit import digests_of
from .core import WorkerCore
from .probabilities import asked_at_ms

ACTIVE_USERS = 50
SMOOTHED = 10


class Answers:
    """Reads a `WorkerCore`; changes nothing but metrics."""

    def __init__(self, core: WorkerCore) -> None:
        self._core = core
        self._told: dict[tuple[str, str], float] = {}
        self._version = version("reelflow")
        metrics = core.metrics
        metrics.info.labels(self._version, core.settings.worker.model_name, core.model.device).set(1)

    @property
    def registry(self) -> CollectorRegistry:
        """Where the metrics live."""
        return self._core.metrics.registry

    def version(self) -> dict[str, str]:
        """Distribution version."""
        return {"name": "reelflow", "version": self._version}

    def readiness(self) -> dict[str, Any]:
        """Whether lists are being published, and how far the recovery has come."""
        return dict(msgspec.structs.asdict(self._core.readiness))

    def refresh_gauges(self) -> None:
        """Set the gauges that are read rather than counted."""
        core, metrics = self._core, self._core.metrics
        metrics.users.set(sum(len(part.state.users) for part in core.partitions.values()))
        metrics.items.set(len(core.model.items))
        metrics.item_slots.set(core.item_table.ratio(len(core.model.items)))
        metrics.ready.set(core.ready)
        metrics.tags_refused.set(core.model.tags.n_refused)
        metrics.recovery.set(core.recovered_ratio())
        lag = core.lag_records()
        metrics.lag_records.set(lag)
        metrics.lag_seconds.set(core.lag_seconds())
        metrics.coverage.set(self._coverage())
        metrics.scored_share.set(core.model.scoring.share)
        metrics.adapting.set(core.model.adaptation.is_on)
        for surface, rate in self._acceptance().items():
            metrics.acceptance.labels(surface).set(rate)
        metrics.heaviest_user.set(core.heavy.heaviest)
        if core.variants is not None:
            core.variants.refresh_gauges()
        board = core.model.board
        if board.n:
            self._tell_quality(board)

    def stats(self) -> dict[str, Any]:
        """The figures of the live page and of the report of `reelflow demo`."""
        core = self._core
        board = core.model.board
        quality: dict[str, dict[str, float | None]] = {
            name: {metric: value if board.n else None for metric, value in board.means(name).items()}
            for name in board.names
        }
        counts = core.held.counts()
        return {
            "events_per_s": round(core.rate.per_second(core.now_s()), 1),
            "events_learned": counts.applied,
            "duplicates": counts.duplicates,
            "dead_letters": counts.dead,
            "epoch": core.epoch,
            "sequence": core.sequence,
            "users_with_snapshot": core.publisher.n_users,
            "snapshots": core.publisher.n_snapshots,
            "pending_snapshots": core.n_pending(),
            "event_to_snapshot_p50_s": core.publisher.latencies.quantile(0.5),
            "event_to_snapshot_p99_s": core.publisher.latencies.quantile(0.99),
            "event_to_snapshot_held_back_p99_s": core.publisher.latencies_held.quantile(0.99),
            "n_scored": board.n,
            "scored_share": round(core.model.scoring.share, 4),
            "hit_rate_10": {name: quality[name]["hit_rate_10"] for name in board.names},
            "quality": quality,
            "quality_series": {metric: self._series(metric) for metric in STREAM_METRICS},
            "adapting": core.model.adaptation.is_on,
            "drifted": core.drifted,
            "acceptance": self._acceptance(),
            "catalogue_coverage": round(self._coverage(), 5),
            "committed": core.n_committed,
            "ready": core.ready,
            "recovered": core.recovered_ratio(),
            "lag_records": core.lag_records(),
            "active_users": self._active_users(),
            "heavy_users": dict(core.heavy.users()),
            "heavy_items": dict(core.heavy.items()),
            "variants": {} if core.variants is None else core.variants.stats(),
            "n_items": len(core.model.items),
            "n_users": sum(len(part.state.users) for part in core.partitions.values()),
            "device": core.model.device,
        }

    def _acceptance(self) -> dict[str, float]:
        """Mean reward of listed items since the last change, by surface with enough views."""
        watch = self._core.watch
        monitors = {} if watch is None else watch.monitors
        return {name: round(found.hit_rate, 4) for name, found in monitors.items() if found.width}

    def digest(self) -> dict[str, Any]:
        """Digests of the whole state at the sequence it has now; `reelflow audit --live` asks for it.

        Learning waits meanwhile: about a second for 200 000 users.
        """
        digests: dict[str, Any] = msgspec.to_builtins(digests_of(self._core))
        return digests

    def user(self, user_id: str) -> dict[str, Any] | None:
        """A user's newest events, newest first."""
        core = self._core
        for part in core.partitions.values():
            local = part.state.users.find(user_id)
            if local >= 0:
                break
        else:
            return None
        recent = []
        for item, kind, ts_ms in part.state.recent(local):
            facts = core.model.catalogue.facts(item)
            recent.append(
                {
                    "item_id": core.model.items.id_of(item),
                    "type": EVENT_TYPES[kind],
                    "ts_ms": int(ts_ms),
                    "title": facts.title if facts else None,
                    "tags": list(facts.tags) if facts else [],
                }
            )
        return {"user_id": user_id, "recent": recent, "session": int(part.state.session_index[local])}

    def score(self, user_id: str, asked: ScoreRequest) -> dict[str, Any] | None:
        """Probabilities of click, completion and like of items for a user; None where nobody learns them.

        About 8 microseconds an item.
        """
        core = self._core
        model, probability = core.model, core.model.probability
        if probability is None:
            return None
        slots = (part.model_user(user_id) for part in core.partitions.values())
        user = max(slots, default=-1)
        items = np.array([model.items.find(item_id) for item_id in asked.items], dtype=np.int32)
        surface = -1 if asked.surface is None else SURFACES.index(asked.surface)
        found = probability.scores(
            np.full(len(items), user, dtype=np.int32),
            items,
            asked_at_ms(probability, int(core.now_s() * 1000)),
            np.full(len(items), surface, dtype=np.int8),
        )
        return {
            "user_id": user_id,
            "known": user >= 0,
            "items": [
                {
                    "item_id": item_id,
                    "p_click": round(float(found.click[i]), 6),
                    "p_completion": round(float(found.long[i]), 6),
                    "p_like": round(float(found.like[i]), 6),
                    "ranking": round(float(found.ranking[i]), 6),
                    "known": bool(items[i] >= 0),
                }
                for i, item_id in enumerate(asked.items)
            ],
        }

    def items(self, item_ids: list[str]) -> dict[str, Any]:
        """Catalogue facts of items."""
        return {"items": dict(self._core.model.catalogue.describe(item_ids))}

    def next_tags(self, tag: str, steps: int) -> dict[str, Any] | None:
        """What is watched `steps` items after one with `tag`: a row of the tag chain's matrix power."""
        tags = self._core.model.tags
        try:
            row = tags.distribution(tag, steps)
        except KeyError:
            return None
        found = {name: round(float(p), 6) for name, p in zip(tags.tags.ids, row, strict=True) if p > 0}
        return {"tag": tag, "steps": steps, "next": found}

    def similar(self, item_id: str, limit: int) -> dict[str, Any] | None:
        """Items watched by the same people around the same time, or close in the embedding."""
        core = self._core
        slot = core.model.items.find(item_id)
        if slot < 0:
            return None
        items, scores = core.model.ranker.similar_items(slot, limit, core.unavailable())
        return {"item_id": item_id, "items": self._scored(items, scores)}

    def popular(self, limit: int) -> dict[str, Any]:
        """What is popular now; score is the item's decayed share of interest."""
        items, scores = self._core.model.popular(limit, self._core.unavailable())
        return {"items": self._scored(items, scores)}

    def _scored(self, items: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
        ids = self._core.model.items
        return [
            {"item_id": ids.id_of(int(item)), "score": round(float(score), 6)}
            for item, score in zip(items, scores, strict=True)
            if item >= 0
        ]

    def _tell_quality(self, board: PrequentialBoard) -> None:
        metrics = self._core.metrics
        for name in board.names:
            sums = board.sums(name)
            for metric, value in board.fading(name).items():
                metrics.quality.labels(name, metric).set(value)
                told = self._told.get((name, metric), 0.0)
                metrics.quality_sum.labels(name, metric).inc(max(sums[metric] - told, 0.0))
                self._told[name, metric] = sums[metric]
                if name != board.names[0]:
                    lead = board.lead(name, metric)
                    metrics.lead.labels(name, metric).set(lead.value)
                    metrics.lead_error.labels(name, metric).set(lead.se)

    def _series(self, metric: str) -> list[list[float]]:
        """Rows of (events scored, mean of each contender) over the newest `SMOOTHED` windows."""
        windows = self._core.model.board.series(metric)
        rows: list[list[float]] = []
        for i, (n, _) in enumerate(windows):
            means = np.mean([of_window for _, of_window in windows[max(0, i + 1 - SMOOTHED) : i + 1]], axis=0)
            rows.append([n, *means.round(5).tolist()])
        return rows

    def _coverage(self) -> float:
        core = self._core
        return core.publisher.coverage.ratio(len(core.model.items), core.unavailable(), core.now_s())

    def _active_users(self) -> list[str]:
        newest: list[tuple[int, str]] = []
        for part in self._core.partitions.values():
            n = len(part.state.users)
            times = part.state.last_broker_ts_ms[:n]
            if not n:
                continue
            newest += [
                (int(times[local]), part.state.users.id_of(int(local)))
                for local in np.argpartition(times, max(0, n - ACTIVE_USERS))[-ACTIVE_USERS:]
            ]
        newest.sort(reverse=True)
        return [user for _, user in newest[:ACTIVE_USERS]]
