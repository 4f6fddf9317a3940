"""Tags from a picture, a title and a sound, Chinese titles beside English ones, and new items.

    python -m benchmarks.content [--data FOLDER] [--only tags,cold] [--cache FOLDER] [--seeds N]

New items: what `reelflow evaluate-content` prints of the data sets below FOLDER (or REELFLOW_DATA), with
further baselines; sets that are not there are left out, and said so.

Tags: fetches Debian's tuxpaint-stamps-default (161 MB) into the cache with apt-get. Tags are learned in one
pass from four fifths of the items in random order and given to the last fifth, which shares no title and no
subject with them; all folds are counted together, figures are means over the seeds (+- their standard
deviation).

Prints tables, and on the last line one JSON object; what did not run has no key of tags, and none of its data
sets under the keys of new items.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch

from learners.tag_metrics import TagFigures
from learners.tagger import TaggerOptions
from schemas.runs import Float32
from streams.evaluation.cold import COLD_SETS

from .cold import measure as measure_cold
from .stamps import fetch_stamps, read_stamps
from .tagging import Labelled, grouped, tagged
from .vectors import stamp_vectors

GATE, CONCAT = TaggerOptions(), TaggerOptions(kind="concat")
BOTH = ("text", "image")
ALL = ("text", "image", "audio")
VARIANTS: dict[str, tuple[tuple[str, ...], TaggerOptions, bool]] = {
    "title": (("text",), GATE, True),
    "image": (("image",), GATE, True),
    "audio": (("audio",), GATE, True),
    "concat": (BOTH, CONCAT, True),
    "fused": (BOTH, GATE, True),
    "concat_all": (ALL, CONCAT, True),
    "fused_all": (ALL, GATE, True),
    "title_without_tag_text": (("text",), GATE, False),
    "concat_without_tag_text": (BOTH, CONCAT, False),
    "fused_without_tag_text": (BOTH, GATE, False),
}
"""Modalities, options, and whether the tags' names are read."""

COLUMNS = ("top_accuracy", "mean_precision", "accuracy", "precision", "recall", "f1", "macro_f1", "ece")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(data: Labelled, seeds: int) -> dict[str, list[TagFigures]]:
    """Figures by variant, one a seed."""
    found = {}
    for name, (modalities, options, by_text) in VARIANTS.items():
        started = time.process_time()
        found[name] = [tagged(data, modalities, seed, options, by_text=by_text) for seed in range(seeds)]
        ms = (time.process_time() - started) / (seeds * 5 * len(data)) * 1e3
        say(f"{name}: {ms:.2f} ms of processor an item")
    return found


def table(title: str, found: dict[str, list[TagFigures]]) -> str:
    lines = [title, "| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, figures in found.items():
        cells = []
        for column in COLUMNS:
            values = [getattr(one, column) for one in figures]
            spread = f" +- {np.std(values):.3f}" if column == "top_accuracy" else ""
            cells.append(f"{np.mean(values):.3f}{spread}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first_twin(asked: Float32, titles: Float32) -> float:
    """Share of rows whose nearest row of the other matrix, by cosine, is their own."""
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (asked, titles)]
    return float(((unit[0] @ unit[1].T).argmax(axis=1) == np.arange(len(asked))).mean())


def mean(found: list[TagFigures], name: str) -> float:
    return round(float(np.mean([getattr(one, name) for one in found])), 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.content",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    default = Path(platformdirs.user_cache_dir("reelflow")) / "benchmarks"
    parser.add_argument("--cache", type=Path, default=default, help=f"default {default}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=os.environ.get("REELFLOW_DATA"), help="or REELFLOW_DATA")
    parser.add_argument("--only", default="tags,cold", help="tags, cold, or both (default)")
    parser.add_argument("--sets", default=",".join(COLD_SETS), help="of new items; default %(default)s")
    parser.add_argument("--limit", type=int, help="events of each data set")
    parser.add_argument(
        "--ablation", action="store_true", help="also reelflow that knows only how many events items had"
    )
    given = parser.parse_args()
    parts, sets = set(given.only.split(",")), given.sets.split(",")
    if parts - {"tags", "cold"} or set(sets) - set(COLD_SETS):
        parser.error("--only takes tags and cold, --sets some of " + ", ".join(COLD_SETS))
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    if "cold" in parts:
        report |= measure_cold(sets, given.data, say, limit=given.limit, ablation=given.ablation)
    if "tags" in parts:
        report |= measure_tags(given.cache, given.seeds)
    print(json.dumps(report))


def measure_tags(cache: Path, seeds: int) -> dict[str, Any]:
    """Print the tables of tags and titles, and give their keys of the JSON object."""
    stamps = read_stamps(fetch_stamps(cache))
    vectors = stamp_vectors(stamps, cache, say)
    stems = [stamp.name.rsplit("/", 1)[1] for stamp in stamps]
    data = Labelled(
        vectors={name: vectors[name] for name in ALL},
        tags=[stamp.tag for stamp in stamps],
        tag_texts=dict(zip(sorted({stamp.tag for stamp in stamps}), vectors["tag"], strict=True)),
        groups=grouped([stamp.title for stamp in stamps], stems),
    )
    has_picture = np.isfinite(vectors["image"]).all(axis=1)
    with_picture = measure(data.only(np.flatnonzero(has_picture)), seeds)
    everything = measure(data, seeds)
    print(table(f"{has_picture.sum()} items with a picture", with_picture), end="\n\n")
    print(table(f"all {len(stamps)} items, {(~has_picture).sum()} without a picture", everything), end="\n\n")
    both = np.isfinite(vectors["text"]).all(axis=1) & np.isfinite(vectors["text_zh"]).all(axis=1)
    zh_to_en = first_twin(vectors["text_zh"][both], vectors["text"][both])
    print(f"Chinese title finds its English twin first among {both.sum()}: {zh_to_en:.3f}")
    names = {"fused": "fused", "title": "title", "image": "image", "concat": "concat"}
    return (
        {f"tag_accuracy_{key}": mean(with_picture[name], "top_accuracy") for key, name in names.items()}
        | {"tag_map_fused": mean(with_picture["fused"], "mean_precision")}
        | {"tag_accuracy_fused_all_items": mean(everything["fused_all"], "top_accuracy")}
        | {"zh_to_en_first": round(zh_to_en, 4)}
    )


if __name__ == "__main__":
    main()
