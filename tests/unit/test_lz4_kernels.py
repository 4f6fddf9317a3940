"""LZ4 frames decoded together against the library: the same bytes, and nothing out of bounds."""

from __future__ import annotations

import struct
from typing import Any

import cramjam
import numpy as np
import pytest
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


@settings(deadline=None, max_examples=400)
@given(lumpy, st.data())
def test_damage_is_left_to_the_library_or_decoded_as_it_does(text: bytes, data: st.DataObject) -> None:
    frame = bytearray(lz4_encode(text))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    damaged = (
        bytes(frame[: data.draw(st.integers(0, len(frame)))]) if data.draw(st.booleans()) else bytes(frame)
    )
    whole = lz4_encode(b"abcabcabcabcabcabcabc")
    before, found, after = decode(whole, damaged, whole)
    assert before == after == b"abcabcabcabcabcabcabc"
    if found is None:
        return
    # Bytes 4 to 6 say how to read the frame and are checked by the library alone, as are its checksums.
    try:
        by_library = bytes(cramjam.lz4.decompress(damaged))
    except cramjam.DecompressionError:
        return
    assert found == by_library


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


def test_only_small_frames_of_several_batches_are_decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, the library takes one call; a large frame it decodes more quickly."""
    calls: list[int] = []

    def library(payload: bytes) -> bytes:
        calls.append(len(payload))
        return bytes(cramjam.lz4.decompress(payload))

    monkeypatch.setitem(record_opening._DECODERS, 3, library)
    small = Batch(size=2, kept=[(place, b"k", b"value" * 20) for place in range(2)], codec="lz4")
    rng = np.random.default_rng(0)
    large = Batch(size=1, kept=[(0, b"k", bytes(rng.integers(0, 256, 9_000, dtype=np.uint8)))], codec="lz4")
    for log, n_calls in (([small] * 5, 0), ([small], 1), ([small, large, small], 1), ([large] * 2, 2)):
        calls.clear()
        opener = BatchOpener(message_set(log)[0], [])
        batches = []
        while not opener.ended:
            batches += opener.open(0)
        assert sum(batch.n - batch.first for batch in batches) == sum(len(one.kept) for one in log)
        assert len(calls) == n_calls
