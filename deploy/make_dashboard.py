"""Writes deploy/grafana/dashboards/reelflow.json; a test holds the file to this script and to the metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parent / "grafana" / "dashboards" / "reelflow.json"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}

Query = tuple[str, str]
LATENCY = "histogram_quantile({q}, sum by (le) (rate({name}_bucket[1m])))"

RATE = "rate(reelflow_{}_total{}[{}])"
LEAD = 'reelflow_lead_ratio{metric="recall_20"}'
LEAD_ERROR = 'reelflow_lead_error_ratio{metric="recall_20"}'

PANELS: list[tuple[str, str, str, list[Query]]] = [
    ("Ready", "stat", "none", [("reelflow_ready", "ready")]),
    (
        "Events a second",
        "timeseries",
        "ops",
        [("sum by (outcome) (rate(reelflow_events_total[1m]))", "{{outcome}}")],
    ),
    (
        "Event to snapshot",
        "timeseries",
        "s",
        [
            (LATENCY.format(q=0.5, name="reelflow_event_to_snapshot_seconds"), "p50"),
            (LATENCY.format(q=0.99, name="reelflow_event_to_snapshot_seconds"), "p99"),
            (LATENCY.format(q=0.99, name="reelflow_event_to_snapshot_held_back_seconds"), "p99, held back"),
        ],
    ),
    (
        "Recall@20 of the next watched item",
        "timeseries",
        "percentunit",
        [('reelflow_quality_ratio{metric="recall_20"}', "{{contender}}")],
    ),
    (
        "Ahead of others (recall@20), plus and minus two standard errors",
        "timeseries",
        "percentunit",
        [
            (f"{LEAD} {sign}", f"{{{{contender}}}}{label}")
            for sign, label in (
                ("", ""),
                (f"+ 2 * {LEAD_ERROR}", ", upper"),
                (f"- 2 * {LEAD_ERROR}", ", lower"),
            )
        ],
    ),
    (
        "Hit rate@10, nDCG@10 and MRR@20 of the next watched item",
        "timeseries",
        "percentunit",
        [('reelflow_quality_ratio{metric!="recall_20"}', "{{contender}} {{metric}}")],
    ),
    (
        "Recall@20 of the last five minutes",
        "timeseries",
        "percentunit",
        [
            (
                RATE.format("quality", '{metric="recall_20"}', "5m")
                + " / ignoring(contender, metric) group_left "
                + RATE.format("scored_events", "", "5m"),
                "{{contender}}",
            )
        ],
    ),
    (
        "Share of events scored, share of the catalogue in lists",
        "timeseries",
        "percentunit",
        [
            ("reelflow_scored_share_ratio", "scored"),
            ("reelflow_catalogue_coverage_ratio", "in lists"),
        ],
    ),
    (
        "Time of scoring",
        "timeseries",
        "s",
        [
            (
                RATE.format("scoring_seconds", "", "1m")
                + " / ignoring(outcome) "
                + RATE.format("events", '{outcome="applied"}', "1m"),
                "an event learned",
            ),
            (
                "rate(reelflow_scoring_seconds_total[1m]) / rate(reelflow_scored_events_total[1m])",
                "an event scored",
            ),
        ],
    ),
    ("Snapshots a second", "timeseries", "ops", [("rate(reelflow_snapshots_total[1m])", "snapshots")]),
    (
        "Dead letters a second",
        "timeseries",
        "ops",
        [("sum by (input, reason) (rate(reelflow_dead_letters_total[1m]))", "{{input}} {{reason}}")],
    ),
    ("Lag", "timeseries", "short", [("reelflow_lag_records", "records")]),
    ("Lag in seconds", "timeseries", "s", [("reelflow_lag_seconds", "seconds")]),
    (
        "Where the learner thread spends its time",
        "timeseries",
        "percentunit",
        [("rate(reelflow_stage_seconds_total[1m])", "{{stage}}")],
    ),
    (
        "Newest checkpoint",
        "timeseries",
        "s",
        [
            ("time() - reelflow_checkpoint_timestamp_seconds", "age"),
            ("reelflow_checkpoint_write_seconds", "time to write"),
        ],
    ),
    ("Users and items", "timeseries", "short", [("reelflow_users", "users"), ("reelflow_items", "items")]),
    (
        "Events in gradient steps, events scored",
        "timeseries",
        "ops",
        [
            ("rate(reelflow_stepped_events_total[1m])", "in gradient steps"),
            ("rate(reelflow_scored_events_total[1m])", "scored"),
        ],
    ),
    ("Runs waiting", "timeseries", "short", [("reelflow_queue_runs", "runs")]),
    (
        "Changes found, steps discarded, events lost",
        "timeseries",
        "short",
        [
            ("increase(reelflow_hit_rate_changes_total[5m])", "changes of the hit rate"),
            ("increase(reelflow_nonfinite_steps_total[5m])", "steps discarded"),
            ("increase(reelflow_lost_events_total[5m])", "events lost"),
        ],
    ),
    (
        "What viewers make of listed items, by surface",
        "timeseries",
        "percentunit",
        [
            ("reelflow_acceptance_ratio", "{{surface}}"),
            ("reelflow_adapting", "adapting"),
            ("increase(reelflow_drifts_total[5m]) > 0", "drift on {{surface}}"),
        ],
    ),
    (
        "Variants of lists: share, and what viewers make of their items",
        "timeseries",
        "percentunit",
        [
            ("reelflow_variant_share_ratio", "{{variant}}, share"),
            ("reelflow_variant_reward_ratio", "{{variant}}, reward"),
            ("reelflow_heaviest_user_ratio", "events of the heaviest user"),
        ],
    ),
    (
        "Share of the log folded at start",
        "timeseries",
        "percentunit",
        [("reelflow_recovery_ratio", "recovered")],
    ),
    (
        "Catalogue item to vectors and tags",
        "timeseries",
        "s",
        [
            (LATENCY.format(q=0.5, name="reelflow_item_to_content_seconds"), "p50"),
            (LATENCY.format(q=0.99, name="reelflow_item_to_content_seconds"), "p99"),
        ],
    ),
    (
        "Tags before they are learned",
        "timeseries",
        "percentunit",
        [("reelflow_tagger_quality_ratio", "{{metric}}")],
    ),
    (
        "Gateway requests a second",
        "timeseries",
        "ops",
        [("sum by (status) (rate(reelflow_gateway_requests_total[1m]))", "{{status}}")],
    ),
]


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it: two panels a row."""
    panels = [
        {
            "id": i + 1,
            "title": title,
            "type": kind,
            "datasource": DATASOURCE,
            "gridPos": {"h": 8, "w": 12, "x": 12 * (i % 2), "y": 8 * (i // 2)},
            "fieldConfig": {
                "defaults": {"unit": unit} if title.startswith("Ahead") else {"unit": unit, "min": 0},
                "overrides": [],
            },
            "options": {},
            "targets": [
                {"refId": chr(ord("A") + j), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE}
                for j, (expr, legend) in enumerate(queries)
            ],
        }
        for i, (title, kind, unit, queries) in enumerate(PANELS)
    ]
    return {
        "uid": "reelflow",
        "title": "reelflow",
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "tags": ["reelflow"],
        "panels": panels,
    }


if __name__ == "__main__":
    OUTPUT.write_text(json.dumps(dashboard(), indent=2) + "\n", encoding="utf-8")
