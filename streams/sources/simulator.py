"""A believable platform: users with drifting tastes, sessions, surfaces, births and deaths of items.

Time is the simulator's own: it starts at ``start_ms`` and moves in steps. In a step,
all users who are due act at once (arrays over users), again and again until nobody is due before
the step's end. No wall clock and no hash of Python's is used: the same configuration gives the same
bytes, but for followed lists.

Every view is an ``impression``; an opened one becomes a ``watch`` (or a ``skip``) at its end, a room
is a ``join`` and a ``leave``; likes and the other signals fall in between. Items are born and die as
messages of the catalogue between the events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec import Struct

from schemas.records import EVENT_TYPES

from .sim_config import LIVE, SHORT, SimulatorConfig
from .sim_delivery import Delivery, Rows, blank, records, stacked, used_snapshots
from .sim_feed import Feed
from .sim_items import NOTHING, Floats, Ints, ItemWorld, item_id
from .sim_lists import Lists
from .sim_reactions import Reactions, interest_of, logits_of, react, signals_of
from .sim_users import UserWorld
from .source import Record, Times, item_record, withdrawal_record

_IMPRESSION, _WATCH, _SKIP, _JOIN, _LEAVE, _GIFT = (
    EVENT_TYPES.index(name) for name in ("impression", "watch", "skip", "join", "leave", "gift")
)
_KEPT_IDS: Final = 100_000


class Shown(Struct, kw_only=True):
    """How pleasing was what was shown, by where it came from."""

    views: int = 0
    interest: float = 0.0

    @property
    def mean_interest(self) -> float | None:
        """True mean interest of the views, in (0, 1)."""
        return self.interest / self.views if self.views else None


class Platform:
    """The state of one run.

    Attributes
    ----------
    items : ItemWorld
    users : UserWorld
        With the true tastes.
    now_ms : int
        Start of the next step.
    shown : dict[str, Shown]
        By origin: ``mix`` (the platform's own) and ``lists`` (recommendations).
    """

    def __init__(self, config: SimulatorConfig, lists: Lists | None = None) -> None:
        item_rng, user_rng, feed_rng, self._rng, delivery_rng = _generators(config)
        self._config = config
        self.items = ItemWorld(config, item_rng)
        self.users = UserWorld(config, self.items, user_rng)
        self.now_ms = config.start_ms
        self.shown = {"mix": Shown(), "lists": Shown()}
        self._feed = Feed(self.items, self.users, feed_rng)
        self._lists = lists
        self._delivery = Delivery(config, delivery_rng)

    def interest(self, users: Ints, items: Ints) -> Floats:
        """True probability that item i pleases user i now; (B,) in (0, 1)."""
        return interest_of(self.users, self.items, users, items)

    def regret(self, users: Ints, items: Ints) -> Floats:
        """How much less item i pleases user i than the best alive one would; (B,), 0 is perfect.

        Cost: the whole catalogue a user.
        """
        alive = np.flatnonzero(self.items.alive)
        best = [
            logits_of(self.users, self.items, np.full(len(alive), user), alive).max()
            for user in users.tolist()
        ]
        regrets: Floats = 1.0 / (1.0 + np.exp(-np.array(best))) - self.interest(users, items)
        return regrets

    def step(self, span_ms: int) -> Iterator[Record]:
        """Let the next `span_ms` happen; yields what arrives in it."""
        config, lists = self._config, self._lists
        start_ms, end_ms = self.now_ms, self.now_ms + span_ms
        if config.flip_after_s is not None:
            flips_ms = config.start_ms + round(1000 * config.flip_after_s)
            if start_ms <= flips_ms < end_ms:
                self.users.flip()
        dead, born = self.items.advance(start_ms, span_ms)
        if lists is not None:
            lists.poll()
        self._feed.refresh(start_ms)
        due = np.flatnonzero(self.users.next_ms < end_ms)
        happened = []
        while len(due):
            idle = due[~self.users.in_session[due]]
            if len(idle):
                self.users.begin_sessions(idle)
            happened += self._view(due)
            due = due[self.users.next_ms[due] < end_ms]
        if happened:
            self._delivery.add(stacked(happened))
        self.now_ms = end_ms
        for number in dead.tolist():
            yield withdrawal_record(item_id(number), start_ms)
        for number in born.tolist():
            yield item_record(self.items.item(number))
        yield from records(self._delivery.due(end_ms), config.seed, self._snapshot_id)
        if lists is not None and lists.n_known_ids() > _KEPT_IDS + 4 * config.users:
            lists.forget_ids_but(used_snapshots(lists.snapshot, self._delivery.pending["snapshot"]))

    def _view(self, who: Ints) -> list[Rows]:
        """Each of the users looks at one item."""
        users, items, rng, n = self.users, self.items, self._rng, len(who)
        what = self._feed.choose(who)
        position = snapshot = np.full(n, NOTHING, dtype=np.int64)
        if self._lists is not None:
            listed, position = self._lists.choose(who, users.recent[who], items.alive)
            what = np.where(listed >= 0, listed, what)
            snapshot = np.where(listed >= 0, self._lists.snapshot[who], NOTHING)
        reactions = react(users, items, who, what, rng)
        self._count(reactions, from_list=snapshot >= 0)
        users.pleasure[who] += reactions.interest
        users.n_views[who] += 1
        rows = blank(n)
        rows["ts_ms"] = now_ms = users.next_ms[who]
        rows["user"], rows["item"], rows["surface"] = who, what, items.surface[what]
        rows["device"], rows["session"] = users.device[who], users.session[who]
        rows["position"], rows["snapshot"] = position, snapshot
        rows["kind"] = _IMPRESSION
        surface = items.surface[what]
        happened = [rows, *self._watching(rows, reactions, surface, what)]
        for kind, which in signals_of(reactions, surface, rng):
            signal = rows[which]
            signal["kind"] = kind
            signal["ts_ms"] += (rng.random(len(which)) * reactions.watch_ms[which]).astype(np.int64)
            if kind == _GIFT:
                signal["gift_value"] = np.round(np.exp(rng.normal(1.0, 1.2, len(which))), 2)
            happened.append(signal)
        users.remember(who, what)
        self._move_on(who, what, now_ms, reactions)
        return [rows for rows in happened if len(rows)]

    def _watching(self, rows: Rows, reactions: Reactions, surface: Ints, what: Ints) -> list[Rows]:
        """Rows of the watching itself: at its end a watch or a skip; of a room join and leave."""
        opened = np.flatnonzero(reactions.opened)
        ended = rows[opened]
        live = surface[opened] == LIVE
        joined = ended[live]
        joined["kind"] = _JOIN
        ended["kind"] = np.where(live, _LEAVE, np.where(reactions.skipped[opened], _SKIP, _WATCH))
        ended["ts_ms"] += reactions.watch_ms[opened]
        ended["watch_ms"] = reactions.watch_ms[opened]
        ended["duration_ms"] = np.where(live, NOTHING, self.items.duration_ms[what[opened]])
        # A short video starts by itself; what was opened elsewhere was chosen.
        ended["autoplay"] = surface[opened] == SHORT
        return [joined, ended]

    def _move_on(self, who: Ints, what: Ints, now_ms: Ints, reactions: Reactions) -> None:
        """Topic and time of the next view, or the end of the session."""
        users, rng, n = self.users, self._rng, len(who)
        users.wants_next[who] = reactions.completed
        # What pleased draws the session towards its main tag; what did not, away from the topic.
        pleased = reactions.opened & ~reactions.skipped & (rng.random(n) < 0.3)
        users.topic[who] = np.where(pleased, self.items.tags[what, 0], users.topic[who])
        bored = who[~reactions.opened & (rng.random(n) < 0.25)]
        if len(bored):
            users.topic[bored] = users.draw_interest(bored)
        pause_ms = 700 + (1_500 * rng.exponential(size=n)).astype(np.int64)
        then_ms = now_ms + reactions.watch_ms + pause_ms
        users.next_ms[who] = then_ms
        leaving = np.flatnonzero(reactions.leaves)
        if len(leaving):
            users.end_sessions(who[leaving], then_ms[leaving])

    def _count(self, reactions: Reactions, from_list: np.ndarray) -> None:
        for origin, chosen in (("lists", from_list), ("mix", ~from_list)):
            shown = self.shown[origin]
            shown.views += int(chosen.sum())
            shown.interest += float(reactions.interest[chosen].sum())

    def _snapshot_id(self, number: int) -> str:
        return "" if self._lists is None else self._lists.snapshot_id(number)


def _generators(config: SimulatorConfig) -> list[np.random.Generator]:
    """One each for items, users, feed, behaviour and delivery, so that none disturbs another."""
    return [np.random.default_rng(seed) for seed in np.random.SeedSequence(config.seed).spawn(5)]


class Simulator:
    """A source: the platform of `config` from its opening on, without end or for `duration_ms`.

    Parameters
    ----------
    config : SimulatorConfig
        Checked here.
    lists : Lists or None
        Recommendations that users are shown where they have some; None leaves the platform's mix.
    duration_ms : int or None
        Event time after which it ends; what would arrive later does not arrive.

    Attributes
    ----------
    platform : Platform or None
        The run that `events` began last; tastes, regret and what was shown can be asked of it.

    Raises
    ------
    ConfigurationError
        A value of `config` is out of range.
    """

    def __init__(
        self, config: SimulatorConfig, lists: Lists | None = None, duration_ms: int | None = None
    ) -> None:
        self.config = config.checked()
        self.name = f"simulation of {config.users:,} users"
        self.n_events: int | None = None
        self.times_ms: Times | None = None
        self.platform: Platform | None = None
        self._lists = lists
        self._duration_ms = duration_ms

    def items(self) -> Iterator[Record]:
        """Catalogue at the opening."""
        items = ItemWorld(self.config, _generators(self.config)[0])
        return (item_record(items.item(number)) for number in range(len(items)))

    def events(self) -> Iterator[Record]:
        """Everything that arrives; starts again at each call."""
        config = self.config
        self.platform = platform = Platform(config, self._lists)
        while self._duration_ms is None:
            yield from platform.step(config.step())
        end_ms = config.start_ms + self._duration_ms
        while platform.now_ms < end_ms:
            yield from platform.step(min(config.step(), end_ms - platform.now_ms))
