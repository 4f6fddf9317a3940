"""Catalogue records as work: which are new to us, and what has to be read and encoded for each."""

from __future__ import annotations

import hashlib
import threading
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from schemas.checks import decode_item, withdrawn_item_id
from schemas.content import CatalogueSource, Missing, MissingReason
from schemas.deadletters import Reason
from schemas.errors import ContractError, MediaError
from schemas.media import MediaModality, Modality
from schemas.records import Item
from schemas.runs import Float32

from .decoded import Decoded, Film, Picture
from .encoders import EncoderSet
from .index import ContentIndex
from .positions import Hold
from .texts import with_cover

_CHARS: Final = 512


class Letter(Struct, frozen=True):
    """Why something of an item could not be used."""

    reason: Reason
    field: str
    message: str


class Job(Struct, kw_only=True, eq=False):
    """An item to be encoded, or (``item`` None) to be withdrawn."""

    item_id: str
    key: bytes | None
    value: bytes | None
    item: Item | None
    content_hash: str
    source: CatalogueSource
    broker_ms: int
    hold: Hold
    background: bool = False
    attempt: int = 0
    media: dict[MediaModality, str] = field(default_factory=dict)
    """References to read."""
    given: dict[Modality, Float32] = field(default_factory=dict)
    """Ready vectors that the catalogue brought."""
    decoded: dict[MediaModality, Decoded] = field(default_factory=dict)
    missing: dict[Modality, Missing] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    retriable: bool = False
    _lock: Any = field(default_factory=threading.Lock)

    def lack(self, modality: Modality, reason: MissingReason, message: str = "") -> None:
        """Note why a modality has no vector; the first reason counts."""
        self.missing.setdefault(modality, Missing(modality=modality, reason=reason, message=message[:_CHARS]))

    def refuse(self, modality: MediaModality, error: MediaError) -> None:
        """A medium could not be used: a dead letter; from any thread."""
        with self._lock:
            self.lack(modality, error.reason, error.message)
            self.letters.append(Letter(error.reason, "media", f"$.media.{_FIELD[modality]}: {error.message}"))
            self.retriable |= error.retriable

    def take(self, modality: MediaModality, decoded: Decoded) -> None:
        """A medium was decoded; the sound of a video stands in for a sound that the item does not name."""
        with self._lock:
            self.decoded[modality] = decoded
            if isinstance(decoded, Film) and "audio" not in self.media and "audio" not in self.given:
                if decoded.sound is not None:
                    self.missing.pop("audio", None)
                    self.decoded["audio"] = decoded.sound
                elif decoded.no_sound not in {None, "empty"}:
                    self.missing.pop("audio", None)
                    self.lack("audio", "unreadable", f"the sound track: {decoded.no_sound}")
            if isinstance(decoded, Picture) and decoded.text and "text" not in self.given:
                self.missing.pop("text", None)

    @property
    def title(self) -> str:
        """What the catalogue calls the item; empty where it does not."""
        return ((self.item.title if self.item is not None else None) or "").strip()

    @property
    def text(self) -> str:
        """The title, and what was read on the cover besides."""
        cover = self.decoded.get("image")
        words = cover.text if isinstance(cover, Picture) else None
        return with_cover(self.title, words) if words else self.title


_FIELD: Final[dict[MediaModality, str]] = {"image": "cover", "audio": "audio", "video": "video"}


def content_hash(item: Item) -> str:
    """128 bits over all that content and tags are made of; media by reference, not by their bytes."""
    parts = (item.title, item.tags, item.category, item.language, item.media, item.vectors)
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()


class Planner:
    """Makes jobs of records; see `job`. May be used from any thread."""

    def __init__(self, encoders: EncoderSet, index: ContentIndex) -> None:
        self._encoders = encoders
        self._index = index

    def job(
        self,
        key: bytes | None,
        value: bytes | None,
        source: CatalogueSource,
        broker_ms: int,
        hold: Hold,
        *,
        background: bool = False,
        attempt: int = 0,
        again: bool = False,
    ) -> Job | None:
        """What a record asks for; None where its item is as it says already, or newer.

        An item is left as it is when content and encoders are those of its published vectors. But a live
        record that comes later than the one they were made of is another attempt where media were refused, as
        when a dead letter is sent again; and one read in the background is where a server was away.

        Parameters
        ----------
        again : bool
            Whether to do it in any case, unless a newer record was done.

        Raises
        ------
        ContractError
            The record breaks the catalogue's contract.
        """
        if value is None:
            item_id, item, digest = withdrawn_item_id(key), None, ""
        else:
            item = decode_item(value, key)
            item_id, digest = item.item_id, content_hash(item)
        known = self._index.known(item_id)
        if known is None:
            if item is None:
                return None
        elif known.offset > source.offset:
            return None
        elif not again and known.content_hash == digest:
            same = known.encoders == self._encoders.digest or item is None
            retry = known.retriable if background else known.refused and known.offset < source.offset
            if same and not retry:
                return None
        job = Job(
            item_id=item_id,
            key=key,
            value=value,
            item=item,
            content_hash=digest,
            source=source,
            broker_ms=broker_ms,
            hold=hold,
            background=background,
            attempt=attempt,
        )
        if item is not None:
            self._plan(job, item)
        return job

    def _plan(self, job: Job, item: Item) -> None:
        slots = self._encoders.slots
        for vector in item.vectors:
            if vector.modality == "fused" or vector.modality in job.given:
                continue
            slot = slots[vector.modality]
            if vector.model != slot.name:
                job.lack(
                    vector.modality, "other_model", f"of {vector.model}, and {slot.name or 'none'} is used"
                )
                continue
            try:
                job.given[vector.modality] = slot.checked(vector.values)
            except ContractError as error:
                job.lack(vector.modality, "bad_value", str(error))
                job.letters.append(Letter("bad_value", "vectors", f"$.vectors: {error}"))
        media = item.media
        references: dict[MediaModality, str | None] = {
            "image": None if media is None else media.cover,
            "audio": None if media is None else media.audio,
            "video": None if media is None else media.video,
        }
        wanted = {name for name, slot in slots.items() if slot.encodes and name not in job.given}
        for name, reference in references.items():
            # A video may be wanted for its sound alone.
            for_sound = name == "video" and "audio" in wanted and references["audio"] is None
            for_words = name == "image" and self._encoders.reads_covers and "text" in wanted
            if reference is not None and (name in wanted or for_sound or for_words):
                job.media[name] = reference
            if reference is None and name in wanted:
                job.lack(name, "absent")
        if "text" in wanted and not job.title:
            job.lack("text", "absent")
        for modality, slot in slots.items():
            if modality in job.given:
                job.missing.pop(modality, None)
            elif not slot.encodes:
                job.lack(modality, "absent" if slot.name else "no_encoder")
