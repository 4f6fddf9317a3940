"""The formats, the selection of a part, and pacing."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from schemas.checks import EVENTS, ITEMS
from schemas.errors import ConfigurationError, SourceError
from schemas.records import Event, Item
from streams.commands.replay import command, rebased
from streams.sources import Pacing, Source, open_source, select
from streams.sources.pacing import Pacer
from streams.sources.selection import shifted, span_ms
from streams.sources.source import Record

LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,"
    "long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
LOG_ROWS = (
    "7,1,20220425,0,1650812742000,0,0,0,0,0,1,0,900,9000,0,0,0,0,1",
    "7,2,20220425,0,1650812741000,1,1,1,1,1,0,1,12000,9000,0,0,0,0,1",
    "8,2,20220425,0,1650812742000,0,0,0,0,0,0,1,7000,0,0,0,0,0,1",
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,"
    "server_height,music_id,music_type,tag\n"
    '1,77,NORMAL,2022-04-10,Web,0.0,9000.0,720.0,1280.0,1,9.0,"20,43"\n'
    "2,78,NORMAL,2022-04-10,Web,0.0,,720.0,1280.0,1,9.0,\n"
)


def events_of(source: Source) -> list[Event]:
    """Events of a source, checked against the contract and the promises of a source."""
    records = list(source.events())
    assert records == list(source.events()), "a source can be read again"
    assert all(record.kind == "event" for record in records)
    events = [EVENTS.decode_keyed(record.value, record.key) for record in records]
    assert [event.ts_ms for event in events] == [record.ts_ms for record in records]
    assert source.n_events == len(events)
    assert source.times_ms is not None
    assert source.times_ms.tolist() == sorted(event.ts_ms for event in events)
    assert len({event.event_id for event in events}) == len(events)
    return events


def items_of(source: Source) -> dict[str, Item]:
    items = [ITEMS.decode_keyed(record.value, record.key) for record in source.items()]
    return {item.item_id: item for item in items}


@pytest.fixture
def kuairand(tmp_path: Path) -> Path:
    (tmp_path / "log_standard_test.csv").write_text("\n".join([LOG_HEADER, *LOG_ROWS]) + "\n")
    (tmp_path / "video_features_basic_test.csv.gz").write_bytes(gzip.compress(VIDEOS.encode()))
    return tmp_path


class TestKuaiRand:
    def test_rows_become_events(self, kuairand: Path) -> None:
        events = events_of(open_source("kuairand", kuairand))
        assert [(e.event_id, e.user_id, e.item_id, e.type, e.watch_ms, e.duration_ms) for e in events] == [
            ("kr-1-w", "u7", "v2", "watch", 12_000, 9_000),
            ("kr-1-l", "u7", "v2", "like", None, None),
            ("kr-1-f", "u7", "v2", "follow", None, None),
            ("kr-1-c", "u7", "v2", "comment", None, None),
            ("kr-1-s", "u7", "v2", "share", None, None),
            ("kr-0-i", "u7", "v1", "impression", 900, 9_000),
            ("kr-0-d", "u7", "v1", "dislike", None, None),
            ("kr-2-w", "u8", "v2", "watch", 7_000, None),
        ]
        assert {event.surface for event in events} == {"short_video"}

    def test_videos(self, kuairand: Path) -> None:
        items = items_of(open_source("kuairand", kuairand))
        assert items["v1"] == Item(
            item_id="v1",
            surface="short_video",
            tags=["tag20", "tag43"],
            category="tag20",
            creator_id="a77",
            duration_ms=9_000,
            published_ts_ms=1_649_520_000_000,
        )
        assert (items["v2"].tags, items["v2"].duration_ms) == ([], None)

    def test_history_comes_before_the_log(self, kuairand: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        last_ms = [1_650_000_000_000, 1_650_700_000_000]
        lists = {"watch_seq": [[1, 2, 1], [2]], "like_seq": [[1], []]}
        table = pa.table({"user_id": [7, 9], "last_time_ms": last_ms, **lists})
        pq.write_table(table, kuairand / "user_history_test.parquet")
        source = open_source("kuairand", kuairand, history=True, seed=3)
        events = events_of(source)
        assert len(events) == 8 + 5
        prior = [event for event in events if event.event_id.startswith("krh")]
        assert events[:5] == prior
        mine = [(e.item_id, e.type) for e in prior if e.user_id == "u7"]
        assert mine == [("v1", "watch"), ("v2", "watch"), ("v1", "watch"), ("v1", "like")]
        assert [e.ts_ms for e in prior if e.user_id == "u9"] == [last_ms[1]]
        assert all(1_649_347_200_000 <= e.ts_ms <= last_ms[1] for e in prior)
        assert [r.value for r in source.events()] != [
            r.value for r in open_source("kuairand", kuairand, history=True, seed=4).events()
        ]

    def test_errors_name_the_file(self, kuairand: Path, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="user_history"):
            open_source("kuairand", kuairand, history=True)
        log = kuairand / "log_standard_test.csv"
        log.write_text(f"{LOG_HEADER}\n{LOG_ROWS[0]}\nx,y\n")
        with pytest.raises(SourceError, match=r"log_standard_test.csv, line 3"):
            open_source("kuairand", kuairand)
        log.write_text(LOG_HEADER.replace("is_hate", "hate"))
        with pytest.raises(SourceError, match="no column is_hate"):
            open_source("kuairand", kuairand)
        log.rename(kuairand / "log_standard_test.parquet")
        with pytest.raises(SourceError, match=r"log_standard_test.parquet"):
            open_source("kuairand", kuairand)
        with pytest.raises(SourceError, match="no log_standard"):
            open_source("kuairand", _empty(tmp_path))


def _empty(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir()
    return empty


class TestSample:
    def test_is_the_whole_log(self) -> None:
        source = open_source("sample")
        kinds = Counter(event.type for event in events_of(source))
        assert kinds["watch"] + kinds["impression"] == 92_220
        assert (kinds["watch"], kinds["like"], kinds["dislike"]) == (41_308, 1_604, 63)
        assert len(items_of(source)) == 7_583
        assert len({record.key for record in source.events()}) == 21_202

    def test_carries_its_licence_and_attribution(self) -> None:
        from importlib.resources import files

        folder = files("streams") / "sample"
        assert "Attribution-ShareAlike 4.0" in (folder / "LICENSE").read_text()
        assert "Gao" in (folder / "README.md").read_text()

    def test_is_small(self) -> None:
        from importlib.resources import files

        sizes = [len(file.read_bytes()) for file in (files("streams") / "sample").iterdir()]
        assert sum(sizes) < 1_500_000


class TestRatings:
    def test_movielens_csv(self, tmp_path: Path) -> None:
        (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,9\n2,11,0.5,3\n")
        (tmp_path / "movies.csv.gz").write_bytes(
            gzip.compress(b'movieId,title,genres\n10,"A, B (1995)",Comedy|Drama\n11,C,(no genres listed)\n')
        )
        source = open_source("movielens", tmp_path)
        assert [(e.event_id, e.user_id, e.item_id, e.type, e.ts_ms) for e in events_of(source)] == [
            ("ml-1", "2", "11", "watch", 3_000),
            ("ml-0", "1", "10", "watch", 9_000),
        ]
        items = items_of(source)
        assert (items["10"].title, items["10"].tags, items["10"].category) == (
            "A, B (1995)",
            ["Comedy", "Drama"],
            "Comedy",
        )
        assert items["11"].tags == []

    def test_movielens_dat_is_latin_1(self, tmp_path: Path) -> None:
        (tmp_path / "ratings.dat").write_text("1::2::5::978300760\n")
        (tmp_path / "movies.dat").write_bytes("2::Misérables, Les (1995)::Drama\n".encode("latin-1"))
        source = open_source("movielens", tmp_path / "ratings.dat")
        assert items_of(source)["2"].title == "Misérables, Les (1995)"
        assert [e.ts_ms for e in events_of(source)] == [978_300_760_000]

    def test_movielens_100k(self, tmp_path: Path) -> None:
        (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n")
        flags = "|".join(["0"] * 5 + ["1"] + ["0"] * 12 + ["1"])
        (tmp_path / "u.item").write_text(f"242|Kolya (1996)|24-Jan-1997||http://x|{flags}\n")
        source = open_source("movielens", tmp_path)
        assert items_of(source)["242"].tags == ["Comedy", "Western"]
        assert [e.user_id for e in events_of(source)] == ["196"]

    def test_movietweetings_keeps_leading_zeros_and_order_of_ties(self, tmp_path: Path) -> None:
        (tmp_path / "ratings.dat").write_text("5::0054890::9::20\n1::0054891::0::20\n1::0054890::8::10\n")
        (tmp_path / "movies.dat").write_text(
            "0054890::Fantômas (1913)::Crime\n0054891::x::\n", encoding="utf-8"
        )
        source = open_source("movietweetings", tmp_path)
        assert [(e.event_id, e.item_id) for e in events_of(source)] == [
            ("mt-2", "0054890"),
            ("mt-0", "0054890"),
            ("mt-1", "0054891"),
        ]
        assert items_of(source)["0054890"].title == "Fantômas (1913)"

    def test_errors_name_file_and_line(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"ratings\.csv with movies\.csv"):
            open_source("movielens", tmp_path)
        (tmp_path / "ratings.dat").write_text("1::2::5::9\n1::2\n")
        (tmp_path / "movies.dat").write_text("2::x::\n")
        with pytest.raises(SourceError, match=r"ratings\.dat, line 2"):
            open_source("movietweetings", tmp_path)


EVENT = b'{"event_id":"e1","user_id":"u1","item_id":"v1","type":"like","ts_ms":5,"more":[1]}'


class TestNative:
    def test_order_and_bytes_are_kept(self, tmp_path: Path) -> None:
        log = tmp_path / "log.jsonl.gz"
        late = EVENT.replace(b'"ts_ms":5', b'"ts_ms" : 3')
        lines = [
            b'{"item":{"item_id":"v1","x":1}}',
            b'{"event":' + EVENT + b"}",
            b"",
            b'{"withdraw":"v1"}',
            late,
        ]
        log.write_bytes(gzip.compress(b"\r\n".join(lines)))
        source = open_source("native", log)
        assert list(source.items()) == [Record(b"v1", b'{"item_id":"v1","x":1}', 0, "item")]
        assert list(source.events()) == [
            Record(b"u1", EVENT, 5),
            Record(b"v1", None, 5, "item"),
            Record(b"u1", late, 3),
        ]
        assert span_ms(source) == (3, 5)

    def test_catalogue_file(self, tmp_path: Path) -> None:
        (tmp_path / "items").write_bytes(b'{"item_id":"v1"}\n{"item":{"item_id":"v2"}}\n{"withdraw":"v3"}\n')
        (tmp_path / "log").write_bytes(EVENT)
        source = open_source("native", tmp_path / "log", catalogue=tmp_path / "items")
        assert [(r.key, r.value) for r in source.items()] == [
            (b"v1", b'{"item_id":"v1"}'),
            (b"v2", b'{"item_id":"v2"}'),
            (b"v3", None),
        ]

    @pytest.mark.parametrize(
        ("line", "key"),
        [
            (b'{"user_id":"u9","type":"teleport"}', b"u9"),
            (b'{"event":{"user_id":7}}', None),
            (b"\xff\xfe", None),
            (b"[1]", None),
            (b'{"user_id":"u9"', None),
        ],
    )
    def test_broken_lines(self, tmp_path: Path, line: bytes, key: bytes | None) -> None:
        log = tmp_path / "log"
        log.write_bytes(EVENT + b"\n" + line + b"\n")
        with pytest.raises(SourceError, match=r"log, line 2: "):
            list(open_source("native", log).events())
        sent = line.removeprefix(b'{"event":').removesuffix(b"}") if line.startswith(b'{"event":') else line
        records = list(open_source("native", log, pass_invalid=True).events())
        assert records == [Record(b"u1", EVENT, 5), Record(key, sent, 5)]

    def test_broken_items_and_missing_files(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_bytes(b'{"item":{"item_id":""}}\n')
        with pytest.raises(SourceError, match=r"log, line 1: "):
            list(open_source("native", log).items())
        with pytest.raises(SourceError, match="no such file"):
            open_source("native", tmp_path / "nothing")


def test_options_go_with_their_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must be one of sample, kuairand"):
        open_source("csv")
    with pytest.raises(ConfigurationError, match="history"):
        open_source("native", tmp_path, history=True)
    with pytest.raises(ConfigurationError, match="pass_invalid"):
        open_source("sample", pass_invalid=True)
    with pytest.raises(ConfigurationError, match="needs the path"):
        open_source("movielens")
    with pytest.raises(SourceError, match="no such"):
        open_source("movielens", tmp_path / "nothing")


class TestSelection:
    def test_since_until_limit_and_shift(self, kuairand: Path) -> None:
        source = open_source("kuairand", kuairand)
        part = select(source, since_ms=1_650_812_742_000, limit=2, shift_ms=1)
        assert [(e.event_id, e.ts_ms) for e in events_of(part)] == [
            ("kr-0-i", 1_650_812_742_001),
            ("kr-0-d", 1_650_812_742_001),
        ]
        assert items_of(part)["v1"].published_ts_ms == 1_649_520_000_001
        assert len(events_of(select(source, until_ms=1_650_812_742_000))) == 5
        assert select(source) is source

    def test_catalogue_changes_before_since_are_kept(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        later = EVENT.replace(b'"ts_ms":5', b'"ts_ms":9')
        log.write_bytes(EVENT + b'\n{"item":{"item_id":"v2"}}\n' + later + b'\n{"withdraw":"v2"}\n')
        part = select(open_source("native", log), since_ms=6, until_ms=9)
        assert [record.kind for record in part.events()] == ["item"]
        with pytest.raises(SourceError, match="no events"):
            span_ms(part)

    def test_shift_leaves_broken_messages_alone(self) -> None:
        for value in (None, b"\xff", b"[5]", b'{"ts_ms":"5"}', b'{"ts_ms":true}'):
            moved = shifted(Record(b"k", value, 5), 10)
            assert (moved.value, moved.ts_ms) == (value, 15)

    @pytest.mark.parametrize(
        ("pacing", "expected"),
        [
            (Pacing.as_fast(), (999_999_000, 1_000_000_000)),
            (Pacing.at_speed(60), (999_999_000, 1_000_000_000)),
            (Pacing.at_speed(1), (1_000_000_000, 1_000_001_000)),
        ],
    )
    def test_rebase(self, kuairand: Path, pacing: Pacing, expected: tuple[int, int]) -> None:
        source = rebased(open_source("kuairand", kuairand), pacing, now_ms=1_000_000_000)
        assert span_ms(source) == expected
        assert source.times_ms is not None
        assert np.array_equal(source.times_ms, [e.ts_ms for e in events_of(source)])


class TestPacing:
    def test_rate_catches_up(self) -> None:
        now = [50.0]
        pacer = Pacer(Pacing.at_rate(10), lambda: now[0])
        waits = []
        for _ in range(3):
            waits.append(round(pacer.wait_s(0), 6))
            pacer.sent()
        now[0] = 60.0
        waits.append(pacer.wait_s(0))
        assert waits == [0, 0.1, 0.2, 0]

    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
    def test_must_be_positive(self, value: float) -> None:
        with pytest.raises(ConfigurationError):
            Pacing.at_rate(value)
        with pytest.raises(ConfigurationError):
            Pacing.at_speed(value)


class TestCommand:
    def test_usage_errors(self) -> None:
        run = CliRunner().invoke
        assert run(command, ["--rate", "5", "--as-fast"]).exit_code == 2
        assert run(command, ["--since", "yesterday"]).exit_code == 2
        assert run(command, ["--format", "csv"]).exit_code == 2
        assert run(command, ["--limit", "0"]).exit_code == 2
