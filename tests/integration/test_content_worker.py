"""The content worker as a process on the real broker, with real files."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from schemas.codec import encode_event, encode_item
from schemas.content import TAGS, ItemContent, ItemTags, decode_content
from schemas.errors import UnavailableError
from schemas.records import ContentVector, Event, Item, MediaRefs
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from streams.processes import http_json, http_status, http_text
from streams.topics import create_topics
from tests import media_files as make
from tests.onnx_files import mean_colour
from tests.processes import READY_S, RunningWorker, allowed, running_gateway, start_worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PARTITIONS = 2
PROMISED_S = 5.0


class Catalogue:
    """Topics, a producer of items, and content workers that end with the test."""

    def __init__(self, bootstrap: str, folder: Path, stack: ExitStack) -> None:
        self.bootstrap, self.folder, self._stack = bootstrap, folder, stack
        self.prefix = f"t{uuid4().hex[:12]}"
        self.kafka = KafkaSettings(bootstrap=bootstrap, prefix=self.prefix, partitions=PARTITIONS)
        create_topics(self.kafka)
        self.names = topic_names(self.prefix)
        self._readers: dict[str, TopicReader] = {}
        self.producer = Producer(confluent_config(self.kafka) | {"acks": "all", "linger.ms": 5})

    def start(self, role: str = "content-worker", **environ: str) -> RunningWorker:
        # A machine that stands still for a while is no fault of a medium.
        limits = {"REELFLOW_CONTENT_FETCH_S": "300", "REELFLOW_CONTENT_DECODE_S": "300"}
        environ = {"REELFLOW_WORKER_INSTANCE_ID": f"{role}-1"} | limits | environ
        running = start_worker(self.bootstrap, self.prefix, PARTITIONS, self.folder, role, **environ)
        self._stack.enter_context(running.child)
        return running

    def put(self, *items: Item) -> None:
        for item in items:
            self.producer.produce(self.names.catalogue, encode_item(item), item.item_id)
        assert self.producer.flush(20) == 0

    def watch(self, *watches: tuple[str, str]) -> None:
        """Users watch items."""
        for user, item in watches:
            event = Event(
                event_id=uuid4().hex, user_id=user, item_id=item, type="watch", ts_ms=int(time.time() * 1000),
                watch_ms=9_000, duration_ms=10_000,
            )  # fmt: skip
            self.producer.produce(self.names.behaviour, encode_event(event), user)
        assert self.producer.flush(20) == 0

    def lists(self) -> dict[str, Any]:
        """The last list of each user."""
        return {m.key().decode(): json.loads(m.value()) for m in self.messages(self.names.recommendations)}

    def withdraw(self, item_id: str) -> None:
        self.producer.produce(self.names.catalogue, None, item_id)
        assert self.producer.flush(20) == 0

    def messages(self, topic: str) -> list[Any]:
        """Every record of a topic up to its end as of now; each is fetched once."""
        reader = self._readers.get(topic)
        if reader is None:
            reader = self._readers[topic] = self._stack.enter_context(
                closing(TopicReader(self.bootstrap, topic))
            )
        return reader.messages()

    def records(self) -> list[tuple[str, ItemContent | None]]:
        """Every record of the item-content topic."""
        return [
            (m.key().decode(), None if m.value() is None else decode_content(m.value(), m.key()))
            for m in self.messages(self.names.item_content)
        ]

    def contents(self) -> dict[str, ItemContent]:
        return {key: value for key, value in dict(self.records()).items() if value is not None}

    def tags(self) -> dict[str, ItemTags]:
        found = {m.key(): m.value() for m in self.messages(self.names.item_tags)}
        return {k.decode(): TAGS.decode_keyed(v, k) for k, v in found.items() if v is not None}

    def letters(self) -> dict[str, dict[str, str]]:
        """Headers of dead letters by key."""
        return {
            m.key().decode(): {name: value.decode() for name, value in m.headers()}
            for m in self.messages(self.names.catalogue_dlq)
        }


class TopicReader:
    """Follows a topic from its beginning."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False,
             "enable.partition.eof": True, "fetch.wait.max.ms": 20}
        )  # fmt: skip
        self._places = [TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)]
        self._consumer.assign(self._places)
        self._positions = dict.fromkeys(range(PARTITIONS), 0)
        self._found: list[Any] = []

    def messages(self) -> list[Any]:
        ends = {place.partition: self._end(place) for place in self._places}
        while any(self._positions[partition] < end for partition, end in ends.items()):
            for message in self._consumer.consume(500, 0.1):
                partition, offset, error = message.partition(), message.offset(), message.error()
                assert partition is not None
                assert offset is not None
                if error is None:
                    self._found.append(message)
                    self._positions[partition] = offset + 1
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    self._positions[partition] = max(self._positions[partition], offset)
        return self._found

    def _end(self, place: TopicPartition) -> int:
        while True:
            try:
                return self._consumer.get_watermark_offsets(place, timeout=10)[1]
            except KafkaException as error:  # a topic that is new to the client has no leader for a moment
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def catalogue(broker: LocalBroker, tmp_path: Path) -> Iterator[Catalogue]:
    with ExitStack() as stack:
        yield Catalogue(broker.bootstrap, tmp_path, stack)


