"""The report on new items for people."""

from __future__ import annotations

from typing import Any, Final

from .cold import best_baseline
from .content_contenders import ON_SHELF
from .text import percent, table

PARTS: Final = ("unseen", "few", "cold", "young", "warm", "all")


def signed(number: dict[str, Any]) -> str:
    """A difference and its 95 % interval, in points."""
    if number["value"] is None:
        return "-"
    value, low, high = (100 * (number[key] or 0.0) for key in ("value", "low", "high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def cold_text(report: dict[str, Any]) -> str:
    """Tables of recall@20 in percent, with 95 % intervals by user."""
    stream, found = report["stream"], report["contenders"]
    held = ", ".join(f"{n:,} with {name}" for name, n in stream["modalities"].items())
    head = "{events:,} events, {users:,} users, {items:,} items".format(**stream)
    lines = [
        f"{report['data_set']}: {head} ({held})",
        f"{stream['in_catalogue_at_first']:,} items are in the catalogue before the first event",
        "",
        "recall@20 of the full ranking by the target's events so far, percent:",
    ]
    rows = [["targets", *(f"{report['rows'][part]:,}" for part in PARTS), "", "", ""]]
    order = sorted(found, key=lambda name: -(found[name]["cold"]["recall_20"]["value"] or 0.0))
    for name in order:
        ahead = report["differences"].get(name, {})
        cost = report["cpu_us"][name]
        rows.append(
            [
                name,
                *(percent(found[name][part]["recall_20"]) for part in PARTS),
                signed(ahead["cold"]) if ahead else "",
                signed(ahead["warm"]) if ahead else "",
                f"{cost['rank']:.0f}, {cost['learn']:.0f}",
            ]
        )
    header = ["", "unseen (0)", "few (1-5)", "cold (0-5)", "young (6-20)", "warm (6+)", "all"]
    lines += table(
        [*header, "content ahead, cold", "content ahead, warm", "rank, learn us"],
        [row for row in rows if not row[0].endswith(ON_SHELF) or row[0].startswith("popularity")],
    )
    lines += ["", f"best without content, cold: {best_baseline(report)}", ""]
    lines.append("which of the new items (at most 5 events), where the target is one: recall@20, percent:")
    lines += table(
        ["", "unseen (0)", "few (1-5)", "cold (0-5)", "recall@100, cold", "content ahead, cold"],
        [
            [
                name.removesuffix(ON_SHELF),
                *(percent(found[name][part]["recall_20"]) for part in PARTS[:3]),
                percent(found[name]["cold"]["recall_100"]),
                signed(report["shelf_differences"][name]) if name in report["shelf_differences"] else "",
            ]
            for name in order
            if name.endswith(ON_SHELF)
        ],
    )
    lines += ["", f"best without content among new items: {best_baseline(report, on_shelf=True)}"]
    return "\n".join(lines)
