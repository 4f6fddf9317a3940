"""Log-mel spectrograms and what they are like on average: a sound without any trained model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOOR = 1e-6
"""Power added before the logarithm: 60 dB below a full-scale band."""


class LogMel:
    """log(FLOOR + M |STFT(x)|^2), with M triangular filters, equally wide on the mel scale of HTK.

    Parameters
    ----------
    sample_rate : int
        Of the waveforms, Hz.
    n_fft, hop : int
        Window (Hann) and step, samples.
    n_mels : int
        Filters between `low_hz` and `high_hz`; each holds at least one bin.

    Cost: O(n_samples log n_fft); about a millisecond a second of sound on one core.

    References
    ----------
    Stevens, Volkmann and Newman (1937), the mel scale; Young et al., The HTK Book, section 5.6.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        *,
        n_fft: int = 512,
        hop: int = 160,
        n_mels: int = 64,
        low_hz: float = 50.0,
        high_hz: float = 7_600.0,
    ) -> None:
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop = hop
        self.filters = mel_filters(sample_rate, n_fft, n_mels, low_hz, high_hz)  # (n_mels, n_fft / 2 + 1)
        self._window = torch.hann_window(n_fft)

    def __call__(self, waves: Tensor) -> Tensor:
        """Of waveforms float32 (B, n_samples): float32 (B, n_mels, 1 + n_samples // hop).

        Each is mirrored at its ends; one shorter than a window is filled with silence first.
        """
        if waves.shape[1] < self.n_fft:
            waves = torch.nn.functional.pad(waves, (0, self.n_fft - waves.shape[1]))
        spectra = torch.stft(waves, self.n_fft, self.hop, window=self._window, return_complex=True)
        power = spectra.abs().square() / self._window.sum().square()  # (B, n_fft / 2 + 1, n_frames)
        return torch.log(FLOOR + self.filters @ power)


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangles of height 1, float32 (n_mels, n_fft / 2 + 1).

    mel(f) = 2595 log10(1 + f / 700). A triangle so narrow that it holds no bin takes the one nearest to its
    centre.
    """
    low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
    mels = torch.linspace(low, high, n_mels + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    filters = torch.minimum(rising, falling).clamp(min=0.0)  # (n_mels, n_bins)
    nearest = (bins - centre).abs().argmin(dim=1)
    bare = filters.sum(dim=1) == 0
    filters[bare, nearest[bare]] = 1.0
    return filters.float()


def log_mel_statistics(segments: list[Tensor]) -> Tensor:
    """What a sound is like over time: of log-mels (n_mels, n_frames_i), float32 (3 n_mels,).

    Mean and standard deviation over all frames of all segments, and the standard deviation of the differences
    between neighbouring frames of a segment, which tells rhythm and noise from what lasts.

    >>> log_mel_statistics([torch.tensor([[0.0, 2.0, 0.0, 2.0]])]).tolist()
    [1.0, 1.0, 2.0]
    """
    frames = torch.cat(segments, dim=1)
    steps = torch.cat([segment.diff(dim=1) for segment in segments], dim=1)
    moved = steps.square().mean(dim=1).sqrt() if steps.shape[1] else torch.zeros(len(frames))
    return torch.cat([frames.mean(dim=1), frames.std(dim=1, correction=0), moved])