def ready(worker: RunningWorker) -> None:
    worker.child.wait_ready(f"{worker.url}/health/ready", 120)


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def modalities(content: ItemContent) -> dict[str, int]:
    return {one.modality: len(one.vector) for one in content.vectors}


def examples(folder: Path) -> list[Item]:
    """Items of two kinds with tags: tones and films, in Chinese and English."""
    items = []
    for n in range(6):
        make.sound(folder / f"tone{n}.wav", 0.5 + n / 10)
        make.picture(folder / f"cover{n}.png")
        items += [
            Item(item_id=f"m{n}", tags=["音乐"], media=MediaRefs(audio=str(folder / f"tone{n}.wav"))),
            Item(item_id=f"c{n}", title=f"红烧肉的做法 第{n}集", tags=["美食"],
                 media=MediaRefs(cover=str(folder / f"cover{n}.png"))),
            Item(item_id=f"e{n}", title=f"How to cook rice, part {n}", tags=["美食"]),
        ]  # fmt: skip
    return items


def arriving(folder: Path) -> list[Item]:
    """A film, a Chinese title with a cover, a sound: those below TEST_MEDIA, if that is set, or our own."""
    films, covers, sounds = [], [], []
    if where := os.environ.get("TEST_MEDIA"):
        files = sorted(Path(where).rglob("*"))
        films, covers, sounds = (
            [str(path) for path in files if path.suffix in ends]
            for ends in ((".mp4", ".webm", ".ogv", ".avi"), (".jpg", ".png"), (".flac", ".wav"))
        )
    make.film(folder / "new.mp4", 3.0)
    make.picture(folder / "new.jpg")
    make.sound(folder / "new.flac", 2.0)
    film, cover, sound = (
        (found or [str(folder / own)])[0]
        for found, own in ((films, "new.mp4"), (covers, "new.jpg"), (sounds, "new.flac"))
    )
    print("film, cover, sound:", film, cover, sound)
    return [
        Item(item_id="film", media=MediaRefs(video=film)),
        Item(item_id="dish", title="家常菜:清蒸鱼", media=MediaRefs(cover=cover)),
        Item(item_id="tone", media=MediaRefs(audio=sound)),
    ]


