"""Tags of items for the content worker: learned from the catalogue's, found in what brings none."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from learners.content_vectors import ContentVectors, content_of
from learners.tag_metrics import TagFigures, TagMetrics
from learners.tagger import Tagger
from schemas.content import FoundTag, ItemContent, TagSource
from schemas.media import Modality
from schemas.runs import Float32
from schemas.settings import Settings

from .encoders import EncoderSet
from .keywords import Keywords

MOST_CHARS: Final = 64
LEAST: Final = 0.1
"""Probability from which a tag is worth telling of although it is not given."""


class Tagging:
    """A tagger behind a lock: one thread learns, another asks.

    Parameters
    ----------
    settings : Settings
    encoders : EncoderSet
        Vectors of others are not looked at.
    """

    def __init__(self, settings: Settings, encoders: EncoderSet) -> None:
        content = settings.content
        self._n = content.tags_per_item
        self._encoders = encoders
        self._lock = threading.Lock()
        self._tagger = Tagger(encoders.dims) if encoders.dims and self._n else None
        self._metrics = TagMetrics()
        self._n_examples = 0
        self._named: set[str] = set()
        self._keywords = Keywords() if content.keywords and self._n else None
        if self._keywords is not None:
            self._keywords.of("第一个中文标题")  # a second, which the first item would wait for
        self._name_tags(content.tags)

    @property
    def n_examples(self) -> int:
        """Items with tags that were learned."""
        return self._n_examples

    @property
    def n_tags(self) -> int:
        """Tags known."""
        return 0 if self._tagger is None else len(self._tagger.tags)

    def figures(self) -> TagFigures:
        """How well tags were found before they were learned."""
        with self._lock:
            return self._metrics.figures()

    def learn(self, contents: Sequence[ItemContent]) -> None:
        """Learn from items that the catalogue had tags for; those of other encoders say nothing here."""
        contents = [one for one in contents if one.encoders == self._encoders.digest and one.labels]
        if self._tagger is None or not contents:
            return
        self._name_tags([tag for one in contents for tag in one.labels])
        content = self._content([{each.modality: each.vector for each in one.vectors} for one in contents])
        labels = [one.labels for one in contents]
        with self._lock:
            scores = self._tagger.learn(content, labels)
            columns = {tag: column for column, tag in enumerate(self._tagger.tags)}
            there = np.zeros(scores.probabilities.shape, dtype=np.float32)
            for row, tags in enumerate(labels):
                there[row, [columns[tag] for tag in tags if tag in columns]] = 1.0
            self._metrics.add(scores, there)
            self._n_examples += len(contents)

    def find(
        self, vectors: Sequence[Mapping[Modality, Float32]], titles: Sequence[str]
    ) -> list[list[FoundTag]]:
        """Tags of items by their vectors of each modality and their titles, most probable first."""
        found: list[list[FoundTag]] = [[] for _ in vectors]
        if self._tagger is not None and vectors:
            with self._lock:
                if len(self._tagger.tags):
                    found = self._ask(self._tagger, self._content(vectors))
        if self._keywords is not None:
            for tags, title in zip(found, titles, strict=True):
                self._fill(self._keywords, tags, title)
        return found

    def _ask(self, tagger: Tagger, content: ContentVectors) -> list[list[FoundTag]]:
        scores, names, examples = tagger.predict(content), tagger.tags, tagger.examples
        p, given = scores.probabilities, scores.given
        found = []
        for row in range(len(content)):
            order = np.lexsort((-p[row], ~given[row]))[: self._n]
            chosen = [
                names[t]
                for t in order
                if (given[row, t] or p[row, t] >= LEAST) and len(names[t]) <= MOST_CHARS
            ]
            (spoken,) = tagger.explain(content.take(slice(row, row + 1)), chosen)
            reached = {names[t] for t in order if given[row, t]}
            tags = []
            for one in spoken:
                source: TagSource = "learned" if examples[one.tag] else "unseen"
                spoke = {name: round(share, 4) for name, share in one.modalities.items()}
                tags.append(
                    FoundTag(
                        tag=one.tag,
                        probability=round(one.probability, 6),
                        given=one.tag in reached,
                        source=source,
                        spoke=spoke | {"tag_text": round(one.tag_text, 4)},
                    )
                )
            found.append(sorted(tags, key=lambda tag: -(tag.probability or 0.0)))
        return found

    def _fill(self, keywords: Keywords, tags: list[FoundTag], title: str) -> None:
        known = {tag.tag.lower() for tag in tags}
        for word in keywords.of(title, self._n) if title else ():
            if len(tags) < self._n and word not in known and len(word) <= MOST_CHARS:
                tags.append(FoundTag(tag=word, probability=None, given=True, source="keyword", spoke={}))

    def _name_tags(self, tags: Sequence[str]) -> None:
        """Let the tagger know the text of tags that it has not met."""
        new = [tag for tag in dict.fromkeys(tags) if tag not in self._named]
        if self._tagger is None or not new:
            return
        self._named.update(new)
        if not self._encoders.slots["text"].encodes:
            return
        for tag, vector in zip(new, self._encoders.tag_texts(new), strict=True):
            if vector is not None and vector.any():
                with self._lock:
                    self._tagger.set_tag_text(tag, vector)

    def _content(self, vectors: Sequence[Mapping[Modality, Float32]]) -> ContentVectors:
        dims = self._encoders.dims
        rows = {name: np.full((len(vectors), size), np.nan, dtype=np.float32) for name, size in dims.items()}
        for row, each in enumerate(vectors):
            for name, vector in each.items():
                if len(vector) == dims.get(name):
                    rows[name][row] = vector
        return content_of(len(vectors), rows, dims)
