"""The columnar reader against aiokafka's own: the same records, positions and refusals."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.payloads import Payloads
from streams import record_opening
from streams.record_batches import BatchReader, Records
from streams.record_kernels import crc32c
from tests.message_sets import APPEND_MS, BASE_MS, CODECS, Batch, aborted, encode, message_set

MANY, MUCH = 1 << 20, 1 << 30
Row = tuple[int, int, bytes | None, bytes | None]

headers = st.tuples(st.sampled_from(["", "h", "\u00fc"]), st.none() | st.binary(max_size=5))
payloads = st.none() | st.binary(max_size=40) | st.binary(min_size=100, max_size=300)


@pytest.fixture(scope="module", autouse=True, params=[None, (1, 1, 1), (3, 1 << 16, 100), (64, 200, 1 << 20)])
def _together(request: pytest.FixtureRequest) -> Iterator[None]:
    """How many batches, bytes, and bytes uncompressed are opened together makes no difference."""
    with pytest.MonkeyPatch.context() as patch:
        names = ("MOST_TOGETHER", "MOST_BYTES_TOGETHER", "MOST_DATA_TOGETHER")
        for name, most in zip(names, request.param or (), strict=request.param is not None):
            patch.setattr(record_opening, name, most)
        yield


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    size = draw(st.integers(1, 8))
    producer = draw(st.integers(0, 2))
    if draw(st.integers(0, 4)) == 0:
        marker = draw(st.sampled_from(["abort", "commit"]))
        return Batch(size=1, kept=[], producer=producer, marker=marker)
    kept = [(place, draw(payloads), draw(payloads)) for place in range(size) if draw(st.integers(0, 3))]
    return Batch(
        size=size,
        kept=kept,
        headers=draw(
            st.lists(
                st.tuples(st.sampled_from(["", "h", "\u00fc"]), st.none() | st.binary(max_size=5)), max_size=2
            )
        ),
        codec=draw(st.sampled_from(list(CODECS))) if kept else "none",  # as brokers write an empty one
        producer=producer if draw(st.booleans()) else -1,
        transactional=False,
        append_time=draw(st.booleans()),
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Batch]:
    drawn = draw(st.lists(batches(), min_size=1, max_size=10))
    for batch in drawn:
        if not batch.marker and batch.producer >= 0:
            batch.transactional = True
    return drawn


def by_aiokafka(data: bytes, wanted: int, aborts: list[tuple[int, int]]) -> tuple[list[Row], int]:
    tp: Any = TopicPartition("t", 0)
    records: Any = PartitionRecords(tp, MemoryRecords(data), aborts, wanted, None, None, True, READ_COMMITTED)
    rows = [(one.offset, one.timestamp, one.key, one.value) for one in records]
    return rows, records.next_fetch_offset


def rows_of(records: Records) -> list[Row]:
    columns = records.offsets.tolist(), records.timestamps_ms.tolist(), records.keys, records.values
    return list(zip(*columns, strict=True))


def by_us(
    data: bytes, wanted: int, aborts: list[tuple[int, int]], limits: list[int] | None = None, much: int = MUCH
) -> tuple[list[Row], int]:
    reader = BatchReader(data, aborts, wanted)
    rows: list[Row] = []
    cycle = limits or [MANY]
    turn = 0
    while not reader.exhausted:
        limit = cycle[turn % len(cycle)]
        turn += 1
        before = reader.position
        got = reader.take(limit, much)
        assert len(got.offsets) <= limit
        assert reader.position >= before
        assert got.offsets.dtype == got.timestamps_ms.dtype == np.int64
        if len(got.offsets):
            assert before <= got.offsets[0]
            assert got.offsets[-1] < reader.position
        rows += rows_of(got)
    assert not reader.doubtful
    return rows, reader.position


@settings(deadline=None)
@given(logs(), st.integers(0, 3), st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 400))
def test_it_reads_what_aiokafka_reads(log: list[Batch], first: int, limits: list[int], much: int) -> None:
    data, end = message_set(log, first)
    aborts = aborted(log, first)
    expected = by_aiokafka(data, first, aborts)
    assert expected[1] == end
    assert by_us(data, first, aborts) == expected
    assert by_us(data, first, aborts, limits, much) == expected


@settings(deadline=None)
@given(logs(), st.data())
def test_it_begins_inside_a_batch(log: list[Batch], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, log[0].size - 1))
    encoded, end = message_set(log)
    rows, position = by_us(encoded, wanted, aborted(log))
    everything, _ = by_aiokafka(encoded, 0, aborted(log))
    assert rows == [row for row in everything if row[0] >= wanted]
    assert position == end


@settings(deadline=None)
@given(logs(), st.data())
def test_a_cut_off_tail_is_left(log: list[Batch], data: st.DataObject) -> None:
    encoded, _ = message_set(log)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    rows, position = by_us(encoded[:cut], 0, aborted(log))
    assert (rows, position) == by_aiokafka(encoded[:cut], 0, aborted(log))


@settings(deadline=None)
@given(logs(), st.data())
def test_damage_ends_the_set_before_it(log: list[Batch], data: st.DataObject) -> None:
    broken = data.draw(st.integers(0, len(log) - 1))
    before, begin = message_set(log[:broken])
    encoded = bytearray(message_set(log)[0])
    at = data.draw(st.integers(len(before) + 17, len(before) + len(encode(log[broken], begin)) - 1))
    encoded[at] ^= 1 << data.draw(st.integers(0, 7))
    reader = BatchReader(bytes(encoded), aborted(log), 0)
    got = reader.take(MANY, MUCH)
    assert reader.exhausted
    assert reader.doubtful == (broken == 0)
    assert (rows_of(got), reader.position) == by_aiokafka(before, 0, aborted(log))


@settings(deadline=None)
@given(st.binary(max_size=120), st.integers(0, 3))
def test_records_that_are_none_are_left_to_aiokafka(junk: bytes, n: int) -> None:
    """The checksum holds, the records do not."""
    data = bytearray(encode(Batch(size=1, kept=[(0, b"k", b"v")]), 0)[:61] + junk)
    struct.pack_into(">i", data, 8, len(data) - 12)
    struct.pack_into(">i", data, 57, n)
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    reader = BatchReader(bytes(data), [], 0)
    got = reader.take(MANY, MUCH)
    if reader.doubtful:
        assert not len(got.offsets)
        assert reader.position == 0
    else:
        assert (rows_of(got), reader.position) == by_aiokafka(bytes(data), 0, [])


def test_old_formats_and_unknown_codecs_are_left_to_aiokafka() -> None:
    good = encode(Batch(size=1, kept=[(0, b"k", b"v")]), 0)
    old = bytearray(good)
    old[16] = 1
    unknown = bytearray(good)
    unknown[22] |= 5
    struct.pack_into(">I", unknown, 17, calc_crc32c(bytes(unknown[21:])))
    for bad in (old, unknown):
        reader = BatchReader(bytes(bad), [], 0)
        assert not len(reader.take(1, 1).offsets)
        assert reader.doubtful
        behind = BatchReader(good + bytes(bad), [], 0)
        assert behind.take(MANY, MUCH).offsets.tolist() == [0]
        assert behind.exhausted
        assert not behind.doubtful
        assert behind.position == 1


def test_limits_are_kept_but_for_one_record() -> None:
    log = [Batch(size=4, kept=[(place, b"k", b"v" * 1000) for place in range(4)]) for _ in range(3)]
    reader = BatchReader(message_set(log)[0], [], 0)
    assert len(reader.take(MANY, 1).offsets) == 1, "a record larger than the limit comes alone"
    assert reader.take(MANY, 2_500).offsets.tolist() == [1, 2]
    assert reader.take(5, MUCH).offsets.tolist() == [3, 4, 5, 6, 7]
    assert reader.position == 8
    assert len(reader.take(MANY, 4_500).values.data) < 4_700, "no more of the buffer than is taken"


def test_times_are_the_brokers_where_it_appends_them() -> None:
    kept: list[tuple[int, bytes | None, bytes | None]] = [(place, None, b"") for place in (0, 2)]
    log = [Batch(size=4, kept=kept), Batch(size=4, kept=kept, append_time=True)]
    got = BatchReader(message_set(log)[0], [], 0).take(MANY, MUCH)
    assert got.timestamps_ms.tolist() == [BASE_MS, BASE_MS + 6, APPEND_MS, APPEND_MS]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 1_000])
def test_checksum(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size + 6).astype(np.uint8)
    assert crc32c(data, 3, 3 + size) == calc_crc32c(data[3 : 3 + size].tobytes())


@settings(deadline=None)
@given(st.lists(payloads, max_size=6))
def test_payloads_are_the_list_they_stand_for(values: list[bytes | None]) -> None:
    ours = Payloads.of(values)
    assert list(ours) == values
    assert [ours[i] for i in range(len(ours))] == values
    assert list(ours[1:3]) == values[1:3]
    assert len(ours) == len(values)
    assert ours.buffer.dtype == np.uint8


def test_offsets_that_come_again_in_the_next_batch_are_read_once() -> None:
    """No broker sends them; batches that are opened together must not know less than one by one."""
    batch = Batch(size=3, kept=[(place, b"k%d" % place, b"v") for place in range(3)])
    data = encode(batch, 0) + encode(batch, 1)
    rows, position = by_us(data, 0, [])
    assert [row[0] for row in rows] == [0, 1, 2, 3]
    assert (rows, position) == by_aiokafka(data, 0, [])
