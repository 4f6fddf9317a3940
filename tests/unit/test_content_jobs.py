"""What the content worker makes of catalogue records: plans, positions, order of jobs, tags, publishing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from prometheus_client import CollectorRegistry

from schemas.codec import encode_item
from schemas.content import (
    CatalogueSource,
    EncodedVector,
    ItemContent,
    decode_content,
    encode_content,
    packed_vector,
)
from schemas.errors import ContractError, MediaError, UnavailableError
from schemas.media import MediaModality
from schemas.records import ContentVector, Item, MediaRefs
from schemas.runs import Float32
from schemas.settings import KafkaSettings, load_settings
from schemas.topics import topic_names
from serving.content_metrics import ContentMetrics
from streams.content.decoded import Film, Picture, Sound
from streams.content.encoders import MODALITIES, EncoderSet, Slot
from streams.content.index import ContentIndex, Known, withdrawn
from streams.content.jobs import Job, Planner, content_hash
from streams.content.pipeline import Pipeline
from streams.content.positions import Hold, Holds
from streams.content.publishing import ContentPublisher, Result, StoppedError
from streams.content.tagging import Tagging
from streams.sinks import Delivered


class Numbers:
    """An encoder of anything: its length, and a constant."""

    version = "1"
    dims = 2

    def __init__(self, modality: Any, name: str = "numbers") -> None:
        self.modality, self.name = modality, name

    def encode(self, inputs: Sequence[Any]) -> Float32:
        if any(one == "poison" for one in inputs if isinstance(one, str)):
            raise RuntimeError("cannot")
        return np.array([[len(str(one)), 1.0] for one in inputs], dtype=np.float32)


def encoder_set(**slots: Slot) -> EncoderSet:
    chosen: dict[Any, Slot] = {name: Slot(name, Numbers(name)) for name in MODALITIES}
    return EncoderSet(chosen | slots)


def index() -> ContentIndex:
    def fail(error: BaseException) -> None:
        raise error

    return ContentIndex(
        KafkaSettings(partitions=2), on_labelled=lambda _: None, on_regressed=lambda _: None, on_failure=fail
    )


HOLD = Hold(partition=0, next_offset=0)


def job_of(planner: Planner, item: Item | None, offset: int = 7, **options: Any) -> Job | None:
    value = None if item is None else encode_item(item)
    key = b"v" if item is None else item.item_id.encode()
    return planner.job(key, value, CatalogueSource(partition=0, offset=offset), 1_000, HOLD, **options)


def made(planner: Planner, item: Item, offset: int = 7, **options: Any) -> Job:
    job = job_of(planner, item, offset, **options)
    assert job is not None
    return job


ITEM = Item(item_id="v", title="猫", tags=["动物"], media=MediaRefs(cover="a.png", video="a.mp4"))


def test_the_hash_is_over_what_vectors_and_tags_are_made_of() -> None:
    again = Item(
        item_id="w",
        title="猫",
        tags=["动物"],
        media=ITEM.media,
        creator_id="c",
        duration_ms=3,
        surface="live",
    )
    assert content_hash(ITEM) == content_hash(again)
    others = [
        Item(item_id="v", title="狗", tags=["动物"], media=ITEM.media),
        Item(item_id="v", title="猫", media=ITEM.media),
        Item(item_id="v", title="猫", tags=["动物"], media=MediaRefs(cover="b.png", video="a.mp4")),
        Item(item_id="v", title="猫", tags=["动物"]),
    ]
    assert len({content_hash(one) for one in [ITEM, *others]}) == 5


def test_a_plan_names_what_is_read_and_what_lacks() -> None:
    planner = Planner(encoder_set(), index())
    job = made(planner, ITEM)
    assert job.media == {"image": "a.png", "video": "a.mp4"}
    assert {name: one.reason for name, one in job.missing.items()} == {"audio": "absent"}
    job.take("video", _film(sound=True))
    assert "audio" not in job.missing
    assert isinstance(job.decoded["audio"], Sound)
    job.refuse("image", MediaError("slow_server", "more than 10 s"))
    assert (job.missing["image"].reason, job.retriable) == ("slow_server", True)
    assert [(one.reason, one.message) for one in job.letters] == [
        ("slow_server", "$.media.cover: more than 10 s")
    ]
    silent = made(planner, ITEM)
    silent.take("video", _film(sound=False))
    assert silent.missing["audio"].reason == "absent"


def test_words_on_a_cover_are_text_with_the_title_or_without() -> None:
    slots = encoder_set().slots
    reading = Planner(EncoderSet(slots, "reader 1"), index())
    bare = Item(item_id="v", media=MediaRefs(cover="a.png"))
    pixels = np.zeros((2, 2, 3), np.uint8)
    for item, expected in ((bare, "红烧肉"), (ITEM, "猫 红烧肉")):
        job = made(reading, item)
        job.take("image", Picture(pixels, 2, 2, "红烧肉"))
        assert job.text == expected
        assert "text" not in job.missing
    for text in (None, ""):  # nobody read it, or nothing stands there
        job = made(reading, bare)
        job.take("image", Picture(pixels, 2, 2, text))
        assert job.text == ""
        assert job.missing["text"].reason == "absent"
    # A cover is read for its words alone only where words are wanted.
    no_pictures = {**slots, "image": Slot("image", None), "video": Slot("video", None)}
    given = Item(
        item_id="v",
        media=MediaRefs(cover="a.png"),
        vectors=[ContentVector(modality="text", model="numbers", values=[1.0, 2.0])],
    )
    for covers, item, media in (
        ("reader 1", bare, {"image": "a.png"}),
        ("", bare, {}),
        ("reader 1", given, {}),
    ):
        assert made(Planner(EncoderSet(no_pictures, covers), index()), item).media == media


def _film(*, sound: bool) -> Film:
    track = Sound([np.zeros(4, np.float32)], 16_000, 1.0) if sound else None
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    return Film(pixels, np.zeros(1, np.float32), 1.0, 2, 2, track, None if sound else "empty")


def test_ready_vectors_take_the_place_of_encoding_when_they_are_sound() -> None:
    vectors = [
        ContentVector(modality="image", model="numbers", values=[1.0, 2.0]),
        ContentVector(modality="text", model="other", values=[1.0]),
        ContentVector(modality="audio", model="numbers", values=[1.0]),
        ContentVector(modality="fused", model="numbers", values=[1.0]),
    ]
    item = Item(item_id="v", title="cat", media=MediaRefs(cover="a.png", audio="a.wav"), vectors=vectors)
    job = made(Planner(encoder_set(), index()), item)
    assert job.media == {"audio": "a.wav"}
    np.testing.assert_array_equal(job.given["image"], [1.0, 2.0])
    assert job.missing["text"].reason == "other_model"
    assert [(one.reason, one.field) for one in job.letters] == [("bad_value", "vectors")]
    none = encoder_set(text=Slot("text", None), image=Slot("image", None, "elsewhere", 3))
    elsewhere = Item(
        item_id="v",
        title="cat",
        vectors=[ContentVector(modality="image", model="elsewhere", values=[1, 2, 3])],
    )
    job = made(Planner(none, index()), elsewhere)
    assert list(job.given) == ["image"]
    assert job.missing["text"].reason == "no_encoder"


def test_what_is_published_is_not_done_again() -> None:
    known, encoders = index(), encoder_set()
    planner = Planner(encoders, known)
    digest = content_hash(ITEM)
    assert job_of(planner, None) is None, "never published, nothing to withdraw"
    known.expect("v", Known(digest, encoders.digest, 0, 7, refused=False, retriable=False))
    assert job_of(planner, ITEM, 7) is None
    assert job_of(planner, ITEM, 9) is None, "the same content once more"
    assert job_of(planner, Item(item_id="v", title="new"), 6) is None, "older than what was published"
    assert job_of(planner, Item(item_id="v", title="new"), 8) is not None
    assert job_of(planner, None, 8) is not None
    assert job_of(planner, ITEM, 7, again=True) is not None
    known.expect("v", Known(digest, "other", 0, 7, refused=False, retriable=False))
    assert job_of(planner, ITEM, 7, background=True) is not None, "another encoder"
    known.expect("v", Known(digest, encoders.digest, 0, 7, refused=True, retriable=False))
    assert job_of(planner, ITEM, 7) is None, "read again after a crash"
    assert job_of(planner, ITEM, 9) is not None, "sent again"
    assert job_of(planner, ITEM, 7, background=True) is None
    known.expect("v", Known(digest, encoders.digest, 0, 7, refused=True, retriable=True))
    assert job_of(planner, ITEM, 7, background=True) is not None
    known.expect("v", withdrawn(CatalogueSource(partition=0, offset=8)))
    assert job_of(planner, None, 8) is None
    assert job_of(planner, ITEM, 7) is None
    assert job_of(planner, ITEM, 9) is not None
    with pytest.raises(ContractError):
        planner.job(b"w", encode_item(ITEM), CatalogueSource(partition=0, offset=9), 0, HOLD)


def test_an_encoder_that_fails_on_one_input_encodes_the_others() -> None:
    slot = Slot("text", Numbers("text"))
    rows = slot.encode(["a", "poison", "abc"])
    assert rows[1] is None
    assert [None if row is None else row.tolist() for row in rows] == [[1.0, 1.0], None, [3.0, 1.0]]


def test_encoder_sets_differ_by_any_of_their_models() -> None:
    sets = [
        encoder_set(),
        encoder_set(text=Slot("text", None)),
        encoder_set(text=Slot("text", Numbers("text", "other"))),
        encoder_set(image=Slot("image", None, "numbers", 2)),
        encoder_set(image=Slot("image", None, "numbers", 3)),
    ]
    assert len({one.digest for one in sets}) == 5
    assert encoder_set().digest == sets[0].digest


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), unique=True, min_size=1), st.randoms(use_true_random=False))
def test_the_safe_position_passes_nothing_that_is_under_way(offsets: list[int], random: Any) -> None:
    holds = Holds("c")
    hold = holds.take(1, start=0, end=31)
    offsets.sort()
    for offset in offsets:
        holds.begin(hold, offset)
    holds.read_to(hold, 31)
    left = set(offsets)
    for offset in random.sample(offsets, len(offsets)):
        assert holds.safe() == {("c", 1): min(left)}
        assert not holds.caught_up()
        holds.done(hold, offset)
        left.remove(offset)
    assert holds.safe() == {("c", 1): 31}
    assert holds.caught_up()
    holds.take(1, start=5, end=31)
    assert not holds.holds(hold)
    holds.done(hold, 5)
    holds.release([1])
    assert holds.safe() == {}
    assert not holds.caught_up()


class Stages:
    """A pipeline over a reader that waits where it is told to."""

    def __init__(self, **options: Any) -> None:
        self.finished: list[list[Job]] = []
        self.gate = threading.Event()
        self.failures: list[BaseException] = []
        self.pipeline = Pipeline(
            self.read, self.finish, on_failure=self.failures.append,
            **({"batch_size": 4, "media_workers": 2} | options),
        )  # fmt: skip

    def read(self, reference: str, modality: MediaModality) -> Any:
        if reference == "slow.png":
            assert self.gate.wait(20)
        if reference == "bad.png":
            raise MediaError("truncated", "half")
        if reference == "bug.png":
            raise ZeroDivisionError
        return Picture(np.zeros((2, 2, 3), np.uint8), 2, 2)

    def finish(self, jobs: list[Job]) -> None:
        self.finished.append([job for job in jobs if self.pipeline.is_newest(job)])

    def wait(self, n: int) -> list[str]:
        deadline = time.monotonic() + 20
        while True:
            done = [job.item_id for batch in self.finished for job in batch]
            if len(done) >= n:
                return done
            assert time.monotonic() < deadline, done
            time.sleep(0.005)


def picture_job(item_id: str, reference: str | None, offset: int = 0, **options: Any) -> Job:
    media = None if reference is None else MediaRefs(cover=reference)
    planner = Planner(encoder_set(), index())
    return made(planner, Item(item_id=item_id, title="a", media=media), offset, **options)


def test_what_has_no_media_passes_what_waits_for_them() -> None:
    stages = Stages()
    stages.pipeline.start()
    for n in range(3):
        stages.pipeline.offer(picture_job(f"slow{n}", "slow.png"))
    stages.pipeline.offer(picture_job("quick", None))
    assert stages.wait(1) == ["quick"]
    assert stages.pipeline.n_waiting == 3
    stages.gate.set()
    assert set(stages.wait(4)) == {"quick", "slow0", "slow1", "slow2"}
    assert stages.pipeline.stop(5)
    assert not stages.failures


def test_live_comes_before_background_and_newer_before_older() -> None:
    stages = Stages(batch_size=1, media_workers=1)
    for job in (
        picture_job("old", "a.png", background=True),
        picture_job("twice", "a.png", 3),
        picture_job("new", "a.png"),
        picture_job("twice", "b.png", 4),
    ):
        stages.pipeline.offer(job)
    stages.pipeline.start()
    assert stages.wait(3) == ["new", "twice", "old"]
    assert [job.source.offset for batch in stages.finished for job in batch if job.item_id == "twice"] == [4]
    assert stages.pipeline.stop(5)


def test_a_refused_medium_goes_on_and_a_bug_ends_the_process() -> None:
    stages = Stages()
    stages.pipeline.start()
    stages.pipeline.offer(picture_job("bad", "bad.png"))
    assert stages.wait(1) == ["bad"]
    assert [one.reason for one in stages.finished[0][0].letters] == ["truncated"]
    stages.pipeline.offer(picture_job("bug", "bug.png"))
    deadline = time.monotonic() + 20
    while not stages.failures:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert isinstance(stages.failures[0], ZeroDivisionError)
    assert stages.pipeline.stop(5)


class Broker:
    """A sink that acknowledges at a flush, and keeps the order of what it was sent."""

    def __init__(self, *, away: bool = False, refuses: bool = False) -> None:
        self.log: list[tuple[str, bytes | None, bytes | None]] = []
        self.away, self.refuses = away, refuses
        self._waiting: list[tuple[Delivered, int]] = []

    def send(
        self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], delivered: Delivered,
        *, partition: int | None = None, headers: Any = None,
    ) -> None:  # fmt: skip
        self.log += [(topic, key, value) for key, value in zip(keys, values, strict=True)]
        self._waiting.append((delivered, len(keys)))

    def poll(self) -> None:
        pass

    def flush(self, timeout_s: float) -> int:
        if self.away:
            return len(self._waiting)
        self.log.append(("flush", None, None))
        for delivered, n in self._waiting:
            delivered(0, n) if self.refuses else delivered(n, 0)
        self._waiting = []
        return 0


def publisher(broker: Broker, stopping: threading.Event | None = None) -> ContentPublisher:
    metrics = ContentMetrics(CollectorRegistry())
    return ContentPublisher(broker, topic_names("t"), metrics, stopping or threading.Event())


def result(job: Job) -> Result:
    return Result(job=job, content=content(job.item_id, [], [], offset=job.source.offset), tags=None)


def content(item_id: str, vectors: list[Any], labels: list[str], offset: int = 0) -> ItemContent:
    return ItemContent(
        item_id=item_id, content_hash="0" * 32, encoders=encoder_set().digest, language="und",
        source=CatalogueSource(partition=0, offset=offset), encoded_at_ms=0, labels=labels,
        vectors=vectors, missing=[],
    )  # fmt: skip


def test_the_content_record_comes_last_and_alone() -> None:
    broker = Broker()
    job = picture_job("v", "a.png")
    job.refuse("image", MediaError("memory", "too much"))
    publisher(broker).publish([result(job)])
    topics = [topic for topic, *_ in broker.log]
    assert topics == ["t.item-tags.v1", "t.catalogue.v1.dlq", "flush", "t.item-content.v1", "flush"]
    assert broker.log[1][2] == job.value


def test_nothing_counts_as_published_that_the_broker_did_not_take() -> None:
    with pytest.raises(UnavailableError):
        publisher(Broker(refuses=True)).publish([result(picture_job("v", None))])
    stopping = threading.Event()
    stopping.set()
    away = Broker(away=True)
    with pytest.raises(StoppedError):
        publisher(away, stopping).publish([result(picture_job("v", None))])
    assert "t.item-content.v1" not in {topic for topic, *_ in away.log}


def test_content_records_keep_their_vectors_exactly() -> None:
    vector = np.random.default_rng(0).normal(size=9).astype(np.float32)
    one = EncodedVector(modality="text", model="m", version="1", values=packed_vector(vector))
    value = encode_content(content("v", [one], ["a"]))
    np.testing.assert_array_equal(decode_content(value, b"v").vectors[0].vector, vector)
    odd = EncodedVector(modality="text", model="m", version="1", values=b"abcde")
    with pytest.raises(ContractError, match="not whole"):
        decode_content(encode_content(content("v", [odd], [])), b"v")


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1_000))
def test_the_tagger_is_the_fold_of_labelled_records(seed: int) -> None:
    random = np.random.default_rng(seed)
    chosen = load_settings({"REELFLOW_CONTENT_KEYWORDS": "false"})
    tagging, twin = Tagging(chosen, encoder_set()), Tagging(chosen, encoder_set())
    records = []
    for n in range(60):
        kind = n % 2
        vector = (random.normal(size=2) * 0.1 + [3.0 * kind, -3.0 * kind]).astype(np.float32)
        encoded = EncodedVector(modality="image", model="numbers", version="1", values=packed_vector(vector))
        records.append(content(f"v{n}", [encoded], [("cat", "dog")[kind]]))
    tagging.learn(records)
    twin.learn(records)
    asked = [{"image": np.array([3.0, -3.0], np.float32)}, {}]
    assert tagging.find(asked, ["", ""]) == twin.find(asked, ["", ""])  # type: ignore[arg-type]
    found, nothing = tagging.find(asked, ["", ""])  # type: ignore[arg-type]
    assert found[0].tag == "dog"
    assert found[0].source == "learned"
    assert abs(found[0].spoke["image"]) > 0
    assert all(tag.spoke["image"] == 0 for tag in nothing)
    assert tagging.n_examples == 60
    assert 0 <= tagging.figures().accuracy <= 1
    tagging.learn([structs.replace(records[0], encoders="f" * 32)])
    assert tagging.n_examples == 60, "vectors of other encoders say nothing here"
