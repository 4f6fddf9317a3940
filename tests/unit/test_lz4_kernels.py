"""LZ4 frames decoded together against the library: the same bytes, and nothing out of bounds."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pytest
import xxhash
from aiokafka.codec import lz4_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import record_opening
from streams.lz4_kernels import NOT_OURS, decode_frames, frame_sizes
from streams.record_opening import BatchOpener
from tests.message_sets import Batch, message_set

MOST = 1 << 20
MAGIC = struct.pack("<I", 0x184D2204)

lumpy = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.tuples(st.binary(min_size=1, max_size=3), st.integers(1, 600)).map(lambda one: one[0] * one[1]),
    ),
    max_size=8,
).map(b"".join)


def decode(*frames: bytes, most: int = MOST) -> list[bytes | None]:
    """Each frame decoded; None for what is left to the library."""
    ends = np.cumsum([len(frame) for frame in frames])
    spans = np.stack([ends - [len(frame) for frame in frames], ends], axis=1).astype(np.int64)
    data = np.frombuffer(b"".join(frames), dtype=np.uint8)
    sizes = np.empty(len(frames), dtype=np.int64)
    frame_sizes(data, spans, most, sizes)
    out = np.full(int(sizes[sizes != NOT_OURS].sum()) + 16, 0xAB, dtype=np.uint8)
    decode_frames(data, spans, sizes, out[:-16])
    assert (out[-16:] == 0xAB).all(), "written beyond the end"
    found: list[bytes | None] = []
    end = 0
    for n in sizes.tolist():
        if n == NOT_OURS:
            found.append(None)
            continue
        found.append(out[end : end + n].tobytes())
        end += n
    return found


def encode(data: bytes, **options: Any) -> bytes:
    compressor = cramjam.lz4.Compressor(**options)
    compressor.compress(data)
    return bytes(compressor.finish())


@settings(deadline=None, max_examples=300)
@given(st.lists(lumpy, min_size=1, max_size=4), st.booleans(), st.booleans(), st.sampled_from([1, 9]))
def test_frames_are_what_the_library_makes_of_them(
    texts: list[bytes], linked: bool, checksum: bool, level: int
) -> None:
    frames = [encode(text, level=level, content_checksum=checksum, block_linked=linked) for text in texts]
    assert decode(*frames) == texts
    assert decode(*map(lz4_encode, texts)) == texts


@pytest.mark.parametrize("linked", [False, True])
def test_many_blocks(linked: bool) -> None:
    rng = np.random.default_rng(1)
    text = b"".join(bytes(rng.integers(97, 101, 50, dtype=np.uint8)) * 3 for _ in range(2_000))
    assert len(text) > 4 * 65_536
    assert decode(encode(text, level=1, content_checksum=True, block_linked=linked)) == [text]
    noise = bytes(rng.integers(0, 256, 150_000, dtype=np.uint8))  # blocks that are stored as they are
    assert decode(encode(noise, level=1, content_checksum=False, block_linked=linked)) == [noise]


def plain(text: bytes) -> bytes:
    """The frame of `text` without checksums but the header's: only its data says what is wrong."""
    frame, body, at = encode(text, level=9, content_checksum=False, block_linked=False), b"", 7
    checksum = 4 if frame[4] & 0x10 else 0
    while n := struct.unpack_from("<I", frame, at)[0]:
        size = n & 0x7FFFFFFF
        body += frame[at : at + 4 + size]
        at += 4 + size + checksum
    head = bytes([0x60, frame[5]])
    return MAGIC + head + bytes([xxhash.xxh32_intdigest(head) >> 8 & 0xFF]) + body + bytes(4)


