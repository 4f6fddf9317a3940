"""Stable hashes of many keys at once: keyed SipHash-2-4 for ids, murmur2 for Kafka partitions.

Python's own `hash` differs between processes; what stands in checkpoints and decides on
duplicates must not. The hash is keyed, so nobody outside can craft ids that collide.

References
----------
Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012.
Apache Kafka, org.apache.kafka.common.utils.Utils#murmur2 and BuiltInPartitioner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .compiled import inlined
from .runs import Int32, Int64, UInt64
from .texts import Texts, texts_of_bytes
from .words import UInt8, byte_at, word_at

_MASK64: Final = (1 << 64) - 1


def hash_many(strings: Sequence[str], key: int) -> UInt64:
    """Keyed 64-bit hash of the UTF-8 of each string, the same on every machine.

    ``h[i] = SipHash-2-4(k0, k1, utf8(strings[i]))`` with k0, k1 the low and high 64 bits of
    `key`. Cost: about 0.1 microseconds a string of 20 characters.

    Parameters
    ----------
    strings : sequence of N str
        Without lone surrogates.
    key : int
        128-bit key; higher bits are ignored.

    Returns
    -------
    (N,) uint64

    >>> [hex(h) for h in hash_many(["", "e-1"], 0)]
    ['0x1e924b9d737700d7', '0x4498deece9bb0f83']
    """
    return hash_texts(texts_of_bytes([string.encode() for string in strings]), key)


def hash_texts(texts: Texts, key: int) -> UInt64:
    """Hash of each text, as `hash_many`; (N,) uint64. Cost: 0.02 microseconds a text of 20 bytes."""
    return _siphash_many(texts.data, texts.starts, texts.ends, *key_halves(key))


def key_halves(key: int) -> tuple[np.uint64, np.uint64]:
    """Low and high 64 bits of a 128-bit key, as the kernels take it."""
    return np.uint64(key & _MASK64), np.uint64((key >> 64) & _MASK64)


def hash_one(string: str, key: int) -> int:
    """Hash of one string, as `hash_many`."""
    return int(hash_many((string,), key)[0])


def murmur2(key: bytes) -> int:
    """Kafka's murmur2 of `key` as Java's signed 32-bit int.

    >>> murmur2(b"foobar")
    -790332482
    """
    texts = texts_of_bytes((key,))
    return int(_murmur2_many(texts.data, texts.starts, texts.ends).view(np.int32)[0])


def partition_of(key: bytes, n: int) -> int:
    """Partition of `key` among `n`, identical to Kafka's Java client.

    ``p = (murmur2(key) & 0x7fffffff) mod n``. Cost: about 6 microseconds, most of it the call;
    `partition_many` takes a hundredth of that a key.

    Raises
    ------
    ValueError
        `n` is below 1.

    >>> partition_of(b"u42", 16)
    7
    """
    return int(partition_many((key,), n)[0])


def partition_many(keys: Sequence[bytes], n: int) -> Int32:
    """Partition of each key among `n`; (N,) int32. Cost: about 0.05 microseconds a key.

    Raises
    ------
    ValueError
        `n` is below 1.
    """
    return partition_texts(texts_of_bytes(keys), n)


def partition_texts(keys: Texts, n: int) -> Int32:
    """As `partition_many`, of keys that are texts."""
    if n < 1:
        raise ValueError(f"a topic has at least one partition, not {n}")
    hashes = _murmur2_many(keys.data, keys.starts, keys.ends) & np.uint32(0x7FFFFFFF)
    return (hashes % np.uint32(n)).astype(np.int32)


@inlined
def _rotl(x: np.uint64, bits: int) -> np.uint64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@inlined
def _round(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    v0 = v0 + v1
    v1 = _rotl(v1, 13) ^ v0
    v0 = _rotl(v0, 32)
    v2 = v2 + v3
    v3 = _rotl(v3, 16) ^ v2
    v0 = v0 + v3
    v3 = _rotl(v3, 21) ^ v0
    v2 = v2 + v1
    v1 = _rotl(v1, 17) ^ v2
    v2 = _rotl(v2, 32)
    return v0, v1, v2, v3


@inlined
def siphash(buffer: UInt8, start: int, end: int, k0: np.uint64, k1: np.uint64) -> np.uint64:
    """SipHash-2-4 of ``buffer[start:end]`` under the key (k0, k1)."""
    v0 = k0 ^ np.uint64(0x736F6D6570736575)
    v1 = k1 ^ np.uint64(0x646F72616E646F6D)
    v2 = k0 ^ np.uint64(0x6C7967656E657261)
    v3 = k1 ^ np.uint64(0x7465646279746573)
    length = end - start
    at = start
    for _ in range(length // 8):
        word = word_at(buffer, at)
        at += 8
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
    word = np.uint64(length & 0xFF) << np.uint64(56)
    for j in range(length % 8):
        word |= np.uint64(byte_at(buffer, at + j)) << np.uint64(8 * j)
    v3 ^= word
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= np.uint64(0xFF)
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@njit(nogil=True, cache=True)
def _siphash_many(buffer: UInt8, starts: Int64, ends: Int64, k0: np.uint64, k1: np.uint64) -> UInt64:
    hashes = np.empty(len(ends), dtype=np.uint64)
    for i in range(len(ends)):
        hashes[i] = siphash(buffer, starts[i], ends[i], k0, k1)
    return hashes


@njit(nogil=True, cache=True)
def _murmur2_many(buffer: UInt8, starts: Int64, ends: Int64) -> NDArray[np.uint32]:
    # Arithmetic is 64 bits wide and masked: numba widens 32-bit operands anyway.
    mask = np.uint64(0xFFFFFFFF)
    m = np.uint64(0x5BD1E995)
    hashes = np.empty(len(ends), dtype=np.uint32)
    for i in range(len(ends)):
        start = starts[i]
        length = ends[i] - start
        h = np.uint64(0x9747B28C) ^ np.uint64(length)
        at = start
        for _ in range(length // 4):
            k = np.uint64(0)
            for j in range(4):
                k |= np.uint64(buffer[at + j]) << np.uint64(8 * j)
            at += 4
            k = (k * m) & mask
            k ^= k >> np.uint64(24)
            k = (k * m) & mask
            h = ((h * m) & mask) ^ k
        rest = length % 4
        for j in range(rest):
            h ^= np.uint64(buffer[at + j]) << np.uint64(8 * j)
        if rest > 0:
            h = (h * m) & mask
        h ^= h >> np.uint64(13)
        h = (h * m) & mask
        h ^= h >> np.uint64(15)
        hashes[i] = np.uint32(h)
    return hashes
