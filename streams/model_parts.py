"""The learners and the ranker of a model, as the settings say: the learner's own and its replicas'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from learners.blend import Gate
from learners.heat import RoomHeat
from learners.popularity import Popularity
from learners.transitions import Transitions
from schemas.errors import ConfigurationError
from schemas.fork_join import ALONE, ForkJoin
from schemas.settings import LearnerSettings, RankerSettings
from serving.ranking import Ranker

if TYPE_CHECKING:
    from learners.cooccurrence import Cooccurrence
    from learners.ease import Ease
    from learners.embeddings import Embeddings
    from learners.mixture import Mixture
    from learners.tastes import Tastes
    from serving.recommender import Recommender

    from .item_contents import ItemContents

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000


class Parts(Struct, kw_only=True):
    """What is None goes with embeddings."""

    transitions: Transitions
    popularity: Popularity
    heat: RoomHeat
    gate: Gate | Mixture
    embeddings: Embeddings | None = None
    cooccurrence: Cooccurrence | None = None
    ease: Ease | None = None
    tastes: Tastes | None = None
    ranker: Ranker | Recommender
    device: str = "none"
    device_name: str = "cpu"


def build_content(learner: LearnerSettings, parts: Parts) -> ItemContents:
    """What knows items by their content; the ranker ranks by it from then on.

    Raises
    ------
    ConfigurationError
        There are no item rows to learn towards.
    """
    if parts.embeddings is None or isinstance(parts.ranker, Ranker):
        raise ConfigurationError("learner.content", "needs learner.embeddings")
    from learners.content_evidence import ContentEvidence

    from .item_contents import ItemContents

    contents = ItemContents(parts.embeddings, learner)
    parts.ranker.know(ContentEvidence(contents.items, parts.embeddings, parts.popularity))
    return contents


def half_lives_of(embeddings: bool, configured: tuple[float, ...]) -> tuple[float, ...]:
    """Half-lives of popularity in hours: those configured, and with embeddings what the mixture wants."""
    if not embeddings:
        return configured
    from serving.recommender import half_lives_h

    return half_lives_h(configured)


def build_parts(
    learner: LearnerSettings,
    ranker: RankerSettings,
    *,
    list_size: int,
    device: str,
    n_never: int | None = None,
    heads: tuple[int, int] | None = None,
    fork_join: ForkJoin = ALONE,
    with_tastes: bool | None = None,
    with_content: bool = False,
) -> Parts:
    """New learners and their ranker.

    Parameters
    ----------
    learner, ranker : settings
    list_size : int
        Items of a list.
    device : str
        Where embeddings live: as the setting `learner.device`.
    n_never : int, optional
        Newest items that are not listed though seen ones may be; None for as many as the product does.
    heads : tuple of two int, optional
        As in `Embeddings`, to measure what others would lose.
    fork_join : ForkJoin
        Threads of the transitions and the ranker.
    with_tastes : bool, optional
        Whether viewers' tastes are learned and order lists; None for what `learner.tastes` says.

    with_content : bool
        Whether the mixture has weights for what items are, see `build_content`.

    Raises
    ------
    ConfigurationError
        `learner.tastes` without embeddings.
    """
    transitions = Transitions(
        learner.transition_width,
        half_life_ms=learner.transition_half_life_h * HOUR_MS,
        max_items=learner.max_items,
        fork_join=fork_join,
    )
    lives = half_lives_of(learner.embeddings, learner.popularity_half_lives_h)
    popularity = Popularity(tuple(hours * HOUR_MS for hours in lives), max_items=learner.max_items)
    heat = RoomHeat(learner.live_half_life_min * MINUTE_MS, max_items=learner.max_items)
    wanted = learner.tastes if with_tastes is None else with_tastes
    if learner.tastes and not learner.embeddings:
        raise ConfigurationError("learner.tastes", "needs learner.embeddings")
    if not learner.embeddings:
        gate = Gate()
        sparse = Ranker(
            transitions,
            popularity,
            gate,
            list_size=list_size,
            exclude_seen=ranker.exclude_seen,
            fork_join=fork_join,
        )
        return Parts(transitions=transitions, popularity=popularity, heat=heat, gate=gate, ranker=sparse)
    # torch loads here: seconds, and only if wanted.
    from learners.blend_kernels import NEVER_AGAIN
    from learners.cooccurrence import Cooccurrence
    from learners.device import device_name, resolve_device
    from learners.ease import Ease
    from learners.embedding_options import EmbeddingOptions
    from learners.embeddings import Embeddings
    from learners.item_head import HASTY_HEAD, HEAD
    from learners.mixture import INITIAL_CONTENT, Mixture
    from learners.tastes import Tastes
    from serving.recommender import Recommender

    where = resolve_device(device)
    embeddings = Embeddings(
        dim=learner.dim,
        history=learner.history,
        seed=learner.seed,
        device=where,
        options=EmbeddingOptions.of(learner),
        heads=(HEAD, HASTY_HEAD) if heads is None else heads,
    )
    cooccurrence, ease = Cooccurrence(max_items=learner.max_items), Ease(max_items=learner.max_items)
    mixture = Mixture(INITIAL_CONTENT if with_content else ())
    tastes = Tastes(max_items=learner.max_items) if wanted else None
    full = Recommender(
        transitions,
        popularity,
        embeddings,
        cooccurrence,
        ease,
        mixture,
        list_size=list_size,
        exclude_seen=ranker.exclude_seen,
        n_never=NEVER_AGAIN if n_never is None else n_never,
        tastes=tastes,
    )
    return Parts(
        transitions=transitions,
        popularity=popularity,
        heat=heat,
        gate=mixture,
        embeddings=embeddings,
        cooccurrence=cooccurrence,
        ease=ease,
        tastes=tastes,
        ranker=full,
        device=str(where),
        device_name=device_name(str(where)),
    )