def test_a_film_a_chinese_title_with_a_cover_and_a_sound_are_understood_in_seconds(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    worker = catalogue.start()
    ready(worker)
    catalogue.put(*examples(tmp_path))
    worker.wait(lambda s: s["tagger"]["examples"] == 18)
    for item in arriving(tmp_path):
        item_id = item.item_id
        began = time.monotonic()
        catalogue.put(item)
        until(lambda: item_id in catalogue.contents(), f"{item_id} has vectors", 60)  # noqa: B023
        took_s = time.monotonic() - began
        print(f"{item_id}: vectors and tags after {took_s:.2f} s")
        assert took_s < allowed(PROMISED_S), f"{item_id} took {took_s:.1f} s"
    contents, tags = catalogue.contents(), catalogue.tags()
    assert modalities(contents["film"]) == {"audio": 192, "video": 1024}
    assert modalities(contents["dish"]) == {"text": 512, "image": 1024}
    assert modalities(contents["tone"]) == {"audio": 192}
    assert contents["dish"].language == "zh"
    assert {one.reason for one in contents["tone"].missing} == {"absent"}
    assert tags["dish"].tags[0].tag == "美食"
    assert tags["tone"].tags[0].tag == "音乐"
    assert "清蒸鱼" in [tag.tag for tag in tags["dish"].tags if tag.source == "keyword"]
    assert tags["dish"].content_hash == contents["dish"].content_hash
    assert all(tags["tone"].tags[0].spoke[other] == 0 for other in ("text", "image", "video"))
    text = http_text(f"{worker.url}/metrics")
    assert 'reelflow_content_modalities_total{modality="audio",outcome="encoded"} 8.0' in text
    assert worker.child.stop() == 0, worker.child.tail()


DISHES = (
    "红烧肉",
    "清蒸鱼",
    "麻婆豆腐",
    "宫保鸡丁",
    "番茄炒蛋",
    "酸辣汤",
    "饺子",
    "炒饭",
    "凉拌黄瓜",
    "葱油面",
)
SPORTS = (
    "football",
    "tennis",
    "basketball",
    "swimming",
    "cycling",
    "boxing",
    "rugby",
    "golf",
    "rowing",
    "judo",
)


def test_a_new_item_is_in_the_lists_of_users_whose_history_is_near(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    reader = catalogue.start()
    worker = catalogue.start(
        "worker",
        REELFLOW_LEARNER_CONTENT="true",
        REELFLOW_WORKER_REFRESH_INTERVAL_MS="100",
        REELFLOW_RANKER_LIST_SIZE="20",
    )
    titles = {f"d{n}": f"家常菜做法:{dish}" for n, dish in enumerate(DISHES)}
    titles |= {f"s{n}": f"The best {sport} match of the season" for n, sport in enumerate(SPORTS)}
    catalogue.put(*[Item(item_id=item_id, title=title) for item_id, title in titles.items()])
    chance = random.Random(3)
    for _ in range(60):
        users = [f"{kind}-{n}" for kind in "ds" for n in range(10)]
        catalogue.watch(*[(user, f"{user[0]}{chance.randrange(10)}") for user in users])
    worker.child.wait_ready(f"{worker.url}/health/ready", READY_S)
    ready(reader)
    worker.wait(lambda s: s["events_learned"] == 1_200 and not s["pending_snapshots"])
    until(lambda: len(catalogue.contents()) == 20, "all have vectors")
    make.picture(tmp_path / "cover.png")
    began = time.monotonic()
    catalogue.put(
        Item(
            item_id="new-d", title="家常菜做法:糖醋排骨", media=MediaRefs(cover=str(tmp_path / "cover.png"))
        ),
        Item(item_id="new-s", title="The best volleyball match of the season"),
    )
    until(lambda: {"new-d", "new-s"} <= set(catalogue.contents()), "the new items have vectors")
    found: dict[str, list[str]] = {}
    for n in range(4):
        catalogue.watch(*[(f"{kind}-{user}", f"{kind}{n}") for kind in "ds" for user in range(10)])
        total = 1_200 + 20 * (n + 1)
        worker.wait(lambda s: s["events_learned"] == total and not s["pending_snapshots"])  # noqa: B023
        for user, snapshot in catalogue.lists().items():
            found.setdefault(user, []).extend(
                place["item_id"] for place in snapshot["items"] if place["source"] == "content"
            )
        if n == 0:
            assert any("new-d" in items for user, items in found.items() if user[0] == "d")
            took_s = time.monotonic() - began
            print(f"in a list {took_s:.2f} s after it came to the catalogue")
            assert took_s < allowed(PROMISED_S)
    assert {len(items) for items in found.values()} == {4}, "a place of twenty is one each"
    near = sum(item == f"new-{user[0]}" for user, items in found.items() for item in items)
    print(f"{near} of {sum(map(len, found.values()))} new items were near")
    assert near > 0.6 * sum(map(len, found.values()))
    (listed,) = [place for place in catalogue.lists()["d-0"]["items"] if place["source"] == "content"]
    assert listed["reasons"] == [{"kind": "new"}]
    assert 0 < listed["propensity"] < 1
    assert worker.child.stop() == 0, worker.child.tail()
    audit = reelflow("audit", worker.environ | {"REELFLOW_LEARNER_CONTENT": "true"})
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_the_gateway_finds_items_by_what_is_asked_in_another_language(catalogue: Catalogue) -> None:
    worker = catalogue.start()
    titles = {
        "cat": "小猫咪在沙发上睡觉", "rice": "How to cook fried rice", "train": "高铁进站的声音",
        "rain": "Heavy rain in the forest at night", "match": "世界杯足球决赛精彩进球",
    }  # fmt: skip
    catalogue.put(*[Item(item_id=item_id, title=title) for item_id, title in titles.items()])
    worker.environ["REELFLOW_GATEWAY_SEARCH"] = "true"
    ready(worker)
    with running_gateway(worker, catalogue.folder) as url:
        until(lambda: len(http_json(f"{url}/v1/search?q=cat")["items"]) == 5, "all titles are known")
        asked = {
            "a sleeping kitten": "cat",
            "蛋炒饭的做法": "rice",
            "football goals": "match",
            "下雨的森林": "rain",
        }
        for query, item_id in asked.items():
            found = http_json(f"{url}/v1/search?limit=2&q={quote(query)}")
            assert found["items"][0]["item_id"] == item_id, found
            assert len(found["items"]) == 2
        near = http_json(f"{url}/v1/items/cat/similar?limit=3")
        assert len(near["items"]) == 3
        assert "cat" not in {one["item_id"] for one in near["items"]}
        catalogue.withdraw("cat")
        until(lambda: len(http_json(f"{url}/v1/search?q=cat")["items"]) == 4, "withdrawn is not found")
        assert http_status(f"{url}/v1/items/cat/similar") == 404


def reelflow(command: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", command], env={**os.environ, **environ},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_what_is_refused_is_a_dead_letter_and_the_rest_goes_on(catalogue: Catalogue, tmp_path: Path) -> None:
    make.picture(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-60])
    (tmp_path / "bomb.png").write_bytes(make.png(60_000, 60_000, make.deflated_zeros(1 << 20)))
    (tmp_path / "liar.mp4").write_bytes((tmp_path / "good.png").read_bytes())
    catalogue.put(
        Item(item_id="cut", title="Half a picture", media=MediaRefs(cover=str(tmp_path / "cut.png"))),
        Item(item_id="bomb", media=MediaRefs(cover=str(tmp_path / "bomb.png"))),
        Item(item_id="liar", media=MediaRefs(video=str(tmp_path / "liar.mp4"))),
        Item(item_id="gone", media=MediaRefs(audio=str(tmp_path / "nowhere.wav"))),
        Item(item_id="far", media=MediaRefs(cover="https://other.example/a.png")),
        Item(
            item_id="short", vectors=[ContentVector(modality="image", model="open-nsfw-resnet", values=[1.0])]
        ),
        Item(
            item_id="other", title="A", vectors=[ContentVector(modality="text", model="mine", values=[1.0])]
        ),
        Item(
            item_id="ready",
            vectors=[ContentVector(modality="image", model="open-nsfw-resnet", values=[0.5] * 1024)],
            media=MediaRefs(cover=str(tmp_path / "nowhere.png")),
        ),
        Item(item_id="good", media=MediaRefs(cover=str(tmp_path / "good.png"))),
    )
    worker = catalogue.start()
    ready(worker)
    worker.wait(lambda s: s["items_encoded"] == 9, 40)
    letters = catalogue.letters()
    assert {key: headers["reelflow_reason"] for key, headers in letters.items()} == {
        "cut": "truncated", "bomb": "too_many_pixels", "liar": "wrong_type", "gone": "not_found",
        "far": "host_not_allowed", "short": "bad_value",
    }  # fmt: skip
    assert {headers["reelflow_stage"] for headers in letters.values()} == {"content"}
    assert {key: headers["reelflow_field"] for key, headers in letters.items() if key != "cut"} == {
        "bomb": "media", "liar": "media", "gone": "media", "far": "media", "short": "vectors",
    }  # fmt: skip
    contents = catalogue.contents()
    assert modalities(contents["cut"]) == {"text": 512}
    assert modalities(contents["good"]) == {"image": 1024}
    (vector,) = contents["ready"].vectors
    assert (vector.version, set(vector.vector.tolist())) == ("", {0.5})
    assert {one.modality: one.reason for one in contents["other"].missing} == {
        "text": "other_model", "image": "absent", "audio": "absent", "video": "absent",
    }  # fmt: skip

    # The same record once more is another attempt, as `reelflow dlq resend` makes one.
    make.sound(tmp_path / "nowhere.wav")
    catalogue.put(
        Item(item_id="gone", media=MediaRefs(audio=str(tmp_path / "nowhere.wav"))),
        Item(item_id="good", media=MediaRefs(cover=str(tmp_path / "good.png"))),
    )
    worker.wait(lambda s: s["items_encoded"] == 10 and s["lag_records"] == 0)
    assert modalities(catalogue.contents()["gone"]) == {"audio": 192}
    catalogue.withdraw("good")
    until(lambda: "good" not in catalogue.contents(), "the withdrawn item goes")
    assert "good" not in catalogue.tags()
    assert Counter(key for key, _ in catalogue.records())["good"] == 2
    assert worker.child.stop() == 0, worker.child.tail()


def test_kill_9_at_any_moment_leaves_each_item_encoded_once(catalogue: Catalogue, tmp_path: Path) -> None:
    """Of every item one current vector set and tags; what was committed is never encoded again."""
    chance = random.Random(7)
    make.picture(tmp_path / "cover.png")
    make.sound(tmp_path / "tone.wav")
    n = 0
    committed: dict[str, int] = {}
    worker = catalogue.start()
    for _ in range(6):
        batch = [
            Item(
                item_id=f"i{n + i}",
                title=f"Number {n + i}",
                media=MediaRefs(cover=str(tmp_path / "cover.png"), audio=str(tmp_path / "tone.wav")),
            )
            for i in range(40)
        ]
        catalogue.put(*batch)
        n += len(batch)
        until(lambda: n_done(worker) > 0, "some are done", 120)  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.6))
        worker.child.process.send_signal(signal.SIGKILL)
        worker.child.process.wait()
        stored = Counter(key for key, _ in catalogue.records())
        assert {key: stored[key] for key in committed} == committed, "encoded again after it was committed"
        committed = dict(stored)
        worker = catalogue.start()
    ready(worker)
    worker.wait(lambda s: s["items_known"] == n and s["lag_records"] == 0 and s["waiting"] == 0)
    stored = Counter(key for key, _ in catalogue.records())
    assert {key: stored[key] for key in committed} == committed
    assert set(stored) == {f"i{i}" for i in range(n)}
    contents, tags = catalogue.contents(), catalogue.tags()
    assert set(contents) == set(tags) == set(stored)
    for key, content in contents.items():
        assert modalities(content) == {"text": 512, "image": 1024, "audio": 192}
        assert (tags[key].content_hash, tags[key].source) == (content.content_hash, content.source)
    print(f"{n} items, {len(catalogue.records())} content records after 6 kills")
    assert set(stored.values()) == {1}
    assert worker.child.stop() == 0, worker.child.tail()


