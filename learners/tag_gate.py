"""The gate over what each modality says of each tag, and the calibration of what comes out.

With the scores s_mt that modality m gives tag t beyond the tag's share (`learners.tagger`), how sure m is,
q_m = max_t s_mt, with k modalities present, and c_t, how near the item's text is to that of the tag::

    a_m = softmax over the present m of (o_m + v_m q_m)
    r_t = k sum_m a_m s_mt + beta w_t c_t            w_t = 200 / (200 + n_t)
    p_t = sigmoid(A r_t + b_0 + b_t)                 A = exp(l)

The factor k makes a gate that prefers nobody a sum: what two modalities say adds up. A tag without an
example has s_mt = 0 and b_t = 0, and lives on its text; the more examples n_t, the less its text counts.

o, v and beta learn from the binary cross entropy with classes balanced: of a tag, examples and the rest
have the same weight together (at most `MAX_WEIGHT` times that of an item), through an A and biases of
their own. The A and b of p learn from the plain one, where r is a given: so p is a probability. All by
Adagrad, from scores that were made before the item was learned.

References
----------
Platt, Probabilistic outputs for support vector machines, 1999. King and Zeng, Logistic regression in rare
events data, Political Analysis 2001 (weights for classes, and what they do to probabilities).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from schemas.runs import Float32, Float64, Int64

from .content_vectors import Bools

HALF_EXAMPLES: Final = 200.0
MAX_WEIGHT: Final = 20.0
RATE: Final = 0.1
_CUT: Final = 30.0


class Gated(NamedTuple):
    """What the gate makes of N items, M modalities and T tags."""

    weights: Float64  # (N, M) k a
    by_modality: Float64  # (N, M, T) k a_m s_mt
    by_text: Float64  # (N, T) beta w_t c_t
    raw: Float64  # (N, T) r
    logits: Float64  # (N, T) of p


class TagGate:
    """See the module's docstring.

    Parameters
    ----------
    n_modalities : int
    """

    def __init__(self, n_modalities: int) -> None:
        m = n_modalities
        self.shared: Float64 = np.zeros(2 * m + 5)
        """o (M), v (M), beta, then l and b_0 of the balanced form and of p."""
        self.shared[m : 2 * m] = 2.0
        self.shared[2 * m :] = [1.5, np.log(6.0), -1.0, np.log(6.0), -3.0]
        self.shared_squares: Float64 = np.full(2 * m + 5, 1e-2)
        self.biases: Float64 = np.zeros((2, 0))
        """b_t of the balanced form and of p, (2, T)."""
        self.bias_squares: Float64 = np.zeros((2, 0))
        self._m = m

    def widen(self, n_tags: int) -> None:
        """Have at least so many tags."""
        missing = n_tags - self.biases.shape[1]
        if missing > 0:
            self.biases = np.pad(self.biases, ((0, 0), (0, missing)))
            self.bias_squares = np.pad(self.bias_squares, ((0, 0), (0, missing)), constant_values=1e-2)

    def clear(self, tag: int) -> None:
        """A column becomes another tag."""
        self.biases[:, tag], self.bias_squares[:, tag] = 0.0, 1e-2

    def mix(self, scores: Float32, present: Bools, nearness: Float32, counts: Int64) -> Gated:
        """Weigh `scores` (N, M, T) of the `present` (N, M) and the texts' `nearness` (N, T)."""
        m = self._m
        s = scores.astype(np.float64)
        share = self._shares(s, present)
        weights = share * present.sum(axis=1, keepdims=True)
        by_modality = weights[:, :, None] * s
        by_text = self.shared[2 * m] * _text_weight(counts) * nearness
        raw = by_modality.sum(axis=1) + by_text
        logits = np.exp(self.shared[2 * m + 3]) * raw + self.shared[2 * m + 4] + self.biases[1]
        return Gated(weights, by_modality, by_text, raw, logits)

    def learn(
        self, scores: Float32, present: Bools, nearness: Float32, labels: Float32, counts: Int64, n: int
    ) -> bool:
        """One step on N items with `labels` (N, T); `counts` (T,) of `n` items had the tag before.

        False where it was left out, as its gradient was not finite.
        """
        m, y = self._m, labels.astype(np.float64)
        found = self.mix(scores, present, nearness, counts)
        scale = 1.0 / max(len(y), 1)
        slope, offset = np.exp(self.shared[2 * m + 1]), self.shared[2 * m + 2]
        balanced = _sigmoid(slope * found.raw + offset + self.biases[0])
        d_balanced = _class_weights(y, counts, n) * (balanced - y) * scale  # (N, T)
        d_plain = (_sigmoid(found.logits) - y) * scale
        gradient = np.zeros_like(self.shared)
        d_raw = slope * d_balanced
        k = present.sum(axis=1, keepdims=True).astype(np.float64)
        share = np.divide(found.weights, k, out=np.zeros_like(found.weights), where=k > 0)
        s = scores.astype(np.float64)
        d_share = k * (d_raw[:, None, :] * s).sum(axis=2)  # (N, M)
        d_asked = share * (d_share - (share * d_share).sum(axis=1, keepdims=True))
        gradient[:m] = d_asked.sum(axis=0)
        gradient[m : 2 * m] = (d_asked * _sureness(s)).sum(axis=0)
        gradient[2 * m] = (d_raw * _text_weight(counts) * nearness).sum()
        gradient[2 * m + 1] = slope * (d_balanced * found.raw).sum()
        gradient[2 * m + 2] = d_balanced.sum()
        gradient[2 * m + 3] = np.exp(self.shared[2 * m + 3]) * (d_plain * found.raw).sum()
        gradient[2 * m + 4] = d_plain.sum()
        of_tags = np.stack([d_balanced.sum(axis=0), d_plain.sum(axis=0)])
        if not (np.isfinite(gradient).all() and np.isfinite(of_tags).all()):
            return False
        self.shared_squares += gradient**2
        self.shared -= RATE * gradient / np.sqrt(self.shared_squares)
        self.bias_squares += of_tags**2
        self.biases -= RATE * of_tags / np.sqrt(self.bias_squares)
        return True

    def _shares(self, scores: Float64, present: Bools) -> Float64:
        asked = self.shared[: self._m] + self.shared[self._m : 2 * self._m] * _sureness(scores)
        asked = np.where(present, asked, -np.inf)
        top = np.where(present.any(axis=1), asked.max(axis=1, initial=-np.inf), 0.0)[:, None]
        exps = np.exp(asked - top)
        total = exps.sum(axis=1, keepdims=True)
        shares: Float64 = np.divide(exps, total, out=np.zeros_like(exps), where=total > 0)
        return shares


def _sureness(scores: Float64) -> Float64:
    sureness: Float64 = np.clip(scores.max(axis=2, initial=0.0), 0.0, 1.0)
    return sureness


def _text_weight(counts: Int64) -> Float64:
    weight: Float64 = HALF_EXAMPLES / (HALF_EXAMPLES + counts.astype(np.float64))
    return weight


def _class_weights(labels: Float64, counts: Int64, n: int) -> Float64:
    """Weights of the items for each tag, (N, T): n / (2 n_t) for examples, n / (2 (n - n_t)) for others."""
    seen = counts + labels.sum(axis=0)
    total = n + len(labels)
    of_examples = np.minimum(total / (2.0 * np.maximum(seen, 1.0)), MAX_WEIGHT)
    of_others = np.minimum(total / (2.0 * np.maximum(total - seen, 1.0)), MAX_WEIGHT)
    weights: Float64 = np.where(labels > 0, of_examples, of_others)
    return weights


def _sigmoid(z: Float64) -> Float64:
    p: Float64 = 1.0 / (1.0 + np.exp(-np.clip(z, -_CUT, _CUT)))
    return p
