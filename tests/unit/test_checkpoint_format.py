"""Stored bytes: arrays that any safetensors reader reads, seals, and versions."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors.numpy import load, save

from schemas.errors import DamagedError, StateError
from schemas.learner import Arrays
from streams.checkpoint import format as formats
from streams.checkpoint.format import Manifest, decode_arrays, encode_arrays, seal, unseal
from streams.checkpoint.segments import SegmentHead, frame, read_segment, segment_name, segments
from tests.stores import FaultyStore

MANIFEST = Manifest(epoch=1, sequence=2, written_at_ms=3, units={}, meta={"positions": {"t": {"0": 17}}})
DTYPES = st.sampled_from(
    ["?", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8", ">i4"]
)


@given(
    st.dictionaries(
        st.text(max_size=8),
        DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))),
        max_size=5,
    )
)
def test_arrays_come_back_and_others_can_read_them(arrays: Arrays) -> None:
    data = b"".join(encode_arrays(arrays))
    ours, theirs = decode_arrays(data), load(data)
    assert ours.keys() == theirs.keys() == arrays.keys()
    for name, array in arrays.items():
        little = array.astype(array.dtype.newbyteorder("<"))
        for found in (ours[name], theirs[name]):
            assert (found.dtype, found.shape, found.tobytes()) == (
                little.dtype,
                array.shape,
                little.tobytes(),
            )
        assert ours[name].flags.aligned
    assert decode_arrays(save(theirs)).keys() == arrays.keys()


def test_what_is_not_contiguous_is_stored_in_order() -> None:
    array: NDArray[np.int32] = np.arange(12, dtype=np.int32).reshape(3, 4).T[::2]
    assert decode_arrays(b"".join(encode_arrays({"a": array})))["a"].tolist() == array.tolist()


def test_a_dtype_without_a_code_is_refused_by_name() -> None:
    with pytest.raises(StateError, match="array 'names' of <U2"):
        encode_arrays({"names": np.array(["ab"])})


@given(
    st.binary(max_size=64)
    | st.integers(0, 200).map(lambda n: b"".join(encode_arrays({"a": np.zeros(9)}))[:n])
)
def test_no_bytes_make_the_decoder_fail_otherwise(data: bytes) -> None:
    try:
        decode_arrays(data)
    except DamagedError:
        return


@given(st.data())
def test_every_flipped_bit_and_every_cut_breaks_the_seal(data: st.DataObject) -> None:
    sealed = seal("checkpoint", MANIFEST)
    assert unseal("checkpoint", "x", sealed, Manifest) == MANIFEST
    at = data.draw(st.integers(0, len(sealed) - 1))
    flipped = sealed[:at] + bytes([sealed[at] ^ 1 << data.draw(st.integers(0, 7))]) + sealed[at + 1 :]
    for damaged in (sealed[:at], flipped, sealed + b"x"):
        try:
            assert unseal("checkpoint", "x", damaged, Manifest) == MANIFEST  # white space in the head
        except DamagedError:
            continue


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = seal("checkpoint", MANIFEST)
    with monkeypatch.context() as later:
        later.setattr(formats, "VERSION", 2)
        newer = seal("checkpoint", MANIFEST)
        with pytest.raises(StateError, match="version 1, which is too old"):
            unseal("checkpoint", "checkpoint 1-2", sealed, Manifest)
        later.setitem(formats.UPGRADES, ("reelflow-checkpoint", 1), lambda body: body | {"epoch": 7})
        assert unseal("checkpoint", "x", sealed, Manifest).epoch == 7
    with pytest.raises(StateError, match="checkpoint 1-2 was written by a newer reelflow") as caught:
        unseal("checkpoint", "checkpoint 1-2", newer, Manifest)
    assert not isinstance(caught.value, DamagedError)


def test_a_journal_of_a_newer_version_is_refused_by_name() -> None:
    store = FaultyStore()
    head = SegmentHead(format="reelflow-journal", version=2, epoch=1, first=1)
    store.create(segment_name(1, 1), frame(0, msgspec.msgpack.encode(head)))
    with pytest.raises(StateError, match="was written by a newer reelflow"):
        list(read_segment(store, segments(store, 1)[0]))
