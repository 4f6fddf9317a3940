"""Tags of items from their content, learned as catalogues bring items with tags.

Each modality has a ridge regression on all tags (`learners.recursive_ridge`), a gate weighs what they say,
and one map makes probabilities of it (`learners.tag_gate`)::

    u_m = LayerNorm(x_m) / sqrt(D_m)        s_mt = W_mt'[u_m ; 1] - n_t / n
    c_t = tau_t . (x_text - mean x_text)    p_t = sigmoid(A (k sum_m a_m s_mt + beta w_t c_t) + b_0 + b_t)

with unit text vectors x of the item and tau of the tag, and n_t of n items that had the tag: s is what a
modality says beyond that, so one that lacks says nothing, neither for nor against. A tag is given where p_t
reaches the tag's threshold (`learners.tag_thresholds`). Every term but the biases belongs to one modality:
`explain` says which spoke for a tag, and by how much.

An item is predicted, then learned; one pass, nothing is kept of the items. An item that brings no tags
teaches nothing, as nobody may have looked; of one that brings some, those it lacks count as absent.

`kind` "concat" is one regression on all vectors side by side, zeros where one lacks, for comparison.

References
----------
Zhang and Zhou, A review on multi-label learning algorithms, TKDE 2014 (binary relevance). Socher et al.,
Zero-shot learning through cross-modal transfer, NeurIPS 2013.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays, TouchedKeys
from schemas.runs import Float32, Float64, Int32

from .content_vectors import Bools, ContentVectors, normalised, usable
from .recursive_ridge import RecursiveRidge
from .state import digest_arrays, taken
from .tag_gate import Gated, TagGate
from .tag_thresholds import TagThresholds
from .tag_vocabulary import TagVocabulary

BLOCK: Final = 32
SIDE_BY_SIDE: Final = "side by side"


class TaggerOptions(Struct, frozen=True, kw_only=True):
    """Choices of `Tagger`."""

    kind: Literal["gate", "concat"] = "gate"
    text: str = "text"
    """The modality in whose space the tags' text vectors are."""
    ridge: float = 0.2
    max_tags: int = 4_096


class TagScores(NamedTuple):
    """What is thought of N items before they are learned; T tags, in the order of `Tagger.tags`."""

    probabilities: Float32  # (N, T)
    given: Bools  # (N, T) whether the tag's threshold is reached


class Spoken(NamedTuple):
    """Why a tag has its logit: bias + sum of the shares, exactly."""

    tag: str
    probability: float
    bias: float
    modalities: dict[str, float]
    """Share of each modality through the gate; 0 for one that lacks."""
    tag_text: float
    """Share of the likeness of the item's text to the tag's: the text spoke, but unlearned."""


class _Read(NamedTuple):
    rows: list[Float32]  # inputs of each regression, (N, D_m)
    present: Bools  # (N, regressions)
    texts: Float64  # (N, D) unit text vectors, 0 where there is none
    nearness: Float32  # (N, T) c


