"""What of the sequence encoder can be chosen."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from schemas.settings import LearnerSettings, ObjectiveSettings

DAY_MS: Final = 86_400_000
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

    objectives: ObjectiveSettings = ObjectiveSettings()
    """What each kind of evidence weighs in the loss: times omega, or as it is for `ignored`."""

    user_admission: int = 1
    """Positives after which a user gets a row: see `learners.user_rows`."""

    user_idle_ms: int | None = None
    """Event time after which an idle user's row goes; None for never."""

    item_admission: int = 1
    """Events after which an item has a row: see `learners.item_admission`."""

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
            objectives=settings.objectives,
            item_admission=settings.item_admission,
            user_admission=settings.user_admission,
            user_idle_ms=None if settings.user_idle_days is None else round(settings.user_idle_days * DAY_MS),
        )