def test_workers_share_the_partitions_and_take_over_from_each_other(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    make.picture(tmp_path / "cover.png")
    cover = MediaRefs(cover=str(tmp_path / "cover.png"))

    def put(first: int, n: int) -> None:
        catalogue.put(
            *[Item(item_id=f"i{i}", title=f"Title {i}", media=cover) for i in range(first, first + n)]
        )

    one = catalogue.start()
    ready(one)
    put(0, 60)
    other = catalogue.start(REELFLOW_WORKER_INSTANCE_ID="content-worker-2")
    until(lambda: n_partitions(one) == n_partitions(other) == 1, "each has a partition", 120)
    put(60, 60)
    until(lambda: len(catalogue.contents()) == 120, "all are encoded", 120)
    one.wait(lambda s: s["items_known"] == 120 and s["waiting"] == 0)
    assert all(worker.stats()["items_encoded"] > 0 for worker in (one, other))
    # What was under way when the partitions moved may have been done by both.
    assert 120 <= len(catalogue.records()) <= 120 + 2 * 16
    assert one.child.stop() == 0, one.child.tail()
    put(120, 20)
    other.wait(lambda s: s["items_known"] == 140 and s["lag_records"] == 0)
    assert set(catalogue.contents()) == set(catalogue.tags()) == {f"i{i}" for i in range(140)}
    assert other.child.stop() == 0, other.child.tail()


def n_partitions(worker: RunningWorker) -> int:
    worker.child.check()
    with suppress(UnavailableError):
        return len(worker.stats()["partitions"])
    return 0


def n_done(worker: RunningWorker) -> int:
    worker.child.check()
    with suppress(UnavailableError):  # not listening yet
        return int(worker.stats()["items_done"])
    return 0


def test_another_encoder_encodes_all_again_in_the_background(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.put(*[Item(item_id=f"i{n}", title=f"Title {n}") for n in range(12)])
    worker = catalogue.start()
    ready(worker)
    worker.wait(lambda s: s["items_done"] == 12)
    before = catalogue.contents()
    assert worker.child.stop() == 0
    (tmp_path / "net.onnx").write_bytes(mean_colour())
    worker = catalogue.start(
        REELFLOW_CONTENT_IMAGE_ENCODER=f"onnx:{tmp_path / 'net.onnx'}", REELFLOW_CONTENT_REENCODE_PER_S="10"
    )
    ready(worker)
    began = time.monotonic()
    stats = worker.wait(lambda s: s["items_done"] == 12 and s["scans"] == 0)
    assert time.monotonic() - began > 0.8, "at most ten a second"
    assert stats["background_offered"] == 12
    after = catalogue.contents()
    assert {one.encoders for one in after.values()} == {stats["encoders"]}
    assert {one.encoders for one in before.values()}.isdisjoint({stats["encoders"]})
    assert all(after[key].source == before[key].source for key in before)
    assert worker.child.stop() == 0


def test_a_worker_without_its_model_says_so(catalogue: Catalogue, tmp_path: Path) -> None:
    worker = catalogue.start(REELFLOW_CONTENT_IMAGE_ENCODER=f"onnx:{tmp_path / 'none.onnx'}")
    assert worker.child.process.wait(60) == 1
    assert "setting content.image_encoder: the model is not on this machine" in worker.child.tail()
