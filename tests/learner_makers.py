"""What the contract suites are run over: variants of the encoder, and gates as learners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from learners.blend import Gate
from learners.content_fusion import ContentFusion, FusionOptions
from learners.content_items import ContentItems
from learners.content_vectors import content_of
from learners.cooccurrence import Cooccurrence
from learners.ease import Ease
from learners.embedding_options import EmbeddingOptions
from learners.embeddings import Embeddings
from learners.history_attention import histories_of, train_attention
from learners.history_attention_kernels import Attentions
from learners.mixture import Mixture
from learners.popularity import Popularity
from learners.probability import ProbabilityOptions
from learners.probability_items import ItemProbability
from learners.tagger import Tagger, TaggerOptions
from learners.transitions import Transitions
from schemas.content import CatalogueSource, EncodedVector, FoundTag, ItemContent, ItemTags, packed_vector
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.media import Modality
from schemas.runs import Float32, Int32
from schemas.settings import LearnerSettings, ObjectiveSettings
from serving.ranking import Ranker
from serving.recommender import Recommender, half_lives_h
from streams.item_contents import ItemContents

from .learner_data import interactions

HOUR_MS = 3_600_000.0
NOTHING = np.zeros(0, dtype=np.bool_)

ENCODERS: Final[dict[str, EmbeddingOptions]] = {
    "embeddings": EmbeddingOptions(),
    "embeddings with attention, shifts and in-batch negatives": EmbeddingOptions(
        heads=2, shifts=2, in_batch=True
    ),
    "embeddings in steps of 8 against 16 negatives": EmbeddingOptions(step_targets=8, negatives=16),
    "embeddings by bce": EmbeddingOptions(loss="bce", in_batch=True),
    "embeddings by bce and adam": EmbeddingOptions(loss="bce", optimizer="adam", half=True),
    "embeddings by bpr and sgd": EmbeddingOptions(loss="bpr", optimizer="sgd"),
    "embeddings by bpr with attention": EmbeddingOptions(loss="bpr", heads=1),
    "embeddings by adam": EmbeddingOptions(optimizer="adam", rate=0.02),
    "embeddings with objectives, late and short user rows": EmbeddingOptions(
        objectives=ObjectiveSettings(watch=0.7, engagement=2.0, rejection=0.5, ignored=0.0),
        user_admission=3,
        user_idle_ms=1_800_000,
    ),
    "embeddings with item rows at 3 events": EmbeddingOptions(item_admission=3),
    "embeddings with attention, late item rows and shifts": EmbeddingOptions(
        item_admission=2, heads=1, shifts=1, in_batch=True
    ),
    "embeddings by adam with short user rows": EmbeddingOptions(optimizer="adam", user_idle_ms=600_000),
}
"""Every value of every choice at least once."""


def encoder(name: str) -> Callable[[], Embeddings]:
    """Maker of a small encoder with the choices of that name."""
    return lambda: Embeddings(dim=16, history=10, seed=5, options=ENCODERS[name])


class RankedGate:
    """A gate as a learner: it learns from what a ranker finds among learners that stay as they are.

    `predict` gives the score that a candidate has in the ranker's list, 0 where it has none.
    """

    def __init__(self, gate: Gate | Mixture, ranker: Ranker | Recommender) -> None:
        self._gate, self._ranker = gate, ranker

    @property
    def name(self) -> str:
        return self._gate.name

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        unseen = np.zeros((len(contexts.users), 0), dtype=np.int32)
        ranked = self._ranker.rank(contexts, unseen, NOTHING, scoring=True)
        same = (ranked.items[:, None, :] == items[None, :, None]) & (ranked.items >= 0)[:, None, :]
        scores: Float32 = np.where(same, ranked.scores[:, None, :], np.float32(0.0)).sum(axis=2)
        return scores

    def learn_many(self, batch: Interactions) -> None:
        newest = int(batch.ts_ms.max(initial=0))
        contexts = Contexts(users=batch.users, history=batch.history, now_ms=newest)
        targets = np.where(batch.fresh & (batch.weight > 0), batch.items, np.int32(-1)).astype(np.int32)
        self._ranker.learn_gate(contexts, targets, batch.history, NOTHING)

    def touched(self) -> TouchedKeys:
        return self._gate.touched()

    def snapshot(self) -> Arrays:
        return self._gate.snapshot()

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self._gate.restore(arrays)

    def digest(self) -> str:
        return self._gate.digest()


Evidence = tuple[Transitions, Popularity, Embeddings, Cooccurrence, Ease]


def new_evidence() -> Evidence:
    """Small learners for a recommender, cold."""
    lives = tuple(hours * HOUR_MS for hours in half_lives_h((24.0, 240.0)))
    near, linear = Cooccurrence(8, window=10), Ease(24, width=8)
    return Transitions(8), Popularity(lives), Embeddings(dim=16, history=10, seed=5), near, linear


@cache
def _evidence() -> Evidence:
    evidence = new_evidence()
    batch = interactions(seed=1, n=1_500)
    for learner in evidence:
        learner.learn_many(batch)
    return evidence


def ranked_gate() -> RankedGate:
    """The gate of the sparse path."""
    transitions, popularity, *_ = _evidence()
    gate = Gate()
    return RankedGate(gate, Ranker(transitions, popularity, gate, list_size=60, exclude_seen=False))


def ranked_mixture() -> RankedGate:
    """The gate over everything."""
    mixture = Mixture()
    recommender = Recommender(*_evidence(), mixture, list_size=60, exclude_seen=False)
    return RankedGate(mixture, recommender)


@cache
def _attention() -> Attentions:
    batch = interactions(seed=2, n=600)
    long = (batch.weight > 0).astype(np.int32)
    attributes = (np.arange(40, dtype=np.int32)[:, None] % np.array([7, 3])).astype(np.int32)
    watched = histories_of(batch.users, batch.items, long)
    live, prior = (train_attention(watched, attributes, epochs=1, seed=seed) for seed in range(2))
    return Attentions(live, prior)


def item_probability(*, attention: bool = False) -> ItemProbability:
    """A small probability learner that knows a few items' attributes."""
    options = ProbabilityOptions(table_bits=12, factor_bits=10, max_users=16)
    learner = ItemProbability(options, _attention() if attention else None, window_ms=600_000, capacity=128)
    for item in range(30):
        learner.set_item(item, creator=item % 7, tag=item % 3, duration_ms=9_000 * (item % 5))
    return learner


