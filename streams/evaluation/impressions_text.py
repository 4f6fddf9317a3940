"""What an evaluation of probabilities found, for people: tables, and a page with reliability plots."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from .plot import COLOURS, STYLE, legend
from .text import table

COLUMNS: Final = ("auc", "user_auc", "logloss", "ece", "accuracy", "precision", "recall", "f1")
SIDE: Final = 420
MARGIN: Final = 48


def impressions_text(report: dict[str, Any]) -> str:
    """A table a target, and one without repeats."""
    lines = [
        "{name}: {impressions:,} impressions after {prior:,} watches, {scored:,} scored".format(
            **report["stream"]
        )
    ]
    for target, models in report["targets"].items():
        for heading, key in ((target, None), (f"{target}, without repeats", "without_repeats")):
            lines += ["", f"{heading}:"]
            rows = []
            for name, entry in models.items():
                found = entry if key is None else entry[key]
                figures = [_number(found[column]) for column in COLUMNS]
                rows.append([name, *figures, f"{entry['us_per_event']:.1f}"])
            lines += table(["model", *COLUMNS, "µs an event"], rows)
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def reliability_html(report: dict[str, Any], text: str) -> str:
    """Observed share against predicted probability in 15 bins, by target, and the tables below."""
    title = escape(f"{report['stream']['name']}: reliability of probabilities")
    body = "".join(
        f"<h2>{escape(target)}</h2>{legend(list(models))}{_chart(models)}"
        for target, models in report["targets"].items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1>{body}<pre>{escape(text)}</pre></html>"
    )


def _chart(models: dict[str, Any]) -> str:
    span = SIDE - 2 * MARGIN

    def at(x: float, y: float) -> tuple[float, float]:
        return MARGIN + span * x, SIDE - MARGIN - span * y

    parts = []
    for i in range(6):
        x, y = at(i / 5, i / 5)
        parts.append(
            f'<line class="grid" x1="{MARGIN}" x2="{SIDE - MARGIN}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="4" y="{y + 4:.1f}">{i / 5:.0%}</text>'
            f'<text x="{x:.1f}" y="{SIDE - 16}" text-anchor="middle">{i / 5:.0%}</text>'
        )
    (left, bottom), (right, top) = at(0, 0), at(1, 1)
    parts.append(f'<line class="grid" x1="{left}" y1="{bottom}" x2="{right}" y2="{top}"/>')
    for i, entry in enumerate(models.values()):
        colour = COLOURS[i % len(COLOURS)]
        places = [at(b["predicted"], b["observed"]) for b in entry["bins"]]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline stroke="{colour}" points="{line}"/>')
        for (x, y), b in zip(places, entry["bins"], strict=True):
            radius = 1.5 + (b["n"] / max(entry["n"], 1)) ** 0.5 * 10
            parts.append(
                f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
                f"<title>{b['n']:,}</title></circle>"
            )
    return (
        f'<svg viewBox="0 0 {SIDE} {SIDE}" style="max-width: 32rem" role="img" '
        f'aria-label="observed share by predicted probability">{"".join(parts)}</svg>'
    )
