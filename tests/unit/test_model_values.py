"""Values of the model topics: there and back, other versions refused by name, damage told."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from schemas.errors import ContractError, StateError
from schemas.model_values import (
    ArrayValue,
    DenseValue,
    ItemValue,
    UserValue,
    decode_value,
    encode_value,
    packed,
    packed_arrays,
    unpacked,
    unpacked_arrays,
)

DTYPES = (np.float32, np.float64, np.int32, np.int64)


def user(**changes: Any) -> UserValue:
    fields: dict[str, Any] = {
        "epoch": 1,
        "sequence": 2,
        "lineage": "l",
        "user_id": "u",
        "slot": 3,
        "row": b"",
    }
    return UserValue(**(fields | changes))


@given(st.sampled_from(DTYPES), arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0), st.data())
def test_arrays_come_back_as_they_were(dtype: Any, shape: tuple[int, ...], data: st.DataObject) -> None:
    array = data.draw(arrays_of.arrays(dtype, shape))
    value = DenseValue(epoch=0, sequence=0, lineage="l", name="n", arrays=packed_arrays({"a": array}))
    found = unpacked_arrays(decode_value(encode_value(value), DenseValue).arrays)["a"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    big = array.astype(array.dtype.newbyteorder(">"))
    assert packed(big) == packed(array)


def test_bytes_are_little_endian_and_rows_have_a_width() -> None:
    assert packed(np.array([1.0, -2.0], dtype=np.float32)) == bytes.fromhex("0000803f000000c0")
    assert unpacked(bytes.fromhex("0000803f000000c0"), np.float32).tolist() == [1.0, -2.0]
    assert unpacked(bytes(24), np.float32, 3).shape == (2, 3)
    with pytest.raises(ContractError, match="20 bytes"):
        unpacked(bytes(20), np.float32, 3)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_another_version_is_refused_by_name(version: Any) -> None:
    fields = msgspec.structs.asdict(user()) | {"schema_version": version}
    with pytest.raises(StateError, match=f"version {version!r}.*reads version 1"):
        decode_value(msgspec.msgpack.encode(fields), UserValue)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", encode_value(user())[:-1], b"\x81\xa1" * 500])
def test_what_is_no_value_is_told(data: bytes) -> None:
    with pytest.raises(ContractError, match="not a UserValue"):
        decode_value(data, UserValue)


def test_values_of_another_kind_and_out_of_range_are_refused() -> None:
    with pytest.raises(ContractError, match="ItemValue"):
        decode_value(encode_value(user()), ItemValue)
    with pytest.raises(ContractError, match="slot"):
        decode_value(encode_value(user(slot=-1)), UserValue)


def test_an_array_whose_bytes_do_not_fill_its_shape_is_refused() -> None:
    with pytest.raises(ContractError, match="'a'"):
        unpacked_arrays({"a": ArrayValue(dtype="<f4", shape=[3], data=bytes(8))})


def test_unknown_fields_are_tolerated() -> None:
    fields = msgspec.structs.asdict(user()) | {"later": 1}
    assert decode_value(msgspec.msgpack.encode(fields), UserValue) == user()
