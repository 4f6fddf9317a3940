"""The report for people."""

from __future__ import annotations

from typing import Any, Final

COLUMNS: Final = ("recall_20", "recall_10", "ndcg_10", "mrr_20")


def percent(number: dict[str, Any]) -> str:
    """A mean and half its 95 % interval, in percent."""
    if number["value"] is None:
        return "-"
    half = "" if number["se"] is None else f" ± {196 * number['se']:.1f}"
    return f"{100 * number['value']:.1f}{half}"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown, columns aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


def settings_lines(settings: dict[str, Any]) -> list[str]:
    """What reelflow learned with that is not the default."""
    if not settings:
        return []
    return ["reelflow with " + ", ".join(f"learner.{key} = {value}" for key, value in settings.items())]


def prequential_text(report: dict[str, Any]) -> str:
    """Tables of a prequential run; percent, with 95 % intervals by user."""
    stream, learners = report["stream"], report["learners"]
    lines = [
        "{name}: {events:,} events, {users:,} users, {items:,} items".format(**stream),
        "{asked:,} of {targets:,} targets ranked; {targets_on_unseen_items:,} on items new to all".format(
            **stream
        ),
        *settings_lines(report["settings"]),
        "",
        "last fifth of the stream, percent:",
    ]
    rows = []
    for name, entry in learners.items():
        means = entry["segments"]["last_fifth"]
        rows.append(
            [
                name,
                *(percent(means[metric]) for metric in COLUMNS),
                f"{entry['rank_us']:.0f}",
                f"{entry['learn_us']:.1f}",
                f"{entry['events_per_s']:,.0f}",
            ]
        )
    lines += table(["learner", *COLUMNS, "rank µs", "learn µs", "events/s"], rows)
    segments = list(next(iter(learners.values()))["segments"])
    lines += ["", "recall_20 by part of the stream, percent:"]
    lines += table(
        ["part", "events", *learners],
        [
            [
                segment,
                f"{next(iter(learners.values()))['segments'][segment]['recall_20']['n']:,}",
                *(percent(entry["segments"][segment]["recall_20"]) for entry in learners.values()),
            ]
            for segment in segments
        ],
    )
    listed = {name: entry["lists"] for name, entry in learners.items() if "lists" in entry}
    if listed:
        keys = list(next(iter(listed.values())))
        lines += ["", "lists of 20:"]
        lines += table(
            ["learner", *keys],
            [
                [name, *("-" if found[key] is None else f"{found[key]:.3f}" for key in keys)]
                for name, found in listed.items()
            ],
        )
    return "\n".join(lines + difference_lines(report["differences"]))


def frozen_text(report: dict[str, Any]) -> str:
    """Table of a frozen run: means over the ranked phases, percent."""
    stream = report["stream"]
    lines = [f"{stream['name']}: {stream['asked']:,} events ranked, {stream['items']:,} items"]
    lines += [*settings_lines(report["settings"]), ""]
    rows = [
        [
            name,
            *(percent(entry["metrics"][metric]) for metric in (*COLUMNS, "recall_100")),
            f"{entry['rank_us']:.0f}",
            f"{entry['learn_us']:.1f}",
        ]
        for name, entry in report["learners"].items()
    ]
    lines += table(["learner", *COLUMNS, "recall_100", "rank µs", "learn µs"], rows)
    return "\n".join(lines + difference_lines(report["differences"]))


def difference_lines(differences: dict[str, Any]) -> list[str]:
    """Paired differences, where there is a reference."""
    if not differences:
        return []
    lines = ["", f"{differences['reference']} minus the other, points, same events:"]
    rows = []
    for name, entry in differences["to"].items():
        where = "-"
        if worst := entry.get("worst_window"):
            points = 100 * worst["difference"]
            where = f"{worst['standard_errors']:+.1f} se ({points:+.1f}) in {worst['from']:,}-{worst['to']:,}"
        rows.append([name, *(percent(entry[metric]) for metric in COLUMNS), where])
    return lines + table(["other", *COLUMNS, f"worst window of {differences['window']:,}"], rows)
