from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.hashing import hash_many, hash_one, murmur2, partition_many, partition_of

with warnings.catch_warnings():
    # kafka-python 3.0 reads its own resources in a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.partitioner import default as kafka_python

# org.apache.kafka.common.utils.UtilsTest#testMurmur2
JAVA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
# vectors_sip64 of the SipHash-2-4 reference implementation, key 00 01 .. 0f, as little-endian words.
SIPHASH = {0: 0x726FDB47DD0E0E31, 1: 0x74F839C593DC67FD, 8: 0x93F5F5799A932462, 15: 0xA129CA6149BE45E5}
SIPHASH_KEY = int.from_bytes(bytes(range(16)), "little")

keys = st.lists(st.binary(max_size=40), max_size=30)
texts = st.lists(st.text(max_size=40), max_size=30)  # hypothesis draws no surrogates


@pytest.mark.parametrize(("key", "expected"), JAVA_MURMUR2.items())
def test_murmur2_as_in_kafkas_own_tests(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected


@pytest.mark.parametrize(("length", "expected"), SIPHASH.items())
def test_siphash_as_in_its_reference(length: int, expected: int) -> None:
    assert hash_one(bytes(range(length)).decode(), SIPHASH_KEY) == expected


@given(keys, st.integers(1, 10_000))
def test_partitions_as_kafka_python_chooses_them(some: list[bytes], n: int) -> None:
    expected = [(kafka_python.murmur2(key) & 0x7FFFFFFF) % n for key in some]
    found = partition_many(some, n)
    assert found.dtype == np.int32
    assert found.tolist() == expected
    assert [partition_of(key, n) for key in some] == expected


@given(texts, st.integers(0, 2**128 - 1))
def test_one_string_hashes_the_same_alone(some: list[str], key: int) -> None:
    found = hash_many(some, key)
    assert found.dtype == np.uint64
    assert found.tolist() == [hash_one(text, key) for text in some]


def test_the_key_matters() -> None:
    assert hash_one("e-1", 1) != hash_one("e-1", 2)
    assert hash_one("e-1", 1) != hash_one("e-1", 1 | 1 << 64)


def test_no_collision_and_even_bits() -> None:
    found = hash_many([f"e-{i}" for i in range(200_000)], 5)
    assert len(np.unique(found)) == len(found)
    ones = np.unpackbits(found.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 0.001


@pytest.mark.parametrize("n", [0, -1])
def test_no_partitions(n: int) -> None:
    with pytest.raises(ValueError, match="at least one partition"):
        partition_of(b"k", n)
