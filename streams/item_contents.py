"""What items are, as the model knows them: vectors of item-content by slot, and tags of item-tags.

Of each modality vectors of one model and one version are used, those that came last. When another version
comes, the modality is forgotten and fills anew; a version that was replaced is not believed again, so that
two content workers that differ cannot make it change back and forth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import structlog
from msgspec import Struct, field
from numpy.typing import NDArray

from learners.content_facts import DIMS, FACTS, facts_vector
from learners.content_fusion import ContentFusion
from learners.content_items import ContentItems
from learners.content_kernels import UNPUBLISHED
from learners.embeddings import Embeddings
from learners.state import digest_arrays, digest_texts, taken
from schemas.content import ItemContent, ItemTags
from schemas.errors import StateError
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.runs import Float32, Int32
from schemas.settings import LearnerSettings
from serving.fresh import Newcomers

log = structlog.get_logger(__name__)

MOST_NEW: Final = 512
STEPS_STALE: Final = 32
"""Steps of the fusion after which vectors of new items are made anew."""

Bools = NDArray[np.bool_]
_LACKS: Final[Float32] = np.full(1, np.nan, dtype=np.float32)


class _Own(Struct):
    """State beside that of the learners; checkpoints carry it as MessagePack."""

    versions: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    tags: dict[int, list[str]] = field(default_factory=dict)


class ItemContents:
    """A learner, name ``content``: see `learners.content_items`, and the module's docstring.

    Parameters
    ----------
    embeddings : Embeddings
        Whose rows are learned towards.
    settings : LearnerSettings
    """

    def __init__(self, embeddings: Embeddings, settings: LearnerSettings) -> None:
        self._embeddings = embeddings
        self._models: dict[str, tuple[str, int]] = {}
        for text in settings.content_models:
            modality, _, model = text.partition("=")
            name, _, dims = model.rpartition(":")
            self._models[modality] = (name, int(dims))
        sizes = {modality: dims for modality, (_, dims) in self._models.items()}
        fusion = ContentFusion({**sizes, FACTS: DIMS}, settings.dim, seed=settings.seed)
        self.items = ContentItems(fusion, embeddings, max_items=settings.max_items)
        self._own = _Own()
        self._fresh: tuple[Int32, Float32] | None = None
        self._n_steps = 0

    @property
    def name(self) -> str:
        """Stable name."""
        return "content"

    # -- what items are -------------------------------------------------------------------------

    def put(self, slot: int, content: ItemContent) -> None:
        """Take in the vectors of an item; those of other models are not looked at."""
        vectors = dict.fromkeys(self._models, _LACKS)
        for one in content.vectors:
            name, dims = self._models.get(one.modality, ("", 0))
            vector = one.vector
            if one.model == name and len(vector) == dims and self._is_current(one.modality, one.version):
                vectors[one.modality] = vector
        self.items.set_part(slot, vectors)
        self._fresh = None

    def put_facts(self, slot: int, words: Iterable[str], published_ms: int | None = None) -> None:
        """Take in what the catalogue says of an item."""
        when = UNPUBLISHED if published_ms is None else published_ms
        self.items.set_part(slot, {FACTS: facts_vector(words)}, published_ms=when)
        self._fresh = None

    def drop(self, slot: int) -> None:
        """An item has no vectors any more."""
        self.items.set_part(slot, dict.fromkeys(self._models, _LACKS))
        self._own.tags.pop(slot, None)
        self._fresh = None

    def put_tags(self, slot: int, found: ItemTags) -> list[str]:
        """Take in the tags found in an item; those that may stand in for the catalogue's, best first."""
        tags = [one.tag for one in found.tags if one.given and one.source != "keyword"]
        if tags:
            self._own.tags[slot] = tags
        else:
            self._own.tags.pop(slot, None)
        return tags

    def tags_of(self, slot: int) -> list[str]:
        """What `put_tags` kept."""
        return self._own.tags.get(slot, [])

    def knows(self, slot: int) -> bool:
        """Whether an item has a vector, if only of what the catalogue says."""
        return bool(self.items.known(np.array([slot], dtype=np.int32))[0])

    def _is_current(self, modality: str, version: str) -> bool:
        own, place = self._own, f"{modality}:{version}"
        current = own.versions.get(modality)
        if current == version:
            return True
        if place in own.replaced:
            return False
        if current is not None:
            log.warning("content_version_changed", modality=modality, version=version, before=current)
            own.replaced.append(f"{modality}:{current}")
            self.items.forget(modality)
        own.versions[modality] = version
        return True

    # -- new items ------------------------------------------------------------------------------

    def newcomers(self, contexts: Contexts, withdrawn: Bools) -> Newcomers | None:
        """New items that are available, as users see them; None where there is none."""
        if self._fresh is None or self._n_steps >= STEPS_STALE:
            new = self.items.newcomers(MOST_NEW)
            self._fresh, self._n_steps = (new, self.items.item_vectors(new)), 0
        items, vectors = self._fresh
        is_open = np.ones(len(items), dtype=np.bool_)
        inside = items < len(withdrawn)
        is_open[inside] = ~withdrawn[items[inside]]
        if not is_open.any():
            return None
        users = self._embeddings.user_vectors(contexts)
        return Newcomers(items[is_open], users @ vectors[is_open].T)

    # -- learner --------------------------------------------------------------------------------

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Logits ``f_U . f_C``: (B, C)."""
        return self.items.predict(contexts, items)

    def learn_many(self, batch: Interactions) -> None:
        """See `ContentItems.learn_many`."""
        self.items.learn_many(batch)
        self._n_steps += len(self.items.touched().dense)  # nobody publishes what changed

    def touched(self) -> TouchedKeys:
        """Nothing: rankers of other processes know no content."""
        none: Int32 = np.zeros(0, dtype=np.int32)
        return TouchedKeys(items=none, users=none)

    def snapshot(self) -> Arrays:
        """Copies: those of `ContentItems`, and ``own`` (versions, tags) as MessagePack."""
        return {**self.items.snapshot(), "own": self._packed()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing or damaged, or of other models.
        """
        packed = taken(arrays, "own", np.zeros(0, dtype=np.uint8)).tobytes()
        try:
            own = msgspec.msgpack.decode(packed, type=_Own)
        except msgspec.DecodeError as error:
            raise StateError(f"'own' is damaged: {error}") from None
        self.items.restore(arrays)
        self._own, self._fresh = own, None

    def digest(self) -> str:
        """Hash of the state (hex)."""
        return digest_texts([self.items.digest(), digest_arrays({"own": self._packed()})])

    def _packed(self) -> NDArray[np.uint8]:
        own = self._own
        ordered = _Own(dict(sorted(own.versions.items())), own.replaced, dict(sorted(own.tags.items())))
        return np.frombuffer(bytearray(msgspec.msgpack.encode(ordered)), dtype=np.uint8)
