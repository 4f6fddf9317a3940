"""Recall over time as one HTML file that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import Any, Final

WIDTH: Final = 960
HEIGHT: Final = 420
MARGIN: Final = 56
COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#0a7ea4", "#bf3989", "#57606a")

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; color: #1f2328; }
svg { width: 100%; height: auto; } text { font-size: 12px; fill: #57606a; }
polyline { fill: none; stroke-width: 2; } .grid { stroke: #d0d7de; }
.band { stroke: none; opacity: .12; } pre { overflow-x: auto; }
"""


def plot_html(report: dict[str, Any], text: str) -> str:
    """Windows with their 95 % intervals and the fading mean of every learner, and the tables below.

    Parameters
    ----------
    report : dict
        Of `report.prequential_report`.
    text : str
        Of `text.prequential_text`.
    """
    learners: dict[str, Any] = report["learners"]
    title = escape(f"{report['stream']['name']}: recall@20 over time")
    windows = {
        name: [(w["to"], w["value"], w["low"], w["high"]) for w in e["windows"]]
        for name, e in learners.items()
    }
    fading = {
        name: [
            (to, value, value, value)
            for to, value in zip(e["fading"]["to"], e["fading"]["recall_20"], strict=True)
        ]
        for name, e in learners.items()
    }
    body = "".join(
        f"<h2>{heading}</h2>{_chart(series)}"
        for heading, series in (
            ("Windows of 2 000 ranked events, with 95 % intervals", windows),
            ("Fading mean, an event of age a weighs 0.9999<sup>a</sup>", fading),
        )
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1>{legend(list(learners))}{body}<pre>{escape(text)}</pre></html>"
    )


def legend(names: list[str]) -> str:
    """Names in the colours of their lines."""
    entries = (
        f'<span style="color:{COLOURS[i % len(COLOURS)]}">&#9632; {escape(name)}</span>'
        for i, name in enumerate(names)
    )
    return "<p>" + " &nbsp; ".join(entries) + "</p>"


def _chart(series: dict[str, list[tuple[int, float, float | None, float | None]]]) -> str:
    points = [point for line in series.values() for point in line]
    right = max((point[0] for point in points), default=1)
    top = max((point[3] or point[1] for point in points), default=1.0) or 1.0

    def at(x: float, y: float) -> str:
        across = MARGIN + (WIDTH - 2 * MARGIN) * x / right
        down = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * max(y, 0.0) / top
        return f"{across:.1f},{down:.1f}"

    parts = []
    for i in range(6):
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * i / 5
        x = MARGIN + (WIDTH - 2 * MARGIN) * i / 5
        parts.append(
            f'<line class="grid" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="4" y="{y + 4:.1f}">{top * i / 5:.1%}</text>'
            f'<text x="{x:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{right * i / 5:,.0f}</text>'
        )
    for i, line in enumerate(series.values()):
        colour = COLOURS[i % len(COLOURS)]
        banded = [point for point in line if point[2] is not None and point[3] is not None]
        edge = [at(x, high or 0.0) for x, _, _, high in banded]
        edge += [at(x, low or 0.0) for x, _, low, _ in reversed(banded)]
        parts.append(f'<polygon class="band" fill="{colour}" points="{" ".join(edge)}"/>')
        places = " ".join(at(x, y) for x, y, _, _ in line)
        parts.append(f'<polyline stroke="{colour}" points="{places}"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="recall by event">{"".join(parts)}</svg>'
    )
