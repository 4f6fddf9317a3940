"""Tagging in folds: learn the other folds in one pass, in random order, then tag the items of this one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from learners.content_vectors import ContentVectors, content_of
from learners.tag_metrics import TagFigures, TagMetrics
from learners.tagger import Tagger, TaggerOptions, TagScores
from schemas.runs import Float32, Int64

N_FOLDS = 5


class Labelled(Struct):
    """Items with a vector a modality (rows of NaN where it lacks), and one tag each."""

    vectors: dict[str, Float32]
    tags: list[str]
    tag_texts: dict[str, Float32]
    groups: Int64  # (N,) items of a group are always in one fold

    def __len__(self) -> int:
        return len(self.tags)

    def only(self, rows: Int64) -> Labelled:
        """Some of the items."""
        return Labelled(
            {name: each[rows] for name, each in self.vectors.items()},
            [self.tags[row] for row in rows.tolist()],
            self.tag_texts,
            self.groups[rows],
        )


def grouped(titles: Sequence[str], stems: Sequence[str]) -> Int64:
    """Groups of items with the same title, or the same first word of the file name: versions of one thing.

    >>> grouped(["A cat.", "The cat", "Dog"], ["cat_1", "tom", "dog"]).tolist()
    [0, 0, 2]
    """
    parent = list(range(len(titles)))

    def root(item: int) -> int:
        while parent[item] != item:
            item = parent[item]
        return item

    first: dict[tuple[str, str], int] = {}
    for item, (title, stem) in enumerate(zip(titles, stems, strict=True)):
        words = re.sub(r"[^\w ]", "", title.lower()).strip()
        name = re.split(r"[^a-z]+", stem.lower().strip("_-0123456789 "))[0]
        for key in (("title", re.sub(r"^(an?|the|some) ", "", words)), ("stem", name)):
            if len(key[1]) >= 3:
                parent[root(item)] = root(first.setdefault(key, item))
    return np.array([root(item) for item in range(len(titles))], dtype=np.int64)


def folds_of(groups: Int64, seed: int) -> Int64:
    """A fold for each item, groups whole and folds of about the same size."""
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled = np.zeros(N_FOLDS, dtype=np.int64)
    fold = np.zeros(len(groups), dtype=np.int64)
    for place in order:
        chosen = int(filled.argmin())
        fold[groups == names[place]] = chosen
        filled[chosen] += sizes[place]
    return fold


def tagged(
    data: Labelled, modalities: Sequence[str], seed: int, options: TaggerOptions, *, by_text: bool = True
) -> TagFigures:
    """Figures over all folds of a seed, of a tagger that sees these modalities."""
    dims = {name: data.vectors[name].shape[1] for name in modalities}
    content = content_of(len(data), {name: data.vectors[name] for name in modalities}, dims)
    fold = folds_of(data.groups, seed)
    names = sorted(set(data.tags))
    labels = np.array([[tag == name for name in names] for tag in data.tags], dtype=np.float32)
    metrics = TagMetrics()
    for one in range(N_FOLDS):
        tagger = Tagger(dims, options)
        for name in names if by_text and options.text in dims else []:
            tagger.set_tag_text(name, data.tag_texts[name])
        others = np.random.default_rng([seed, one]).permutation(np.flatnonzero(fold != one))
        tagger.learn(taken_from(content, others), [[data.tags[row]] for row in others.tolist()])
        rows = np.flatnonzero(fold == one)
        found = tagger.predict(taken_from(content, rows))
        column = {name: at for at, name in enumerate(tagger.tags)}
        order = [column[name] for name in names if name in column]
        known = np.array([name in column for name in names])
        p = np.zeros((len(rows), len(names)), dtype=np.float32)
        given = np.zeros(p.shape, dtype=np.bool_)
        p[:, known], given[:, known] = found.probabilities[:, order], found.given[:, order]
        metrics.add(TagScores(p, given), labels[rows])
    return metrics.figures()


def taken_from(content: ContentVectors, rows: Int64) -> ContentVectors:
    return content.take(rows.astype(np.int32))
