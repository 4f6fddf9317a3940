"""The model of one worker: item names, learners, ranker, and the board that scores them.

Everything here is the fold of the whole log; nothing here belongs to a partition.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from learners.adaptation import Adaptation
from learners.baselines import BaselinePlaces
from learners.drift import DriftMonitor
from learners.evaluation import MOST_PLACES, PrequentialBoard
from learners.markov import FirstOrderMarkov
from learners.mixture import TASTE_WEIGHT
from learners.popularity import is_available
from learners.signals import is_evidence
from learners.state import check_finite, digest_arrays, digest_texts, taken
from learners.tags import TagChain
from schemas.content import ItemContent, ItemTags
from schemas.errors import StateError
from schemas.fork_join import ALONE, ForkJoin
from schemas.interning import Interner
from schemas.learner import Arrays, Contexts, Interactions, Learner
from schemas.records import EVENT_TYPES, Item
from schemas.runs import Float32, Int32
from schemas.settings import LearnerSettings, OrderSettings, RankerSettings
from serving.fresh import Newcomers
from serving.ordering import DEPTH, Ordering, is_mixed, mixes
from serving.ranking import Ranked, Ranker
from serving.rooms import Rooms

from .catalogue import Catalogue
from .item_keys import describe
from .item_words import words_of
from .model_parts import build_content, build_parts
from .overload import EASE_GROWTH, STEPPED, TAUGHT, is_chosen, is_hasty, n_chosen
from .probabilities import MOST_LEARNED, asked_at_ms, build_probability, describe_all, describe_item
from .scoring_budget import ScoringBudget
from .ways import ways_of

COUNTS_KEPT: Final = 0.3
SQUARES_KEPT: Final = 0.1
USER_ROWS_KEPT: Final = 0.0
TASTES_KEPT: Final = 0.0
"""Shares of what was learned before a drift that stay when adapting begins."""

ADAPTING_TASTE_WEIGHT: Final = 3.0 * float(TASTE_WEIGHT)
"""In what orders lists while the model adapts: what is likely to be next was learned before."""

DRIFT_PLACES: Final = 10
MICRO_BATCH: Final = 128
MOST_DISCARDED: Final = 16
"""Encoder steps in a row without a finite gradient after which the tables themselves must be broken."""

MOST_SCORED: Final = 8
WINDOW: Final = 100
BOARD_NAMES: Final = ("reelflow", "popularity", "markov")
WATCH: Final = EVENT_TYPES.index("watch")
POPULARITY_HALF_LIFE: Final = 0
"""The baseline uses the first (shortest) configured half-life."""

Bools = NDArray[np.bool_]


class Learned(Struct, kw_only=True):
    """What became of a batch beyond the counts: events scored, in encoder steps, in gate steps, exposures."""

    scored: int = 0
    scoring_s: float = 0.0
    stepped: int = 0
    taught: int = 0
    drifts: int = 0
    discarded_steps: int = 0
    exposures: int = 0


class Model:
    """Learners and what joins them; touched by one thread.

    Parameters
    ----------
    learner : LearnerSettings
    ranker : RankerSettings
    fork_join : ForkJoin
        Threads of the transitions and the ranker.
    """

    def __init__(self, learner: LearnerSettings, ranker: RankerSettings, fork_join: ForkJoin = ALONE) -> None:
        self.lineage = uuid4().hex
        """Born with an empty model: slots of two lineages have nothing to do with each other."""
        self.items = Interner(capacity=learner.max_items)
        self.users = Interner(capacity=learner.max_users)
        self.catalogue = Catalogue(self.items)
        ways_of(learner, ranker)  # says what is wrong with them
        places = max(ranker.list_size * (DEPTH if mixes(ranker) else 1), MOST_PLACES)
        parts = build_parts(
            learner, ranker, list_size=places, device=learner.device, fork_join=fork_join,
            with_content=learner.content,
        )  # fmt: skip
        self.transitions, self.popularity, self.gate = parts.transitions, parts.popularity, parts.gate
        self.heat = parts.heat
        self.embeddings, self.cooccurrence, self.ease = parts.embeddings, parts.cooccurrence, parts.ease
        self.ranker, self.tastes = parts.ranker, parts.tastes
        self.device, self.device_name = parts.device, parts.device_name
        self.probability = build_probability(learner) if learner.probabilities else None
        self.content = build_content(learner, parts) if learner.content else None
        self._ordering = None if self.probability is None else Ordering(self.probability)
        self._order_weights = ranker.order_weights
        self.markov = FirstOrderMarkov(max_items=learner.max_items)
        self.tags = TagChain()
        self.board = PrequentialBoard(BOARD_NAMES, fading=ranker.evaluate_fading, window=WINDOW)
        self.drift = DriftMonitor()
        self.adaptation = Adaptation()
        self.scoring = ScoringBudget(ranker.evaluate_budget_us)
        self._baselines = BaselinePlaces(
            self.popularity, self.markov, k=MOST_PLACES, which=POPULARITY_HALF_LIFE
        )
        self._evaluate_ratio, self._exclude_seen = ranker.evaluate_ratio, ranker.exclude_seen
        self._counters: list[Learner] = [self.transitions, self.popularity, self.tags]
        if self.tastes is not None:
            self._counters.append(self.tastes)
        if ranker.evaluate_ratio > 0:  # a baseline that nobody scores need not learn
            self._counters.append(self.markov)
        self._stepped: list[Learner] = [
            found for found in (self.cooccurrence, self.ease) if found is not None
        ]
        self._rng = np.random.default_rng(learner.seed)

    def learn(self, batch: Interactions, withdrawn: Bools, *, reports: bool = True) -> Learned:
        """Predict, score, then learn, in micro-batches of `MICRO_BATCH` events.

        Every event that says anything of its item is counted. Of a batch that is larger because the
        worker is behind, only some micro-batches, evenly spread, are scored (`MOST_SCORED`) and take
        gradient steps (`streams.overload`; the encoder's are counted by co-occurrence and EASE too):
        freshness first. Where neither is wanted the whole batch is one step. Of the micro-batches to
        be scored the board gets as many as `streams.scoring_budget` affords.

        Without `reports` nothing is scored for the board; what is learned is the same, bit by bit.
        """
        learned = Learned()
        self.heat.learn_many(batch)  # a leave tells of the room though it may say nothing of a taste
        evidence = is_evidence(batch.types, batch.weight)
        if not evidence.all():
            batch = rows_of(batch, np.flatnonzero(evidence))
        self.adaptation.observe(batch.ts_ms)
        spent_s = self.scoring.spent_s
        wanted = self.embeddings is not None or self._evaluate_ratio > 0
        size = MICRO_BATCH if wanted else max(len(batch), 1)
        n = -(-len(batch) // size)
        self.ranker.hasty = self.embeddings is not None and is_hasty(n)
        if self.ease is not None:
            self.ease.least_growth = EASE_GROWTH if self.ranker.hasty else 0
        for i in range(n):
            part = rows_of(batch, slice(i * size, (i + 1) * size))
            scored = is_chosen(i, n, MOST_SCORED) and self._rng.random() < self._evaluate_ratio
            afforded = reports and self.scoring.offer(len(part), wanted=scored)
            if scored or (self.embeddings is not None and is_chosen(i, n, n_chosen(n, TAUGHT))):
                self._score(part, withdrawn, learned, reports=afforded)
            for counter in self._counters:
                counter.learn_many(part)
            if self.embeddings is not None and is_chosen(i, n, n_chosen(n, STEPPED)):
                for stepped in self._stepped:
                    stepped.learn_many(part)
                if self.content is not None:
                    self.content.learn_many(part)
                discarded = self.embeddings.discarded_steps
                self.embeddings.learn_many(part)
                learned.stepped += len(part)
                learned.discarded_steps += self.embeddings.discarded_steps - discarded
        if self.probability is not None:
            learned.exposures = self.probability.learn_some(batch, MOST_LEARNED)
            self.probability.touched()  # nobody publishes it
        learned.scoring_s = self.scoring.spent_s - spent_s
        self._check_numbers()
        return learned

    def _check_numbers(self) -> None:
        """End where a learner is beyond learning: what was written before it is the way back.

        Raises
        ------
        StateError
            Operator action: the process starts again from its newest checkpoint, which is never written
            with such numbers; if it ends in the same place again, lower `learner.learning_rate` or drop
            what is wrong with the events there.
        """
        if not self.gate.is_finite:
            raise StateError("the gate's weights are not finite any more: going back to the checkpoint")
        if self.embeddings is not None and self.embeddings.discarded_in_a_row >= MOST_DISCARDED:
            raise StateError(
                f"{MOST_DISCARDED} steps of the embeddings in a row were not finite: going back to the"
                " checkpoint"
            )

    def adapt(self) -> None:
        """Viewers have turned away from their lists: learn faster, and trust less what was counted before.

        What it does to each part stands in docs/drift.md. O(items), once.
        """
        self.adaptation.begin()
        self.gate.hurry(SQUARES_KEPT)
        self.transitions.fade(COUNTS_KEPT)
        if self.cooccurrence is not None:
            self.cooccurrence.fade(COUNTS_KEPT)
        if self.tastes is not None:
            self.tastes.fade(TASTES_KEPT)
        if self.embeddings is not None:
            self.embeddings.hurry(SQUARES_KEPT, user_rows_kept=USER_ROWS_KEPT)

    def _score(self, batch: Interactions, withdrawn: Bools, learned: Learned, *, reports: bool) -> None:
        """Rank for the users of fresh watches, before the batch is learned; train the gate on them.

        Scored are watches of items that lists may name: where they leave out what was seen, not those of the
        history.
        """
        scored = batch.fresh & (batch.types == WATCH)
        if self._exclude_seen:
            scored &= ~(batch.history == batch.items[:, None]).any(axis=1)
        rows = np.flatnonzero(scored)
        if not len(rows):
            return
        asked = rows_of(batch, rows)
        contexts = Contexts(users=asked.users, history=asked.history, now_ms=int(asked.ts_ms[-1]))
        if reports:
            self.ranker.prepare(contexts, asked.history, withdrawn)  # the gate needs it in any case
            with self.scoring.spending():
                self._report(asked, contexts, withdrawn, learned)
        self.ranker.learn_gate(contexts, asked.items, asked.history, withdrawn)
        learned.taught += len(batch)

    def _report(self, asked: Interactions, contexts: Contexts, withdrawn: Bools, learned: Learned) -> None:
        """Score all contenders by the place of each event's item; changes nothing that is learned.

        All of them know the log up to the micro-batch at hand, and rank every item that is available
        and not in the user's history. What is not available is in no list: its events are left out.
        """
        kept = is_available(asked.items, withdrawn)
        by_popularity, by_markov = self._baselines.places(contexts, asked.items, withdrawn)
        ours = self.ranker.places(contexts, asked.items, asked.history, withdrawn)[kept]
        self.board.update({"reelflow": ours, "popularity": by_popularity[kept], "markov": by_markov[kept]})
        n_changes = self.drift.n_changes
        self.drift.update((ours >= 0) & (ours < DRIFT_PLACES))
        learned.drifts += self.drift.n_changes - n_changes
        learned.scored += len(ours)

    @property
    def facts(self) -> Catalogue:
        """What the catalogue says, by slot of user state: the slots are the same."""
        return self.catalogue

    def ranked(
        self, contexts: Contexts, seen: Int32, withdrawn: Bools, taste_weight: float | None = None
    ) -> Ranked:
        """Lists of B users, not ordered yet; `taste_weight` as in `serving.recommender`."""
        if isinstance(self.ranker, Ranker):
            return self.ranker.rank(contexts, seen, withdrawn)
        if self.tastes is not None:
            self.tastes.curious = self.adaptation.is_on
            if self.adaptation.is_on and taste_weight is None:
                taste_weight = ADAPTING_TASTE_WEIGHT
        return self.ranker.rank(contexts, seen, withdrawn, taste_weight=taste_weight)

    def ordered(
        self, ranked: Ranked, contexts: Contexts, k: int, weights: OrderSettings | None = None
    ) -> Ranked:
        """The first `k` places of lists, in the order of `weights`; None for `ranker.order_weights`."""
        weights = self._order_weights if weights is None else weights
        if self._ordering is None or self.probability is None or not is_mixed(weights):
            return ranked.first(k)
        now_ms = asked_at_ms(self.probability, contexts.now_ms)
        return self._ordering.ordered(ranked, contexts, now_ms, k, weights)

    def rooms(self, now_ms: int) -> Rooms:
        """Live rooms that are open, and their heat."""
        slots = self.catalogue.rooms(now_ms)
        return Rooms(slots, slots, self.heat.at(slots, now_ms))

    def state_slots(self, items: Int32) -> Int32:
        """Slots of user state of listed `items`: the same."""
        return items

    @property
    def has_user_rows(self) -> bool:
        """Whether any learner has something of its own for a user."""
        return self.embeddings is not None or self.probability is not None

    def put_item(self, item: Item) -> None:
        """Take in catalogue facts."""
        slot = self.catalogue.put(item)
        found = self.content.tags_of(slot) if self.content is not None else []
        self.tags.set_item_tags(slot, item.tags or found)
        facts = self.catalogue.facts(slot)
        if facts is not None and self.content is not None:
            self.content.put_facts(slot, words_of(facts), item.published_ts_ms)
        if facts is not None and self.tastes is not None:
            describe(self.tastes, slot, facts)
        if self.probability is not None and facts is not None:
            describe_item(self.probability, slot, facts)

    def withdraw(self, item_id: str) -> None:
        """Withdraw an item."""
        slot = self.catalogue.withdraw(item_id)
        if self.tastes is not None:
            self.tastes.withdraw(slot)

    def put_content(self, content: ItemContent) -> None:
        """Take in an item's vectors."""
        slot = self._slot(content.item_id)
        if self.content is not None and slot >= 0:
            self.content.put(slot, content)

    def put_tags(self, found: ItemTags) -> None:
        """Take in the tags found in an item; they stand in for those of a catalogue that has none."""
        slot = self._slot(found.item_id)
        if self.content is not None and slot >= 0:
            tags = self.content.put_tags(slot, found)
            facts = self.catalogue.facts(slot)
            if facts is None or not facts.tags:
                self.tags.set_item_tags(slot, tags)

    def drop_content(self, item_id: str) -> None:
        """An item has no content any more."""
        slot = self.items.find(item_id)
        if self.content is not None and slot >= 0:
            self.content.drop(slot)

    def newcomers(self, contexts: Contexts, withdrawn: Bools) -> Newcomers | None:
        """New items as users see them; None where it is not known what items are."""
        return None if self.content is None else self.content.newcomers(contexts, withdrawn)

    def _slot(self, item_id: str) -> int:
        """Slot of an item; -1 where `learner.max_items` are known and it is another."""
        return int(self.items.get(item_id))

    # -- state ----------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Make the memory of `capture` with `reuse` as large as the next one will want it."""
        self.transitions.make_room()

    @property
    def copied_bytes(self) -> int:
        """Memory of copies: about what `copy_ahead` copies in all."""
        return self.transitions.copies.nbytes

    def copy_ahead(self, place: int, of: int) -> None:
        """Copy a slice of what the next capture with `reuse` will hold, see `learners.row_copies`."""
        self.transitions.copy_ahead(place, of)

    def capture(self, *, reuse: bool = False) -> Callable[[], Arrays]:
        """Copy the state now; the result puts the copies together as named arrays, on any thread.

        With `reuse` the largest copies are written over those of the last call that said so. The result
        raises `StateError` where a number is not finite: a checkpoint is what a restart goes back to.

        Not part of it: the board and the drift monitor, which only report.
        """
        copies = {
            learner.name: self.transitions.snapshot(reuse=reuse)
            if learner is self.transitions
            else learner.snapshot()
            for learner in self._learners()
        }
        copies |= {"item_names": self.items.snapshot(), "user_names": self.users.snapshot()}
        facts = self.catalogue.capture()
        random = json.dumps(self._rng.bit_generator.state).encode()

        def together() -> Arrays:
            arrays: Arrays = {
                f"{name}.{key}": array for name, found in copies.items() for key, array in found.items()
            }
            check_finite(arrays, "no checkpoint is made of this state")
            arrays |= {f"catalogue.{key}": array for key, array in facts().items()}
            arrays["random"] = np.frombuffer(random, dtype=np.uint8)
            return arrays

        return together

    def restore(self, arrays: Mapping[str, NDArray[np.generic]], lineage: str) -> None:
        """Become what `capture` described; the model must be new.

        Raises
        ------
        StateError
            Arrays are missing or damaged, or were made with other settings.
        """
        for name, interner in (("item", self.items), ("user", self.users)):
            found = Interner.restored(arrays, prefix=f"{name}_names.")
            if len(found) > interner.capacity:
                raise StateError(
                    f"the state names {len(found)} {name}s, learner.max_{name}s allows {interner.capacity}"
                )
            interner.intern_texts(found.texts())
        begins = (
            self.markov,
            self.heat,
            self.probability,
            self.adaptation,
            self.content,
            self.tastes,
        )  # the state may be of when these were off, or unknown
        for learner in self._learners():
            own = _below(arrays, learner.name)
            if own or learner not in begins:
                learner.restore(own)
        self.catalogue.restore(_below(arrays, "catalogue"))
        if self.tastes is not None and not _below(arrays, self.tastes.name):
            for slot in range(len(self.items)):
                if (facts := self.catalogue.facts(slot)) is not None:
                    describe(self.tastes, slot, facts)
        if self.content is not None and not _below(arrays, self.content.name):
            for slot in range(len(self.items)):
                if (facts := self.catalogue.facts(slot)) is not None:
                    self.content.put_facts(slot, words_of(facts))
        if self.probability is not None and not _below(arrays, self.probability.name):
            describe_all(self.probability, self.catalogue, len(self.items))
        try:
            self._rng.bit_generator.state = json.loads(
                taken(arrays, "random", np.zeros(0, dtype=np.uint8)).tobytes()
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"'random' is damaged: {error}") from None
        self.lineage = lineage

    def digest(self) -> str:
        """Hash of what was learned, by slot: equal for the same batches in the same order.

        Slots are given out in that order too, and the names by slot are part of it.
        """
        parts = [digest_arrays(self.items.snapshot()), digest_arrays(self.users.snapshot())]
        parts += [learner.digest() for learner in self._learners()]
        parts += [digest_arrays(self.catalogue.capture()()), repr(self._rng.bit_generator.state)]
        return digest_texts(parts)

    def _learners(self) -> list[Any]:
        """Every learner with state; the gate has no predict of its own."""
        found: list[Any] = [*self._counters, self.heat, *self._stepped, self.gate, self.adaptation]
        if self.probability is not None:
            found.append(self.probability)
        if self.content is not None:
            found.append(self.content)
        return found if self.embeddings is None else [*found, self.embeddings]

    def popular(self, limit: int, withdrawn: Bools) -> tuple[Int32, Float32]:
        """The most popular available items and their shares."""
        items = self.popularity.top(limit + int(withdrawn.sum()), POPULARITY_HALF_LIFE)
        items = items[items >= 0]
        items = items[~withdrawn[items]][:limit]
        return items, self.popularity.shares(POPULARITY_HALF_LIFE)[items]


def _below(arrays: Mapping[str, NDArray[np.generic]], name: str) -> Arrays:
    """Arrays called ``name.key``, by key."""
    return {
        key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")
    }


def rows_of(batch: Interactions, rows: slice | NDArray[np.intp]) -> Interactions:
    """Some rows of a batch."""
    return Interactions(**{name: getattr(batch, name)[rows] for name in Interactions.__struct_fields__})


def concatenated(parts: list[Interactions]) -> Interactions:
    """Interactions of several runs, in the order they were folded."""
    if len(parts) == 1:
        return parts[0]
    names = Interactions.__struct_fields__
    return Interactions(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
