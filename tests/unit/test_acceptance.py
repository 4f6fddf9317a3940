"""What became of listed items, the falls among changes, and what adapting does to each learner."""

from __future__ import annotations

import numpy as np
import pytest

from learners.acceptance import Acceptance, Rewards
from learners.adaptation import SPAN_MS, Adaptation
from learners.cooccurrence import Cooccurrence
from learners.drift import DriftMonitor
from learners.transitions import Transitions
from schemas.errors import StateError
from schemas.learner import Interactions
from schemas.records import EVENT_TYPES, SURFACES
from streams.drift_watch import DriftWatch
from streams.list_views import ListViews
from streams.listed import ListedItems
from streams.model import MOST_DISCARDED, Model
from tests.unit.test_model import batch_of, model_of

SHORT, LIVE = SURFACES.index("short_video"), SURFACES.index("live")
NOTHING_WITHDRAWN = np.zeros(50, dtype=np.bool_)


def rewards(
    events: list[tuple[int, int, str, float]], listed: list[list[int]], view: Acceptance | None = None
) -> list[float]:
    """Rewards of (user, item, type, omega) in order."""
    users, items, kinds, omega = zip(*events, strict=True)
    found = (view or Acceptance()).take(
        np.array(users, np.int32),
        np.array(items, np.int32),
        np.array([EVENT_TYPES.index(kind) for kind in kinds], np.int8),
        np.full(len(events), SHORT, np.int8),
        np.array(omega, np.float32),
        np.array(listed, np.int32),
    )
    assert (found.surfaces == SHORT).all()
    return [round(value, 3) for value in found.values.tolist()]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(0, 5, "impression", 0), (0, 5, "watch", 0.7)], [0.7]),
        ([(0, 5, "impression", 0), (0, 6, "impression", 0)], [0.0]),  # passed over; the second is under way
        ([(0, 5, "impression", 0), (0, 5, "skip", -1)], [0.0]),
        ([(0, 5, "impression", 0), (0, 5, "like", 1.5), (0, 5, "watch", 0.2)], [1.0]),  # best act, at most 1
        ([(0, 5, "impression", 0), (0, 5, "join", 0.5), (0, 6, "impression", 0)], [0.5]),  # still in the room
        ([(0, 5, "watch", 0.4), (0, 6, "skip", -1)], [0.4, 0.0]),  # a platform without impressions
        ([(0, 9, "impression", 0), (0, 9, "watch", 1.0)], []),  # not on the list
        ([(0, 5, "impression", 0), (0, 9, "impression", 0), (0, 9, "watch", 1)], [0.0]),
        ([(7, 5, "impression", 0), (7, 5, "watch", 1)], []),  # a user without a list
        ([(0, 5, "impression", 0), (1, 6, "watch", 1), (0, 5, "watch", 0.5)], [1.0, 0.5]),
        ([(0, 5, "like", 1.5), (0, 5, "impression", 0), (0, 5, "impression", 0), (0, 5, "watch", 1)], [1.0]),
    ],
)  # fmt: skip
def test_rewards_of_views(events: list[tuple[int, int, str, float]], expected: list[float]) -> None:
    listed = [[5, 6, -1], [6, 5, -1]]
    assert rewards(events, listed) == expected
    view = Acceptance()  # the same, event by event
    assert [r for event in events for r in rewards([event], listed, view)] == expected


def test_a_view_belongs_to_the_list_that_it_began_with() -> None:
    view = Acceptance()

    def take(kind: str, omega: float, group: int, *, users: int = 1) -> list[int]:
        ended = view.take(
            np.zeros(1, np.int32),
            np.full(1, 5, np.int32),
            np.full(1, EVENT_TYPES.index(kind), np.int8),
            np.zeros(1, np.int8),
            np.full(1, omega, np.float32),
            np.array([[5]], np.int32),
            np.full(users, group, np.int8),
        )
        return [int(group) for group in ended.groups]

    assert take("impression", 0.0, 1) == []
    assert take("watch", 1.0, 2) == [1]  # a newer list has come meanwhile
    assert take("skip", -1.0, 2) == [2]  # no impression: that of its own time
    assert take("impression", 0.0, 0, users=0) == []
    assert take("watch", 1.0, 2) == [-1]  # of a list that was made before this process


