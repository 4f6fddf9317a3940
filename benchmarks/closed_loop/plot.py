"""Watch time by surface and policy as one SVG file."""

from __future__ import annotations

from html import escape
from typing import Any, Final

MEASURE: Final = "watch_s_per_session"
COLOURS: Final = ("#1f6feb", "#d1242f", "#9a6700", "#57606a")
WIDTH: Final = 960
HEIGHT: Final = 360
MARGIN: Final = 48


def plot_svg(result: dict[str, Any]) -> str:
    """Bars with their 95 % intervals, relative to hourly refit if there is one, else to the first policy."""
    policies = list(dict.fromkeys(p for found in result.values() for p in found if p != "over_refit"))
    bars = []
    for surface, found in result.items():
        base = found.get("hourly_refit", found[policies[0]])[MEASURE][0] or 1.0
        bars.append((surface, {p: [v / base for v in found[p][MEASURE]] for p in policies if p in found}))
    top = max((bar[2] for _, of in bars for bar in of.values()), default=1.0) or 1.0
    group = (WIDTH - 2 * MARGIN) / max(len(bars), 1)
    width = group * 0.8 / max(len(policies), 1)

    def down(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * value / top

    level = f'y1="{down(1.0):.1f}" y2="{down(1.0):.1f}"'
    parts = [f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" {level} stroke="#d0d7de" stroke-dasharray="4"/>']
    for i, (surface, of) in enumerate(bars):
        left = MARGIN + i * group
        middle = f"{left + 0.4 * group:.0f}"
        parts.append(f'<text x="{middle}" y="{HEIGHT - 20}" text-anchor="middle">{escape(surface)}</text>')
        for j, policy in enumerate(policies):
            if policy not in of:
                continue
            value, low, high = of[policy]
            x = left + j * width
            parts.append(
                f'<rect x="{x:.1f}" y="{down(value):.1f}" width="{0.9 * width:.1f}"'
                f' height="{HEIGHT - MARGIN - down(value):.1f}" fill="{COLOURS[j % len(COLOURS)]}"/>'
                f'<line x1="{x + 0.45 * width:.1f}" x2="{x + 0.45 * width:.1f}" y1="{down(low):.1f}"'
                f' y2="{down(high):.1f}" stroke="#1f2328"/>'
            )
    legend = "".join(
        f'<text x="{MARGIN + 150 * j}" y="20" fill="{colour}">&#9632; {escape(policy)}</text>'
        for j, (policy, colour) in enumerate(zip(policies, COLOURS, strict=False))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui"'
        f' font-size="12">{legend}{"".join(parts)}</svg>\n'
    )
