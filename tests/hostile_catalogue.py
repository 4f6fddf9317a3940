"""Items whose media want to harm the content worker, good ones among them, and what is to become of each."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from msgspec import Struct, structs

from schemas.media import MediaModality
from schemas.records import Item, MediaRefs

from . import media_files as make
from .content_rig import Catalogue, modalities
from .hostile_files import HOSTILE, Hostile

SETTINGS = {
    "REELFLOW_CONTENT_MAX_MEDIA_MIB": "1024",
    "REELFLOW_CONTENT_MAX_MEGAPIXELS": "200",
    "REELFLOW_CONTENT_DECODE_MEMORY_MIB": "160",
    "REELFLOW_CONTENT_PRIVATE_NETWORKS": '["127.0.0.1/32"]',
    "REELFLOW_CONTENT_RETRIES": "0",  # a further attempt at a server would be a further letter
}
"""Of the worker that the files are made for; fetch_s and decode_s besides."""

EACH_MODALITY: dict[MediaModality, dict[str, int]] = {
    "image": {"image": 1024},
    "audio": {"audio": 192},
    "video": {"audio": 192, "video": 1024},
}
"""Dimensions of the vectors of a good file."""


def endless(path: Path) -> None:
    """Ten frames, the last of them after two and a half hours."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        packets = []
        for n in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((64, 80, 3), 20 * n, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = n * 10_000, Fraction(1, 10)
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode(None)]:
            container.mux(packet)


AS_THE_WORKER_IS = (
    Hostile("endless.mp4", "video", "too_long", endless),
    Hostile("large.wav", "audio", "too_large", make.long_wav(140_000)),
)
"""In place of those of `HOSTILE` that ask for limits of their own; ``lengthy.wav`` goes by decode_s."""


class Case(Struct, frozen=True):
    """What an item refers to; `reason` is None for what is good."""

    name: str
    modality: MediaModality
    reference: str
    reason: str | None


def file_cases(folder: Path) -> list[Case]:
    """One of every kind of file that takes no time to refuse."""
    files = {one.name: one for one in (*HOSTILE, *AS_THE_WORKER_IS) if one.name != "lengthy.wav"}
    return [Case(one.name, one.modality, str(one.write(folder)), one.reason) for one in files.values()]


def slow_file(folder: Path) -> Case:
    """A sound whose decoding takes longer than a few seconds."""
    lengthy = next(one for one in HOSTILE if one.name == "lengthy.wav")
    return Case(lengthy.name, "audio", str(lengthy.write(folder)), "timeout")


def place_cases(folder: Path, slow_port: int, closed_port: int) -> list[Case]:
    """Places that lead nowhere, or where they must not."""
    return [
        Case("gone.png", "image", str(folder / "gone.png"), "not_found"),
        Case("elsewhere", "image", "/etc/hostname", "path_not_allowed"),
        Case("unlisted", "image", "http://other.example/a.png", "host_not_allowed"),
        Case("private", "image", "http://127.0.0.2/a.png", "private_address"),
        Case("closed", "video", f"http://127.0.0.1:{closed_port}/a.mp4", "unreachable"),
        Case("silent", "audio", f"http://127.0.0.1:{slow_port}/a.wav", "slow_server"),
    ]


def good_cases(folder: Path) -> list[Case]:
    """A picture, a sound and a film."""
    make.picture(folder / "good.jpg")
    make.sound(folder / "good.flac")
    make.film(folder / "good.mp4")
    names: dict[str, MediaModality] = {"good.jpg": "image", "good.flac": "audio", "good.mp4": "video"}
    return [Case(name, modality, str(folder / name), None) for name, modality in names.items()]


@contextmanager
def silent_server() -> Iterator[tuple[int, int]]:
    """Ports of a server that takes connections and says nothing, and of one that refuses them."""
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield silent.getsockname()[1], closed.getsockname()[1]


def mixed(hostile: Sequence[Case], n_hostile: int, good: Sequence[Case], n_good: int) -> dict[str, Case]:
    """Cases by item id, kind after kind, the good ones spread evenly among the others."""
    every = n_hostile // n_good
    cases: dict[str, Case] = {}
    for n in range(n_hostile):
        case = hostile[n % len(hostile)]
        cases[f"h{n}"] = case
        if n % every == every - 1 and (k := n // every) < n_good:
            cases[f"g{k}"] = good[k % len(good)]
    return cases


def items(cases: Mapping[str, Case]) -> list[Item]:
    """Catalogue records: no titles, so that nothing but the media speaks."""
    field = {"image": "cover", "audio": "audio", "video": "video"}
    return [
        Item(item_id=item_id, media=structs.replace(MediaRefs(), **{field[case.modality]: case.reference}))
        for item_id, case in cases.items()
    ]


def faults(catalogue: Catalogue, cases: Mapping[str, Case]) -> list[str]:
    """What is not as it should be: one dead letter a hostile item, vectors of each good one."""
    found = []
    letters = Counter(message.key().decode() for message in catalogue.messages(catalogue.names.catalogue_dlq))
    headers, contents = catalogue.letters(), catalogue.contents()
    for item_id, case in cases.items():
        told = headers.get(item_id, {}).get("reelflow_reason")
        if told != case.reason or letters[item_id] != (case.reason is not None):
            found.append(f"{case.name}: {letters[item_id]} letters, {told} instead of {case.reason}")
        if item_id not in contents:
            found.append(f"{case.name}: no content record")
            continue
        vectors = modalities(contents[item_id])
        if vectors != ({} if case.reason else EACH_MODALITY[case.modality]):
            found.append(f"{case.name}: vectors {vectors}")
    return found
