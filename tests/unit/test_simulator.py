"""The simulated platform: same bytes, contracts kept, and believable."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from schemas.checks import EVENTS, ITEMS
from schemas.errors import ConfigurationError
from schemas.records import EVENT_TYPES, SURFACES, Event, Knows, ModelRef, RecommendedItem, Snapshot
from streams.commands.simulate import command
from streams.sources import open_source, select
from streams.sources.sim_config import START_MS, SimulatorConfig
from streams.sources.sim_lists import Lists
from streams.sources.simulator import Platform, Simulator
from streams.sources.source import Record, Source

SMALL = SimulatorConfig(users=1_000, items=300, seed=5)


def take(source: Source, n_events: int) -> list[Record]:
    return list(select(source, limit=n_events).events())


def events_in(records: list[Record]) -> list[Event]:
    return [EVENTS.decode_keyed(r.value, r.key) for r in records if r.kind == "event"]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return take(Simulator(SMALL), 30_000)


@pytest.fixture(scope="module")
def events(records: list[Record]) -> list[Event]:
    return events_in(records)


class TestBytes:
    def test_same_seed_same_bytes_in_other_processes(self, tmp_path: Path) -> None:
        digests = set()
        for hash_seed, name in (("1", "a.jsonl"), ("2", "b.jsonl")):
            arguments = "simulate --users 200 --items 100 --seed 7 --events 5000 --output"
            subprocess.run(
                [sys.executable, "-m", "streams.cli", *arguments.split(), str(tmp_path / name)],
                check=True,
                capture_output=True,
                timeout=60,
                env=dict(os.environ) | {"PYTHONHASHSEED": hash_seed},
            )
            digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
        assert len(digests) == 1

    def test_a_simulator_can_be_read_again(self, records: list[Record]) -> None:
        source = Simulator(SMALL)
        assert list(source.items()) == list(source.items())
        assert take(source, 3_000) == take(source, 3_000) == records[: len(take(source, 3_000))]

    def test_another_seed_other_bytes(self, records: list[Record]) -> None:
        assert take(Simulator(SimulatorConfig(users=1_000, items=300, seed=6)), 100) != records[:100]

    def test_packed_files_do_not_differ_and_replay_reads_them(self, tmp_path: Path) -> None:
        options = ["--users", "50", "--items", "30", "--duration", "20000", "--output"]
        files = [tmp_path / name for name in ("a.jsonl.gz", "b.jsonl.gz")]
        for file in files:
            assert CliRunner().invoke(command, [*options, str(file)]).exit_code == 0
        assert files[0].read_bytes() == files[1].read_bytes()
        source = Simulator(SimulatorConfig(users=50, items=30), duration_ms=20_000_000)
        written = open_source("native", files[0])
        assert [r.value for r in written.items()] == [r.value for r in source.items()]
        assert [r.value for r in written.events()] == [r.value for r in source.events()]
        assert len(gzip.decompress(files[0].read_bytes()).splitlines()) > 100


class TestContracts:
    def test_every_message_keeps_its_contract(self, records: list[Record], events: list[Event]) -> None:
        assert len(events) == 30_000
        for record in [*Simulator(SMALL).items(), *records]:
            if record.kind == "item" and record.value is not None:
                ITEMS.decode_keyed(record.value, record.key)

    def test_all_types_and_surfaces_occur(self, events: list[Event]) -> None:
        kinds = Counter(event.type for event in events)
        assert set(kinds) == set(EVENT_TYPES)
        assert 0.25 < kinds["watch"] / kinds["impression"] < 0.6
        assert kinds["like"] > 3 * kinds["share"]
        surfaces = Counter(event.surface for event in events)
        assert set(surfaces) == set(SURFACES)
        assert surfaces["short_video"] > len(events) / 2

    def test_rooms_have_joins_and_gifts_and_nothing_else_has(self, events: list[Event]) -> None:
        for event in events:
            if event.type in {"join", "leave", "gift"}:
                assert event.surface == "live"
            if event.type in {"watch", "skip"}:
                assert event.surface != "live"
                assert event.watch_ms is not None
                assert event.duration_ms is not None
            assert (event.gift_value is not None) == (event.type == "gift")

    def test_duplicates_are_the_same_bytes_at_the_set_rate(self, records: list[Record]) -> None:
        values = Counter(r.value for r in records if r.kind == "event")
        ids = Counter(event.event_id for event in events_in(records))
        assert max(ids.values()) == 2
        repeated = sum(n - 1 for n in values.values())
        assert repeated == sum(n - 1 for n in ids.values())
        assert repeated / 30_000 == pytest.approx(0.01, abs=0.003)

    def test_late_events_at_the_set_rate(self) -> None:
        config = SimulatorConfig(users=1_000, items=300, seed=5, duplicates=0, late=0.05, late_by_s=3_600)
        times = np.array([r.ts_ms for r in take(Simulator(config), 20_000) if r.kind == "event"])
        behind = np.maximum.accumulate(times) - times
        assert (behind > 0).mean() == pytest.approx(0.05, abs=0.01)
        # What is very late has not arrived by the end of the run.
        assert behind[behind > 0].mean() == pytest.approx(3_600_000, rel=0.3)

    def test_without_late_ones_and_duplicates_time_only_grows(self) -> None:
        config = SimulatorConfig(users=100, items=100, duplicates=0, late=0)
        times = [r.ts_ms for r in take(Simulator(config), 5_000)]
        assert times == sorted(times)
        assert times[0] >= START_MS

    @pytest.mark.parametrize("field", ["users", "items", "duplicates", "late", "zipf"])
    def test_values_out_of_range_are_named(self, field: str) -> None:
        wrong: dict[str, Any] = {field: -1}
        config = SimulatorConfig(**wrong)
        with pytest.raises(ConfigurationError, match=f"simulate.{field}"):
            Simulator(config)


class TestPlatform:
    def test_catalogue_changes_and_stays_the_same_size(self, records: list[Record]) -> None:
        alive = {record.key for record in Simulator(SMALL).items()}
        assert len(alive) == SMALL.items
        withdrawn_at: dict[bytes | None, int] = {}
        for record in records:
            if record.kind == "item" and record.value is None:
                assert record.key in alive
                alive.discard(record.key)
                withdrawn_at[record.key] = record.ts_ms
            elif record.kind == "item":
                assert record.key not in alive
                alive.add(record.key)
        assert len(withdrawn_at) > 50
        assert len(alive) == SMALL.items
        for event in events_in(records):
            if event.type == "impression":
                assert event.ts_ms < withdrawn_at.get(event.item_id.encode(), 1 << 60)

    def test_popularity_is_unequal(self, events: list[Event]) -> None:
        shown = Counter(event.item_id for event in events if event.type == "impression")
        top = sum(n for _, n in shown.most_common(len(shown) // 10))
        assert top / shown.total() > 0.3

    def test_what_fits_the_taste_is_opened_seen_and_liked(self) -> None:
        source = Simulator(SMALL)
        found = events_in(take(source, 30_000))
        platform = source.platform
        assert platform is not None

        def interest(kind: str) -> float:
            chosen = [e for e in found if e.type == kind]
            who = np.array([int(e.user_id[2:]) for e in chosen])
            what = np.array([int(e.item_id[2:]) for e in chosen])
            return float(platform.interest(who, what).mean())

        assert interest("like") > interest("watch") + 0.1
        assert interest("watch") > interest("impression") + 0.03
        assert interest("impression") > interest("dislike") + 0.03

    def test_tastes_drift_and_stay_distributions(self) -> None:
        config = SimulatorConfig(users=100, items=100, drift=0.5, sessions_per_day=20)
        before = Platform(config).users.taste
        source = Simulator(config)
        take(source, 20_000)
        assert source.platform is not None
        after = source.platform.users.taste
        np.testing.assert_allclose(after.sum(axis=1), 1.0, atol=1e-5)
        assert (np.abs(after - before).sum(axis=1) > 0.3).mean() > 0.5
        assert ((after > 0).sum(axis=1) <= 16).all()
        steady = Simulator(SimulatorConfig(users=100, items=100, drift=0))
        take(steady, 5_000)
        assert steady.platform is not None
        np.testing.assert_array_equal(steady.platform.users.taste, before)

    def test_regret_is_zero_for_the_best_item(self) -> None:
        platform = Platform(SMALL)
        users = np.arange(20)
        all_items = np.arange(len(platform.items))
        best = np.array([platform.interest(np.full(len(all_items), u), all_items).argmax() for u in users])
        np.testing.assert_allclose(platform.regret(users, best), 0.0, atol=1e-12)
        assert (platform.regret(users, np.zeros(20, dtype=np.int64)) >= 0).all()

    def test_two_days_have_nights_and_users_who_come_back(self) -> None:
        config = SimulatorConfig(users=200, items=300, sessions_per_day=3, duplicates=0, late=0)
        events = events_in(list(Simulator(config, duration_ms=2 * 86_400_000).events()))
        hours = Counter(event.ts_ms // 3_600_000 % 24 for event in events)
        assert max(hours.values()) > 2 * min(hours.values())
        sessions = {event.session_id: event.user_id for event in events}
        a_user = Counter(sessions.values())
        assert 3 < np.mean(list(a_user.values())) < 12
        assert max(a_user.values()) > 10
        assert len(events) / len(sessions) > 10
        begins = {event.session_id: event.ts_ms for event in reversed(events)}
        ends = {event.session_id: event.ts_ms for event in events}
        lengths = [ends[session] - begins[session] for session in sessions]
        assert 2 * 60_000 < np.median(lengths) < 60 * 60_000

    def test_generates_fast(self) -> None:
        """The mark on a free machine is 50 000 events/s; here it only must not be far off."""
        events = Simulator(SimulatorConfig(users=20_000, items=2_000)).events()
        for _ in islice(events, 1_000):
            pass
        started_s = time.process_time()
        for _ in islice(events, 60_000):
            pass
        assert 60_000 / (time.process_time() - started_s) > 20_000


def snapshot(user: int, items: list[str], number: int = 0) -> Snapshot:
    return Snapshot(
        snapshot_id=f"su{user}.0.{number}",
        user_id=f"su{user}",
        generated_at_ms=0,
        ttl_ms=1,
        knows=Knows(partition=0, offset=0, event_id="e", ts_ms=0),
        model=ModelRef(name="main", epoch=0, sequence=0),
        fallback="none",
        items=[RecommendedItem(item_id=item, score=0.5, source="transitions") for item in items],
    )


class TestLists:
    def test_first_place_that_is_alive_and_not_shown_just_now(self) -> None:
        lists = Lists(3)
        assert lists.put(b"su0", snapshot(0, ["v1", "si9", "si1", "si2"]))
        assert lists.put(b"su1", snapshot(1, ["si3"]))
        for stranger in (b"u1", b"su3", b"sux", b"su\xc2\xb2", b"\xff"):
            assert not lists.put(stranger, snapshot(0, ["si1"]))
        recent = np.array([[-1, 1], [-1, -1], [-1, -1]])
        alive = np.array([True, True, True, False])
        items, positions = lists.choose(np.array([0, 1, 2]), recent, alive)
        assert items.tolist() == [2, -1, -1]
        assert positions.tolist() == [3, -1, -1]
        assert lists.put(b"su0", None)
        assert lists.choose(np.array([0]), recent[:1], alive)[0].tolist() == [-1]

    def test_ids_that_nothing_refers_to_are_forgotten(self) -> None:
        lists = Lists(1)
        for number in range(5):
            lists.put(b"su0", snapshot(0, [], number))
        lists.forget_ids_but({1, 4})
        assert lists.n_known_ids() == 2
        assert lists.snapshot_id(4) == "su0.0.4"

    def test_users_see_their_lists(self) -> None:
        lists = Lists(SMALL.users)
        platform = Platform(SMALL)
        all_items = np.arange(len(platform.items))
        for user in range(0, SMALL.users, 2):
            interest = platform.interest(np.full(len(all_items), user), all_items)
            best = np.argsort(-interest, kind="stable")[:40]
            lists.put(f"su{user}".encode(), snapshot(user, [f"si{item}" for item in best]))
        source = Simulator(SMALL, lists)
        events = events_in(take(source, 5_000))
        listed = [event for event in events if event.snapshot_id is not None]
        assert len(listed) > 1_000
        for event in events:
            assert (event.snapshot_id is None) == (event.position is None)
            if event.snapshot_id is not None:
                assert int(event.user_id[2:]) % 2 == 0
                assert event.snapshot_id == f"{event.user_id}.0.0"
        assert source.platform is not None
        shown = source.platform.shown
        assert shown["lists"].mean_interest is not None
        assert shown["mix"].mean_interest is not None
        assert shown["lists"].mean_interest > shown["mix"].mean_interest + 0.1


class TestCommand:
    def test_standard_output_is_lines_only(self) -> None:
        done = CliRunner().invoke(
            command, ["--users", "50", "--items", "30", "--events", "20", "--rate", "5", "--duration", "2"]
        )
        assert done.exit_code == 0, done.output
        lines = done.stdout.splitlines()
        assert len([line for line in lines if line.startswith('{"event":')]) == 10
        assert lines[0].startswith('{"item":{"item_id":"si0"')
        assert "10 events" in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            "--output x --to-kafka",
            "--output x",
            "--feedback live --events 5",
            "--feedback live --to-kafka",
            "--to-kafka --rate 5 --speed 5",
            "--start yesterday",
            "--duration 0",
        ],
    )
    def test_usage_errors(self, arguments: str) -> None:
        assert CliRunner().invoke(command, arguments.split()).exit_code == 2
