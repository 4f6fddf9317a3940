"""What of the sequence encoder can be chosen."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from schemas.settings import LearnerSettings

Loss = Literal["softmax", "bce", "bpr"]
Optimizer = Literal["adagrad", "adam", "sgd"]


class EmbeddingOptions(Struct, frozen=True, kw_only=True):
    """Choices of `learners.embeddings.Embeddings`; what each brings stands in docs/embeddings.md."""

    heads: int = 0
    """Attention heads added to the pooling as a residual; 0 for none."""

    loss: Loss = "softmax"
    """Loss over targets and drawn negatives: see `learners.embedding_losses`."""

    optimizer: Optimizer = "adagrad"
    """How item and user rows move: see `learners.adagrad`. Dense parameters always take Adagrad."""

    rate: float | None = None
    """Learning rate of the rows; None for what suits the optimiser."""

    in_batch: bool = False
    """Whether the other targets of a step are negatives too, beside those drawn."""

    negatives: int = 1024
    """Negatives drawn a step; 256 lose .007 to .014 of R@20."""

    step_targets: int = 64
    """Most fresh positives of one step. Half of them cost nearly twice as much an event."""

    shifts: int = 0
    """Further contexts a target is learned from: the history without its last 1 .. shifts items."""

    shift_weight: float = 0.5
    """Weight of the first of them; the s-th weighs its s-th power."""

    impression_weight: float = 0.1
    """Weight of an ignored impression in the logistic term; skips and dislikes weigh ``|omega|``."""

    half: bool = False
    """bfloat16 products of users with drawn negatives (for GPUs); sums and tables stay float32."""

    @classmethod
    def of(cls, settings: LearnerSettings) -> EmbeddingOptions:
        """The choices in the section ``learner`` of the settings."""
        return cls(
            heads=settings.attention_heads,
            loss=settings.loss,
            optimizer=settings.optimizer,
            rate=settings.learning_rate,
            in_batch=settings.in_batch_negatives,
            shifts=settings.shifted_contexts,
            half=settings.mixed_precision,
        )
