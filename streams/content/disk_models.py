"""Models of transformers and sentence-transformers from a folder on this machine; never from a network.

Neither package belongs to an extra of reelflow: who wants such a model installs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.errors import ConfigurationError
from schemas.media import Modality
from schemas.runs import Float32

from .audio_encoder import check_rate
from .decoded import Sound, UInt8
from .placement import Placement
from .texts import clean_text

BATCH = 16
_DIGESTED = (".safetensors", ".json", ".bin", ".txt", ".model")


class SentenceModel:
    """A sentence-transformers model, for text."""

    modality: Modality = "text"

    def __init__(self, folder: Path, placement: Placement | None = None) -> None:
        placement = placement or Placement()
        self.name = folder.name
        self.version = _digest(folder) + placement.suffix
        with _package("sentence_transformers"):
            from sentence_transformers import SentenceTransformer
        self._model = placement.moved(_loaded(SentenceTransformer, folder, device=str(placement.device)))
        self.dims = self._encoded(["a"]).shape[1]

    def encode(self, inputs: Sequence[str]) -> Float32:
        """See `Encoder.encode`."""
        if not inputs:
            return np.zeros((0, self.dims), dtype=np.float32)
        return self._encoded([clean_text(text) for text in inputs])

    def _encoded(self, texts: list[str]) -> Float32:
        vectors = self._model.encode(
            texts,
            batch_size=BATCH,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_tensor=True,
        )
        return _float32(vectors)


class _Transformer:
    """A transformers model and its processor."""

    def __init__(self, folder: Path, processor: str, placement: Placement | None) -> None:
        self._placement = placement or Placement()
        self.name = folder.name
        self.version = _digest(folder) + self._placement.suffix
        with _package("transformers"):
            import transformers

        def load_processor(*where: Any, **options: Any) -> Any:  # to name the class may ask for torchvision
            return getattr(transformers, processor).from_pretrained(*where, **options)

        self._processor = _loaded(load_processor, folder)
        self._model = self._placement.moved(_loaded(transformers.AutoModel.from_pretrained, folder))

    def _vectors(self, method: str, inputs: dict[str, Any]) -> Float32:
        """What a model of two towers (SigLIP, CLAP) has a method for, or the mean of the last layer.

        Of a model with a decoder (Whisper) the encoder alone is used.
        """
        inputs = self._placement.inputs(inputs)
        with torch.inference_mode():
            if hasattr(self._model, method):
                found = getattr(self._model, method)(**inputs)
                found = getattr(found, "pooler_output", found)
            else:
                model = self._model.get_encoder() if self._model.config.is_encoder_decoder else self._model
                last = model(**inputs).last_hidden_state  # (B, ..., d), or (B, d, height, width)
                found = last.mean(dim=(2, 3)) if last.ndim == 4 else last.mean(dim=1)
        return _float32(found)


class TransformersImageModel(_Transformer):
    """A transformers model of pictures, such as SigLIP."""

    modality: Modality = "image"

    def __init__(self, folder: Path, placement: Placement | None = None) -> None:
        super().__init__(folder, "AutoImageProcessor", placement)
        self.dims = self.encode([np.zeros((256, 256, 3), dtype=np.uint8)]).shape[1]

    def encode(self, inputs: Sequence[UInt8]) -> Float32:
        """See `Encoder.encode`."""
        parts = [
            self._vectors(
                "get_image_features",
                dict(self._processor(images=list(inputs[start : start + BATCH]), return_tensors="pt")),
            )
            for start in range(0, len(inputs), BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dims), dtype=np.float32)


class TransformersAudioModel(_Transformer):
    """A transformers model of sound, such as CLAP or the encoder of Whisper; the mean over the segments."""

    modality: Modality = "audio"

    def __init__(self, folder: Path, placement: Placement | None = None) -> None:
        super().__init__(folder, "AutoFeatureExtractor", placement)
        self.sample_rate = int(self._processor.sampling_rate)
        silence = np.zeros(self.sample_rate, dtype=np.float32)
        self.dims = self.encode([Sound([silence], self.sample_rate, 1.0)]).shape[1]

    def encode(self, inputs: Sequence[Sound]) -> Float32:
        """See `Encoder.encode`; raises `ValueError` for another sample rate."""
        rows = []
        for sound in inputs:
            check_rate(sound, self.sample_rate)
            prepared = [
                dict(self._processor(segment, sampling_rate=self.sample_rate, return_tensors="pt"))
                for segment in sound.segments
            ]
            rows.append(np.mean([self._vectors("get_audio_features", part)[0] for part in prepared], axis=0))
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, self.dims), dtype=np.float32)


def _float32(vectors: torch.Tensor) -> Float32:
    """Of whatever numbers and device."""
    return np.asarray(vectors.float().cpu().numpy(), dtype=np.float32)


@contextmanager
def _package(name: str) -> Any:
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: pip install {name.replace('_', '-')}"
        raise ConfigurationError("content.model", message) from error


def _digest(folder: Path) -> str:
    """Eight hex digits over a model's files."""
    if not folder.is_dir():
        raise ConfigurationError("content.model", f"the model is not on this machine: {folder}")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _DIGESTED):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:8]


def _loaded(load: Any, folder: Path, **options: Any) -> Any:
    try:
        return load(str(folder), local_files_only=True, **options)
    except (ImportError, OSError, ValueError, KeyError) as error:  # ImportError: a package that it asks for
        raise ConfigurationError("content.model", f"{folder}: {error}") from error
