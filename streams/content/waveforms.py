"""Mono waveforms before they are encoded: loudness, silence, segments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .decoded import Float32

TARGET_DB = -23.0
GATE_DB = -70.0
RELATIVE_GATE_DB = -10.0
SILENCE_DB = -45.0
"""Below the target; after the loudness is normalised."""
BLOCK_S = 0.4
FRAME_S = 0.02
MARGIN_FRAMES = 5


def normalise_loudness(wave: Float32, sample_rate: int) -> Float32:
    """Scale to a gated level of `TARGET_DB` (dB of mean square against full scale).

    Blocks of 0.4 s below -70 dB do not count, then blocks 10 dB below the mean of the others: the gates of
    ITU-R BS.1770-4, without its filter. Peaks may exceed 1. What is silent throughout stays as it is.

    >>> quiet = np.full(16_000, 0.001, dtype=np.float32)
    >>> round(float(20 * np.log10(normalise_loudness(quiet, 16_000)[0])), 1)
    -23.0
    """
    power = _block_power(wave, max(1, round(BLOCK_S * sample_rate)))
    power = power[power > 10 ** (GATE_DB / 10)]
    if not len(power):
        return wave
    power = power[power > power.mean() * 10 ** (RELATIVE_GATE_DB / 10)]
    gain = np.sqrt(10 ** (TARGET_DB / 10) / power.mean())
    return wave * np.float32(gain)


def trim_silence(wave: Float32, sample_rate: int) -> Float32:
    """Without the silence at both ends, but for 0.1 s; empty where nothing else is there.

    Silence are frames of 20 ms more than 45 dB below `TARGET_DB`, so normalise first.
    """
    size = max(1, round(FRAME_S * sample_rate))
    loud = np.flatnonzero(_block_power(wave, size) > 10 ** ((TARGET_DB + SILENCE_DB) / 10))
    if not len(loud):
        return wave[:0]
    first, last = max(int(loud[0]) - MARGIN_FRAMES, 0), int(loud[-1]) + 1 + MARGIN_FRAMES
    return wave[first * size : last * size]


def segments_of(wave: Float32, sample_rate: int, segments: int, segment_s: float) -> list[Float32]:
    """At most `segments` stretches of `segment_s`, in the middles of equal parts; all of a shorter wave.

    >>> [part.tolist() for part in segments_of(np.arange(10, dtype=np.float32), 1, 2, 3.0)]
    [[1.0, 2.0, 3.0], [6.0, 7.0, 8.0]]
    """
    size = max(1, round(segment_s * sample_rate))
    if len(wave) <= size:
        return [wave] if len(wave) else []
    n = min(segments, -(-len(wave) // size))
    if n * size >= len(wave):
        edges = [min(i * size, len(wave) - size) for i in range(n)]
    else:
        edges = [int((i + 0.5) * len(wave) / n - size / 2) for i in range(n)]
    return [wave[start : start + size] for start in edges]


def _block_power(wave: Float32, size: int) -> NDArray[np.float64]:
    """Mean square of each block of `size` samples, a shorter last one included."""
    if not len(wave):
        return np.zeros(0)
    starts = np.arange(0, len(wave), size)
    sums = np.add.reduceat(np.square(wave, dtype=np.float64), starts)
    return sums / np.minimum(size, len(wave) - starts)