DIMS: Final = {"text": 12, "image": 7, "audio": 5}
MODALITIES: Final[tuple[Modality, ...]] = ("text", "image", "audio")


def content_items(kind: Literal["gate", "concat"] = "gate") -> ContentItems:
    """Content of most items, some modalities lacking, beside embeddings that learned before."""
    fusion = ContentFusion(DIMS, 16, seed=4, options=FusionOptions(kind=kind))
    learner = ContentItems(fusion, _evidence()[2], max_items=64)
    random = np.random.default_rng(8)
    for item in range(35):
        vectors = {
            name: random.normal(size=size).astype(np.float32)
            for k, (name, size) in enumerate(DIMS.items())
            if (item + k) % 3 or name == "text"
        }
        learner.set_item(item, vectors)
    learner.touched()
    return learner


def item_contents() -> ItemContents:
    """The same from records of the item-content topic, with tags, as worker and learner keep it."""
    settings = LearnerSettings(
        dim=16, max_items=1_024, content_models=tuple(f"{name}=m:{size}" for name, size in DIMS.items())
    )
    learner = ItemContents(_evidence()[2], settings)
    random = np.random.default_rng(8)
    source = CatalogueSource(partition=0, offset=0)
    for item in range(35):
        vectors = [
            EncodedVector(
                modality=modality, model="m", version="1",
                values=packed_vector(random.normal(size=DIMS[modality]).astype(np.float32)),
            )
            for k, modality in enumerate(MODALITIES)
            if (item + k) % 3 or modality == "text"
        ]  # fmt: skip
        content = ItemContent(
            item_id=f"v{item}", content_hash="0" * 32, encoders="0" * 32, source=source, encoded_at_ms=0,
            language="und", labels=[], vectors=vectors, missing=[],
        )  # fmt: skip
        learner.put(item, content)
        tag = FoundTag(tag=f"t{item % 5}", probability=0.5, given=True, source="learned", spoke={})
        tags = ItemTags(
            item_id=f"v{item}",
            content_hash="0" * 32,
            encoders="0" * 32,
            source=source,
            n_examples=1,
            tags=[tag],
        )
        learner.put_tags(item, tags)
    return learner


class TaggedItems:
    """The tagger as a learner: a positive brings its item's content and tags; `predict` scores tag 0."""

    def __init__(self, kind: Literal["gate", "concat"]) -> None:
        self._tagger = Tagger(DIMS, TaggerOptions(kind=kind, max_tags=8))
        random = np.random.default_rng(8)
        vectors = {name: random.normal(size=(64, size)).astype(np.float32) for name, size in DIMS.items()}
        vectors["image"][::3] = np.nan
        self._content = content_of(64, vectors, DIMS)
        self._tagger.set_tag_text("t0", random.normal(size=DIMS["text"]).astype(np.float32))

    @property
    def name(self) -> str:
        return self._tagger.name

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        known = np.clip(items, 0, 63)
        p = self._tagger.predict(self._content.take(known)).probabilities[:, 0]
        return np.tile(p, (len(contexts.users), 1))

    def learn_many(self, batch: Interactions) -> None:
        items = batch.items[batch.fresh & (batch.weight > 0)]
        tags = [[f"t{item % 5}", f"u{item % 11}"][: item % 3] for item in items.tolist()]
        self._tagger.learn(self._content.take(items), tags)

    def touched(self) -> TouchedKeys:
        return self._tagger.touched()

    def snapshot(self) -> Arrays:
        return self._tagger.snapshot()

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self._tagger.restore(arrays)

    def digest(self) -> str:
        return self._tagger.digest()
