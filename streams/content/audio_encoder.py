"""Encoders of sound: log-mel statistics by default, and ONNX files that read waveforms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from learners.log_mel import LogMel, log_mel_statistics
from schemas.media import Modality
from schemas.runs import Float32

from .decoded import Sound
from .onnx_models import OnnxModel

PREPARATION = 1
"""Number of what comes before: loudness, silence, segments, and the statistics themselves."""


class LogMelEncoder:
    """Means and spreads of a log-mel spectrogram: no trained model, tells timbre and rhythm, not meaning.

    192 dimensions.
    """

    name = "log-mel-statistics"
    modality: Modality = "audio"

    def __init__(self, sample_rate: int = 16_000) -> None:
        self._log_mel = LogMel(sample_rate)
        self.dims = 3 * len(self._log_mel.filters)
        self.version = f"{sample_rate}-p{PREPARATION}"

    def encode(self, inputs: Sequence[Sound]) -> Float32:
        """See `Encoder.encode`; raises `ValueError` for another sample rate."""
        vectors = np.zeros((len(inputs), self.dims), dtype=np.float32)
        for row, sound in zip(vectors, inputs, strict=True):
            check_rate(sound, self._log_mel.sample_rate)
            waves = [torch.tensor(segment) for segment in sound.segments]
            row[:] = log_mel_statistics([self._log_mel(wave[None])[0] for wave in waves]).numpy()
        return vectors


class OnnxAudioEncoder:
    """An ONNX network that reads waveforms float32 (n, n_samples); the mean over the segments of a sound.

    Segments are cut to ``n_samples``, or filled with silence; where the model leaves that open, they are
    taken as they are.
    """

    modality: Modality = "audio"

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        sample_rate: int = 16_000,
        output: str | None = None,
        threads: int = 1,
        on_gpu: bool = False,
    ) -> None:
        self.name = name
        self.sample_rate = sample_rate
        self._model = OnnxModel(path, output, threads=threads, on_gpu=on_gpu)
        self.version = f"{self._model.digest}-{sample_rate}-p{PREPARATION}"
        self._n_samples = self._model.input_shape[-1]
        self.dims = self._model.run(np.zeros((1, self._n_samples or sample_rate), dtype=np.float32)).shape[1]

    def encode(self, inputs: Sequence[Sound]) -> Float32:
        """See `Encoder.encode`; raises `ValueError` for another sample rate."""
        vectors = np.zeros((len(inputs), self.dims), dtype=np.float32)
        for row, sound in zip(vectors, inputs, strict=True):
            check_rate(sound, self.sample_rate)
            waves = [self._fitted(segment)[None] for segment in sound.segments]
            row[:] = np.mean([self._model.run(wave)[0] for wave in waves], axis=0)
        return vectors

    def _fitted(self, wave: Float32) -> Float32:
        if self._n_samples is None:
            return np.ascontiguousarray(wave)
        return np.pad(wave[: self._n_samples], (0, max(0, self._n_samples - len(wave))))


def check_rate(sound: Sound, sample_rate: int) -> None:
    """Raise `ValueError` for a sound of another sample rate than a model's."""
    if sound.sample_rate != sample_rate:
        raise ValueError(f"a sound at {sound.sample_rate} Hz, {sample_rate} expected")
