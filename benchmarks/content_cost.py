"""What encoding costs: processor time an input of every default encoder, in batches and alone.

Run as ``python -m benchmarks.content_cost``; needs the extra ``content``, for covers ``ocr``. Inputs are made
on the spot, as the cost of encoders does not depend on what they show. Its last line is one JSON object.
`benchmarks.precision` has other numbers than float32.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click
import numpy as np
import torch

from schemas.errors import ExtraError
from streams.content.audio_encoder import LogMelEncoder
from streams.content.cover_text import SIDE, CoverReader
from streams.content.decoded import Film, Sound
from streams.content.encoder import Encoder
from streams.content.image_encoder import default_image_encoder
from streams.content.keywords import Keywords
from streams.content.text_encoder import SentenceEncoder
from streams.content.video_encoder import FrameEncoder

TITLES = (
    "三分钟学会做红烧肉，零失败的家常做法",
    "A day in the life of a lighthouse keeper",
    "周末带孩子去海边捡贝壳",
    "How to fix a bicycle chain without any tools",
)


def cost_ms(work: Callable[[], object], n: int) -> float:
    """Least processor time of three runs, ms by input."""
    work()
    costs = []
    for _ in range(3):
        start = time.process_time()
        work()
        costs.append(time.process_time() - start)
    return round(min(costs) / n * 1e3, 2)


def inputs() -> dict[str, list[Any]]:
    """Sixteen titles, pictures and sounds of ten seconds; two videos of eight frames."""
    generator = np.random.default_rng(1)
    pictures = list(generator.integers(0, 256, (16, 256, 256, 3), dtype=np.uint8))
    waves = [(0.1 * generator.standard_normal(160_000)).astype(np.float32) for _ in range(16)]
    times = np.arange(8, dtype=np.float32)
    return {
        "text": [f"{TITLES[n % 4]} {n}" for n in range(16)],
        "image": pictures,
        "audio": [Sound([wave], 16_000, 10.0) for wave in waves],
        "video": [Film(np.stack(pictures[n : n + 8]), times, 8.0, 256, 256, None, None) for n in (0, 8)],
    }


def cover_costs() -> dict[str, dict[str, float]]:
    """Of looking for words where there are none, and of reading two lines."""
    try:
        reader = CoverReader()
    except ExtraError as error:
        click.echo(f"covers: {error}")
        return {}
    import cv2

    bare = np.full((360, SIDE, 3), (40, 90, 160), dtype=np.uint8)
    words = bare.copy()
    for row, title in enumerate(("三分钟学会做红烧肉", "A lighthouse keeper")):
        cv2.putText(words, title, (30, 100 + 90 * row), (255, 255, 255), cv2.FontFace("uni"), 44, 500)
    return {
        "cover without words": {"alone_ms": cost_ms(partial(reader.read, bare), 1)},
        "cover with two lines": {"alone_ms": cost_ms(partial(reader.read, words), 1)},
    }


@click.command()
def main() -> None:
    """Print a table, and one JSON object."""
    torch.set_num_threads(1)
    images = default_image_encoder()
    encoders: Sequence[Encoder[Any]] = [SentenceEncoder(), images, LogMelEncoder(), FrameEncoder(images)]
    made = inputs()
    report: dict[str, dict[str, float]] = {}
    for encoder in encoders:
        batch = made[encoder.modality]
        report[encoder.name] = {
            "dims": encoder.dims,
            "batch_ms": cost_ms(partial(encoder.encode, batch), len(batch)),
            "alone_ms": cost_ms(partial(encoder.encode, batch[:1]), 1),
        }
    keywords = Keywords()
    report["keywords"] = {"alone_ms": cost_ms(lambda: [keywords.of(text) for text in made["text"]], 16)}
    report |= cover_costs()
    for name, costs in report.items():
        click.echo(f"{name:28}" + "  ".join(f"{what} {value:g}" for what, value in costs.items()))
    click.echo(json.dumps(report))


if __name__ == "__main__":
    main()