class Tagger:
    """See the module's docstring. Name ``tagger``.

    Cost on one core with 512 + 1 024 numbers: 0.5 ms an item (`benchmarks.content` prints it).
    Memory 8 D_m^2 bytes a modality, and for each tag 8 sum D_m + 4 D_text + 5 * 256.

    Parameters
    ----------
    dims : mapping of str to int
        Modalities with their dimensions, in order.
    """

    def __init__(self, dims: Mapping[str, int], options: TaggerOptions | None = None) -> None:
        self.dims, self.options = dict(dims), options or TaggerOptions()
        joint = self.options.kind == "concat"
        sizes = {SIDE_BY_SIDE: sum(dims.values())} if joint else self.dims
        self._ridges = {
            name: RecursiveRidge(size, 0, ridge=self.options.ridge) for name, size in sizes.items()
        }
        self._gate = TagGate(len(sizes))
        self._thresholds = TagThresholds()
        text_dim = self.dims.get(self.options.text, 0)
        self._vocabulary = TagVocabulary(self.options.max_tags, text_dim)
        self._text_sum: Float64 = np.zeros(text_dim)
        self._counts = np.zeros(2, dtype=np.int64)  # items learned, texts in the sum
        self._is_dirty = False
        self.discarded_steps = 0
        """Blocks not learned because something would not have stayed finite."""

    @property
    def name(self) -> str:
        """Stable name."""
        return "tagger"

    @property
    def tags(self) -> Sequence[str]:
        """Tags known, by column."""
        return tuple(self._vocabulary.names)

    @property
    def examples(self) -> dict[str, int]:
        """How many items brought each tag."""
        return dict(zip(self._vocabulary.names, self._vocabulary.counts.tolist(), strict=True))

    # -- reading ------------------------------------------------------------------------------

    def predict(self, content: ContentVectors) -> TagScores:
        """Probabilities of all tags for N items, and which are given; state unchanged."""
        gated = self._gated(self._read(content))
        return self._scores(gated)

    def explain(self, content: ContentVectors, tags: Sequence[str]) -> list[list[Spoken]]:
        """For each of N items, which modality spoke for (or, below 0, against) each of `tags`.

        Tags that are not known are left out.
        """
        columns = [each for tag in tags if (each := self._vocabulary.column(tag)) is not None]
        gated = self._gated(self._read(content))
        a = float(np.exp(self._gate.shared[-2]))
        p = _sigmoid(gated.logits)
        return [
            [
                Spoken(
                    tag=self._vocabulary.names[t],
                    probability=float(p[i, t]),
                    bias=float(gated.logits[i, t] - a * gated.raw[i, t]),
                    modalities={
                        name: a * float(gated.by_modality[i, m, t]) for m, name in enumerate(self._ridges)
                    },
                    tag_text=a * float(gated.by_text[i, t]),
                )
                for t in columns
            ]
            for i in range(len(content))
        ]

    # -- learning -----------------------------------------------------------------------------

    def set_tag_text(self, tag: str, vector: Float32) -> None:
        """Make a tag known by its text vector (D,), in the space of the items' text."""
        if vector.shape != (self._vocabulary.texts.shape[1],):
            raise ValueError(f"the text of {tag!r} has the shape {vector.shape}")
        column, is_new = self._vocabulary.admit(tag)
        self._make_room(column, is_new=is_new)
        self._vocabulary.set_text(column, vector)
        self._is_dirty = True

    def learn(self, content: ContentVectors, tags: Sequence[Sequence[str]]) -> TagScores:
        """Learn N items in order, in blocks of `BLOCK`; what was thought of each before its block.

        Tags new to a block have columns in its prediction: their text may already have said something.
        """
        parts: list[TagScores] = []
        for start in range(0, len(content), BLOCK):
            block = slice(start, start + BLOCK)
            parts.append(self._learn_block(content.take(block), tags[block]))
        n_tags = len(self._vocabulary)
        return TagScores(
            _stacked([part.probabilities for part in parts], n_tags),
            _stacked([part.given for part in parts], n_tags),
        )

    def _learn_block(self, content: ContentVectors, tags: Sequence[Sequence[str]]) -> TagScores:
        for name in sorted({name for names in tags for name in names}):
            column, is_new = self._vocabulary.admit(name)
            self._make_room(column, is_new=is_new)
        read = self._read(content)
        gated = self._gated(read)
        scores = self._scores(gated)
        labelled: Bools = np.array([len(names) > 0 for names in tags], dtype=np.bool_)
        self._text_sum += read.texts.sum(axis=0)
        self._counts[1] += int(read.texts.any(axis=1).sum())
        if labelled.any():
            self._learn_labelled(read, scores, labelled, self._vocabulary.labels(tags))
        self._is_dirty = True
        return scores

    def _learn_labelled(self, read: _Read, scores: TagScores, labelled: Bools, labels: Float32) -> None:
        y = labels[labelled]
        said = self._said(read)[labelled]
        counts = self._vocabulary.counts
        present, nearness = read.present[labelled], read.nearness[labelled]
        fine = self._gate.learn(said, present, nearness, y, counts, int(self._counts[0]))
        for column, (ridge, rows) in enumerate(zip(self._ridges.values(), read.rows, strict=True)):
            has = present[:, column]
            if has.any():
                fine &= ridge.learn(rows[labelled][has], y[has])
        self.discarded_steps += not fine
        self._thresholds.add(scores.probabilities[labelled], y)
        counts += y.sum(axis=0).astype(np.int64)
        self._counts[0] += len(y)

    def _make_room(self, column: int, *, is_new: bool) -> None:
        n = len(self._vocabulary)
        self._gate.widen(n)
        self._thresholds.widen(n)
        for ridge in self._ridges.values():
            ridge.widen(n)
        if is_new:
            self._gate.clear(column)
            self._thresholds.clear(column)
            for ridge in self._ridges.values():
                ridge.clear(column)

    def _read(self, content: ContentVectors) -> _Read:
        if list(content.vectors) != list(self.dims):
            raise ValueError(f"the modalities are {list(content.vectors)}, not {list(self.dims)}")
        present = usable(content)
        rows = [normalised(x, present[:, m]) for m, x in enumerate(content.vectors.values())]
        texts = np.zeros((len(content), len(self._text_sum)))
        if self.options.text in self.dims:
            column = list(self.dims).index(self.options.text)
            has = present[:, column]
            x = content.vectors[self.options.text][has].astype(np.float64)
            lengths = np.linalg.norm(x, axis=1, keepdims=True)
            texts[has] = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
        mean = self._text_sum / max(int(self._counts[1]), 1)
        nearness = (texts - mean * texts.any(axis=1, keepdims=True)) @ self._vocabulary.texts.T
        if self.options.kind == "concat":
            rows, present = [np.concatenate(rows, axis=1)], present.max(axis=1, keepdims=True)
        return _Read(rows, present, texts, nearness.astype(np.float32))

    def _said(self, read: _Read) -> Float32:
        share = (self._vocabulary.counts / max(int(self._counts[0]), 1)).astype(np.float32)
        said = [
            (ridge.predict(rows) - share) * read.present[:, m, None]
            for m, (ridge, rows) in enumerate(zip(self._ridges.values(), read.rows, strict=True))
        ]
        return np.stack(said, axis=1)  # (N, M, T)

    def _gated(self, read: _Read) -> Gated:
        return self._gate.mix(self._said(read), read.present, read.nearness, self._vocabulary.counts)

    def _scores(self, gated: Gated) -> TagScores:
        p = _sigmoid(gated.logits).astype(np.float32)
        return TagScores(p, p >= self._thresholds.values)

    # -- state --------------------------------------------------------------------------------

    def touched(self) -> TouchedKeys:
        """Drain: the tagger as a whole, when it changed."""
        none: Int32 = np.zeros(0, dtype=np.int32)
        dense = ("tagger",) if self._is_dirty else ()
        self._is_dirty = False
        return TouchedKeys(items=none, users=none, dense=dense)

    def snapshot(self) -> Arrays:
        """Copies: ``tags.*``, ``gate.*``, ``thresholds.*``, ``ridge.<modality>.*``, two sums."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            An array is missing or malformed, or of other modalities or dimensions, or not finite.
        """
        vocabulary = self._vocabulary.restored(arrays, "tags")
        n = len(vocabulary)
        thresholds = self._thresholds.restored(arrays, "thresholds", n)
        gate = TagGate(len(self._ridges))
        for name, rows, like in (
            ("shared", len(gate.shared), gate.shared),
            ("shared_squares", len(gate.shared), gate.shared),
            ("biases", 2, np.zeros((2, n))),
            ("bias_squares", 2, np.zeros((2, n))),
        ):
            found = taken(arrays, f"gate.{name}", like, rows=rows)
            if not np.isfinite(found).all():
                raise StateError(f"'gate.{name}' holds numbers that are not finite")
            setattr(gate, name, found)
        ridges = {name: each.checked(arrays, f"ridge.{name}", n) for name, each in self._ridges.items()}
        text_sum = taken(arrays, "text_sum", self._text_sum, rows=len(self._text_sum))
        counts = taken(arrays, "counts", self._counts, rows=2)
        for name, (inverse, weights) in ridges.items():
            self._ridges[name].load(inverse, weights)
        self._vocabulary, self._thresholds, self._gate = vocabulary, thresholds, gate
        self._text_sum, self._counts = text_sum, counts
        self._is_dirty = True

    def digest(self) -> str:
        """Hash of the state (hex)."""
        return digest_arrays(self._arrays())

    def _arrays(self) -> Arrays:
        gate = self._gate
        parts: dict[str, Arrays] = {
            "tags": self._vocabulary.arrays(),
            "thresholds": self._thresholds.arrays(),
            "gate": {
                "shared": gate.shared,
                "shared_squares": gate.shared_squares,
                "biases": gate.biases,
                "bias_squares": gate.bias_squares,
            },
            **{f"ridge.{name}": each.arrays() for name, each in self._ridges.items()},
        }
        found: Arrays = {
            f"{part}.{key}": array for part, each in parts.items() for key, array in each.items()
        }
        return {**found, "text_sum": self._text_sum, "counts": self._counts}


def _sigmoid(z: Float64) -> Float64:
    p: Float64 = 1.0 / (1.0 + np.exp(-np.clip(z, -30.0, 30.0)))
    return p


def _stacked(parts: Sequence[NDArray[Any]], n_tags: int) -> NDArray[Any]:
    """Blocks with as many columns as the last; tags not known yet had 0."""
    padded = [np.pad(part, ((0, 0), (0, n_tags - part.shape[1]))) for part in parts]
    return np.concatenate(padded) if padded else np.zeros((0, n_tags))