@settings(deadline=None, max_examples=500)
@given(lumpy.filter(bool), st.data())
def test_damaged_data_is_decoded_as_the_library_does_or_left_to_it(text: bytes, data: st.DataObject) -> None:
    frame = bytearray(plain(text))
    assert bytes(cramjam.lz4.decompress(bytes(frame))) == text
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(7, len(frame) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(frame)
    before, found = decode(b"".join([plain(b"abcabcabcabcabcabcabc")]), damaged)
    assert before == b"abcabcabcabcabcabcabc"
    try:
        by_library = bytes(cramjam.lz4.decompress(damaged))
    except cramjam.DecompressionError:
        return  # ours may be readable still: the library looks at how a block ends too
    if found is not None:
        assert found == by_library


BOUNDS = """
import sys
import numpy as np
from streams.lz4_kernels import decode_frames, frame_sizes

rng = np.random.default_rng(0)
frames = [bytes.fromhex(line) for line in sys.stdin.read().split()]
n_read = 0
for frame in frames:
    for _ in range(300):
        damaged = np.frombuffer(frame, dtype=np.uint8).copy()
        at = rng.integers(4, len(damaged), rng.integers(0, 4))
        damaged[at] = rng.integers(0, 256, len(at))
        damaged = damaged[: rng.integers(0, len(damaged) + 1)] if rng.random() < 0.3 else damaged
        spans = np.array([[0, len(damaged)]])
        sizes = np.empty(1, dtype=np.int64)
        frame_sizes(damaged, spans, 1 << 20, sizes)
        decode_frames(damaged, spans, sizes, np.empty(max(int(sizes[0]), 0), dtype=np.uint8))
        n_read += sizes[0] >= 0
assert 0 < n_read < 300 * len(frames), n_read
try:
    cut_off = np.frombuffer(frames[2][:20], np.uint8)
    frame_sizes(cut_off, np.array([[0, len(frames[2])]]), 1 << 20, np.empty(1, np.int64))
except IndexError:
    print("bounds are checked")
"""


def test_nothing_is_read_or_written_out_of_bounds(tmp_path: Path) -> None:
    """The kernels compiled with checks of every index, over damaged frames."""
    rng = np.random.default_rng(2)
    texts = [b"a", b"abc" * 50, bytes(rng.integers(97, 100, 900, dtype=np.uint8)), rng.bytes(70)]
    frames = [plain(text) for text in texts] + [lz4_encode(text) for text in texts]
    environ = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", BOUNDS],
        input="\n".join(frame.hex() for frame in frames),
        capture_output=True,
        text=True,
        timeout=240,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "bounds are checked\n"


def block(*parts: bytes, flags: int = 0x60, code: int = 0x40, size: bytes = b"") -> bytes:
    body = b"".join(parts)
    return MAGIC + bytes([flags, code]) + size + b"\x00" + struct.pack("<I", len(body)) + body + bytes(4)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (block(b"\x30abc\x04\x00", b"\x00"), "an offset beyond the beginning"),
        (block(b"\x30abc\x00\x00", b"\x00"), "an offset of nothing"),
        (block(b"\xf0\xff\xff"), "a length that does not end"),
        (block(b"\xf0" + b"\xff" * 400 + b"\x00"), "more literals than there are"),
        (block(b"\x31a"), "literals that are cut off"),
        (block(b"\x10a\x01"), "an offset that is cut off"),
        (block(b"\x10a\x01\x00"), "a match at the end"),
        (
            block(b"\x1fa\x01\x00" + b"\xff" * 300 + b"\x00" + b"\x10b"),
            "more than a block of 64 KiB may have",
        ),
        (block(b"\x10a", flags=0x61), "a dictionary"),
        (block(b"\x10a", flags=0x62), "a reserved bit"),
        (block(b"\x10a", flags=0xA0), "another version"),
        (block(b"\x10a", code=0x30), "blocks of a size that there is not"),
        (block(b"\x10a", flags=0x68, size=struct.pack("<Q", 2)), "another size than it says"),
        (block(b"\x10a")[:-1], "no end"),
        (block(b"\x10a") + b"\x00", "something behind the end"),
        (MAGIC + b"\x60\x40\x00" + struct.pack("<I", 1 << 30) + b"\x10a", "a block beyond the end"),
        (MAGIC + b"\x60\x40", "a header that is cut off"),
        (b"", "nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_frame_is_refused(frame: bytes, why: str) -> None:
    assert decode(frame) == [None], why


def test_frames_by_hand() -> None:
    assert decode(block(b"\x10a")) == [b"a"]
    assert decode(block(b"\x10a", flags=0x68, size=struct.pack("<Q", 1))) == [b"a"]
    assert decode(block(b"\x1fa\x01\x00" + b"\xff" * 200 + b"\x00" + b"\x10b")) == [
        b"a" * (1 + 4 + 15 + 255 * 200) + b"b"
    ]
    assert decode(MAGIC + b"\x60\x40\x00" + bytes(4)) == [b""]
    frame = block(b"\x10a")
    assert decode(frame, most=0) == [None]


def test_small_frames_are_decoded_here_whatever_stands_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large frame the library decodes more quickly."""
    calls: list[int] = []

    def library(payload: bytes) -> bytes:
        calls.append(len(payload))
        return bytes(cramjam.lz4.decompress(payload))

    monkeypatch.setitem(record_opening._DECODERS, 3, library)
    small = Batch(size=2, kept=[(place, b"k", b"value" * 20) for place in range(2)], codec="lz4")
    rng = np.random.default_rng(0)
    large = Batch(size=1, kept=[(0, b"k", bytes(rng.integers(0, 256, 9_000, dtype=np.uint8)))], codec="lz4")
    for log, n_calls in (([small] * 5, 0), ([small], 0), ([small, large, small], 1), ([large] * 2, 2)):
        calls.clear()
        opener = BatchOpener(message_set(log)[0], [])
        batches = []
        while not opener.ended:
            batches += opener.open(0)
        assert sum(batch.n - batch.first for batch in batches) == sum(len(one.kept) for one in log)
        assert len(calls) == n_calls


def test_frames_that_grow_much_are_opened_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_opening, "MOST_DATA_TOGETHER", 10_000)
    monkeypatch.setattr(record_opening, "MOST_TOGETHER", 64)
    log = [Batch(size=1, kept=[(0, b"k", b"v" * 6_000)], codec="lz4")] * 6
    opener = BatchOpener(message_set(log)[0], [])
    opened = []
    while not opener.ended:
        opened.append(len(opener.open(0)))
    assert opened == [2, 2, 2]