def test_only_a_fall_is_found() -> None:
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(1e-3, bucket=1, every=32)
    assert monitor.update(rng.random(8_000) < 0.3) == 0
    assert monitor.update(rng.random(4_000) < 0.6) == 0  # better: known, and no reason to act
    assert monitor.n_changes >= 1
    n_changes = monitor.n_changes
    assert monitor.update(rng.random(4_000) < 0.3) == 1
    assert monitor.n_changes == n_changes + 1
    assert monitor.before == pytest.approx(0.6, abs=0.05)
    assert monitor.hit_rate < 0.4


def events_of(n: int, rng: np.random.Generator, p: float) -> Interactions:
    """Watches of listed items, n of them with omega 1 in a share of p, else skips."""
    liked = rng.random(n) < p
    batch = batch_of(n)
    batch.users[:] = 0
    batch.items[:] = 3
    batch.types[:] = np.where(liked, EVENT_TYPES.index("watch"), EVENT_TYPES.index("skip"))
    batch.weight[:] = np.where(liked, 1.0, -1.0)
    return batch


def test_views_of_all_partitions_are_told_together_and_once() -> None:
    class Asker:
        def __init__(self) -> None:
            self.told: list[list[int]] = []

        def take(self, ended: Rewards) -> None:
            self.told.append(ended.surfaces.tolist())

    asker, rng = Asker(), np.random.default_rng(4)
    views, listed = ListViews(asker), ListedItems()
    listed.put(np.zeros(1, np.int32), np.array([[3, 4]], dtype=np.int32))
    for partition, surface in ((2, SHORT), (0, LIVE)):
        views.take(partition, events_of(3, rng, 0.5), np.full(3, surface, np.int8), listed)
    assert asker.told == []
    views.tell()
    views.tell()
    assert asker.told == [[SHORT] * 3 + [LIVE] * 3]


def test_surfaces_are_watched_apart() -> None:
    rng = np.random.default_rng(2)
    watch = DriftWatch(1e-4)
    views, listed = ListViews(watch), ListedItems()
    listed.put(np.zeros(1, np.int32), np.array([[3, 4]], dtype=np.int32))

    def take(surface: int, n: int, p: float) -> None:
        views.take(0, events_of(n, rng, p), np.full(n, surface, np.int8), listed)
        views.tell()

    for _ in range(6):
        take(SHORT, 512, 0.6)
        take(LIVE, 512, 0.6)
        take(-1, 512, 0.6)
    assert watch.found() == []
    for _ in range(6):
        take(SHORT, 512, 0.6)
        take(LIVE, 512, 0.3)
        take(-1, 512, 0.9)
    assert watch.found() == ["live"]
    assert watch.found() == []  # told once
    assert watch.monitors["other"].hit_rate == pytest.approx(0.9, abs=0.05)


def test_faded_counts_weigh_less_than_new_ones() -> None:
    old, new = batch_of(400, seed=1), batch_of(400, seed=2)
    for make in (Transitions, Cooccurrence):
        faded, plain, only_old = make(), make(), make()
        for learner in (faded, plain, only_old):
            learner.learn_many(old)
        faded.touched()
        faded.fade(0.25)
        assert len(faded.touched().items) == faded.n_items  # replicas are told
        before, after = (np.asarray(each.snapshot()["w"], dtype=np.float64) for each in (only_old, faded))
        np.testing.assert_allclose(after, 0.25 * before, rtol=1e-6)
        for learner in (faded, plain):
            learner.learn_many(new)
        assert faded.digest() != plain.digest()
        assert faded.snapshot()["w"].sum() < plain.snapshot()["w"].sum()


