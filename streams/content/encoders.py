"""The encoders of the content worker, as the settings name them: one slot a modality."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import structlog
from numpy.typing import ArrayLike

from schemas.content_settings import ContentSettings
from schemas.errors import ConfigurationError
from schemas.media import Modality
from schemas.runs import Float32

from . import cover_text
from .audio_encoder import LogMelEncoder, OnnxAudioEncoder
from .disk_models import SentenceModel, TransformersAudioModel, TransformersImageModel
from .encoder import Encoder, checked_vector
from .extra import extra
from .image_encoder import OnnxImageEncoder, default_image_encoder
from .placement import placement_of
from .text_encoder import SentenceEncoder
from .video_encoder import FrameEncoder

log = structlog.get_logger(__name__)

MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)
SAMPLE_RATE: Final = 16_000


class Slot:
    """What becomes of one modality: encoded here, taken as catalogues bring it, or left out.

    Attributes
    ----------
    name, version : str
        Of the model; empty without one. The version of a model elsewhere is empty: its name says it all.
    dims : int
    encodes : bool
        Whether there is an encoder here.
    """

    def __init__(
        self, modality: Modality, encoder: Encoder[Any] | None, name: str = "", dims: int = 0
    ) -> None:
        self.modality, self.encoder = modality, encoder
        self.name = name if encoder is None else encoder.name
        self.version = "" if encoder is None else encoder.version
        self.dims = dims if encoder is None else encoder.dims
        self._lock = threading.Lock()

    @property
    def encodes(self) -> bool:
        """Whether there is an encoder here."""
        return self.encoder is not None

    def checked(self, values: ArrayLike) -> Float32:
        """A ready vector of this model; raises `ContractError` as `checked_vector`."""
        return checked_vector(values, self.dims, f"vectors.{self.modality}")

    def encode(self, inputs: Sequence[Any]) -> list[Float32 | None]:
        """A vector (dims,) of each input; None where the encoder fails on it.

        One bad input costs the others of its call nothing but time: they are encoded one by one then.
        """
        if self.encoder is None or not inputs:
            return [None] * len(inputs)
        with self._lock:  # tags are encoded by another thread than titles
            try:
                rows: list[Float32 | None] = list(self.encoder.encode(inputs))
            except Exception as error:  # noqa: BLE001 - whatever a model says of what it is given
                log.warning("encoder_failed", modality=self.modality, n=len(inputs), cause=str(error)[:200])
                rows = [None]
        if len(inputs) > 1 and rows == [None]:
            return [self.encode([one])[0] for one in inputs]
        return [row if row is not None and np.isfinite(row).all() else None for row in rows]


class EncoderSet:
    """All slots.

    Attributes
    ----------
    slots : dict of modality to Slot
    dims : dict of modality to int
        Of those that have a model.
    digest : str
        32 hex digits over names, versions and dimensions, and over what reads covers.
    sample_rate : int
        That sound has to be decoded at.
    reads_covers : bool
        Whether titles go with the words on covers.

    Parameters
    ----------
    slots : dict of modality to Slot
    covers : str
        Version of what reads the words on covers, empty where nothing does.
    """

    def __init__(self, slots: dict[Modality, Slot], covers: str = "") -> None:
        self.slots = slots
        self.reads_covers = bool(covers)
        self.dims: dict[str, int] = {name: slot.dims for name, slot in slots.items() if slot.name}
        parts = [(name, slot.name, slot.version, slot.dims) for name, slot in sorted(slots.items())]
        told = repr(parts) + covers
        self.digest = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
        self.sample_rate = int(getattr(slots["audio"].encoder, "sample_rate", SAMPLE_RATE))

    def tag_texts(self, tags: Sequence[str]) -> list[Float32 | None]:
        """Vectors of tags in the space of the titles."""
        return self.slots["text"].encode(tags)


def load_slot(modality: Literal["text"], settings: ContentSettings) -> Slot:
    """The slot of the titles alone; raises as `load_encoders`."""
    return _slot(modality, settings.text_encoder, _makers(settings)[modality])


def load_encoders(settings: ContentSettings) -> EncoderSet:
    """Load every model that the settings name.

    Raises
    ------
    ExtraError
        The packages of the extra ``content``, or ``ocr`` where covers are read, are not installed.
    ConfigurationError
        A model is not on this machine, or is not what it should be; names the setting.
    """
    makers = _makers(settings)
    slots: dict[Modality, Slot] = {
        name: _slot(name, getattr(settings, f"{name}_encoder"), makers[name])
        for name in MODALITIES
        if name != "video"
    }

    def frames(_: str) -> Encoder[Any]:
        return FrameEncoder(slots["image"].encoder or _default_images(settings))

    slots["video"] = _slot("video", settings.video_encoder, {"default": frames})
    return EncoderSet(slots, covers_version() if settings.cover_text else "")


def _makers(settings: ContentSettings) -> dict[str, dict[str, Callable[[str], Encoder[Any]]]]:
    """What makes an encoder of each kind, given what follows the kind in the setting."""
    threads, placed = settings.threads, placement_of(settings)
    onnx: dict[str, Any] = {"threads": threads, "on_gpu": placed.on_gpu}
    return {
        "text": {
            "default": lambda _: SentenceEncoder(threads),
            "sentence-transformers": lambda where: SentenceModel(Path(where), placed),
        },
        "image": {
            "default": lambda _: _default_images(settings),
            "onnx": lambda where: OnnxImageEncoder(Path(where).stem, Path(where), **onnx),
            "transformers": lambda where: TransformersImageModel(Path(where), placed),
        },
        "audio": {
            "default": lambda _: LogMelEncoder(SAMPLE_RATE),
            "onnx": lambda where: OnnxAudioEncoder(Path(where).stem, Path(where), **onnx),
            "transformers": lambda where: TransformersAudioModel(Path(where), placed),
        },
    }


def _default_images(settings: ContentSettings) -> Encoder[Any]:
    return default_image_encoder(settings.threads, on_gpu=placement_of(settings).on_gpu)


def _slot(modality: Modality, spec: str, makers: dict[str, Callable[[str], Encoder[Any]]]) -> Slot:
    kind, _, where = spec.partition(":")
    if kind == "none":
        return Slot(modality, None)
    if kind == "given":
        name, _, dims = where.rpartition(":")
        return Slot(modality, None, name, int(dims))
    with _named(f"content.{modality}_encoder"):
        slot = Slot(modality, makers[kind](where))
    log.info("encoder_loaded", modality=modality, model=slot.name, version=slot.version, dims=slot.dims)
    return slot


def covers_version() -> str:
    """Version of what reads covers, which is loaded by the decoders alone; raises `ExtraError`."""
    with extra("ocr"):
        return f"rapidocr {version('rapidocr')} p{cover_text.PREPARATION}"


@contextmanager
def _named(setting: str) -> Iterator[None]:
    """Models call their setting by a name of their own."""
    try:
        yield
    except ConfigurationError as error:
        if error.setting == "content.device":
            raise
        raise ConfigurationError(setting, str(error).partition(": ")[2]) from error