def test_after_hurrying_the_same_batch_moves_vectors_and_weights_further() -> None:
    moved: dict[bool, list[float]] = {}
    for hurries in (False, True):
        model = model_of()
        for seed in range(3):
            model.learn(batch_of(512, seed=seed), NOTHING_WITHDRAWN)
        if hurries:
            model.adapt()
            assert model.adaptation.is_on
        assert model.embeddings is not None
        vectors, gate = model.embeddings.item_matrix().copy(), model.gate.weights
        model.learn(batch_of(512, seed=9), NOTHING_WITHDRAWN)
        moved[hurries] = [
            float(np.abs(model.embeddings.item_matrix()[:50] - vectors[:50]).mean()),
            float(np.abs(model.gate.weights - gate).mean()),
        ]
    assert all(more > 1.2 * less for more, less in zip(moved[True], moved[False], strict=True))


def test_adaptation_is_state() -> None:
    adaptation, other = Adaptation(), Adaptation()
    adaptation.observe(np.array([5_000, 7_000, 6_000]))
    assert not adaptation.is_on
    adaptation.begin()
    assert (adaptation.is_on, adaptation.until_ms) == (True, 7_000 + SPAN_MS)
    other.restore(adaptation.snapshot())
    assert other.digest() == adaptation.digest()
    other.observe(np.array([7_000 + SPAN_MS]))
    assert not other.is_on
    assert other.digest() != adaptation.digest()


def test_a_checkpoint_without_adaptation_is_one_of_before() -> None:
    model, restored = model_of(embeddings=False), model_of(embeddings=False)
    model.learn(batch_of(100), NOTHING_WITHDRAWN)
    arrays = {name: array for name, array in model.capture()().items() if name != "adaptation.times"}
    restored.restore(arrays, model.lineage)
    assert not restored.adaptation.is_on


def broken_model() -> Model:
    """A model whose item vectors have overflowed."""
    model = model_of()
    model.learn(batch_of(256), NOTHING_WITHDRAWN)
    assert model.embeddings is not None
    items = np.arange(50, dtype=np.int32)
    rows = model.embeddings.export_rows(items)
    rows["vector"] = np.full_like(rows["vector"], np.inf)
    model.embeddings.import_rows(items, rows)
    return model


def test_a_broken_learner_ends_the_process_with_its_reason_and_is_never_written() -> None:
    sane = model_of()
    sane.learn(batch_of(256), NOTHING_WITHDRAWN)
    checkpoint = sane.capture()()
    model = broken_model()
    with pytest.raises(StateError, match=r"no checkpoint.*item_values.*not finite"):
        model.capture()()
    likes = batch_of(2_048)
    likes.types[:] = EVENT_TYPES.index("like")  # they teach the embeddings, not the gate
    with pytest.raises(StateError, match=f"{MOST_DISCARDED} steps of the embeddings in a row"):
        model.learn(likes, NOTHING_WITHDRAWN)
    with pytest.raises(StateError, match="the gate's weights are not finite"):
        model.learn(batch_of(256), NOTHING_WITHDRAWN)  # broken vectors are its features
    back = model_of()  # what the process that follows does
    back.restore(checkpoint, sane.lineage)
    assert back.digest() == sane.digest()
    assert back.learn(batch_of(256, seed=3), NOTHING_WITHDRAWN).discarded_steps == 0


def test_a_checkpoint_with_broken_numbers_is_refused() -> None:
    sane = model_of()
    sane.learn(batch_of(256), NOTHING_WITHDRAWN)
    checkpoint = sane.capture()()
    broken = np.full_like(checkpoint["gate.own"], np.nan)
    with pytest.raises(StateError, match="not finite"):
        model_of().restore(checkpoint | {"gate.own": broken}, sane.lineage)
