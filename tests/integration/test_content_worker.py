"""The content worker as a process on the real broker, with real files."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from schemas.records import ContentVector, Item, MediaRefs
from streams.processes import http_text
from tests import media_files as make
from tests.content_rig import PROMISED_S, Catalogue, modalities, ready, until
from tests.onnx_files import mean_colour
from tests.processes import allowed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


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


def test_words_on_a_cover_are_the_text_of_an_item_without_a_title(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    pixels = np.full((360, 640, 3), (40, 90, 160), dtype=np.uint8)
    cv2.putText(pixels, "三分钟学会做红烧肉", (30, 160), (255, 255, 255), cv2.FontFace("uni"), 48, 500)
    Image.fromarray(pixels).save(tmp_path / "cover.jpg")
    cover = MediaRefs(cover=str(tmp_path / "cover.jpg"))
    catalogue.put(
        Item(item_id="words", media=cover),
        Item(item_id="same", title="三分钟学会做红烧肉"),
        Item(item_id="other", title="Tennis final"),
        Item(item_id="gone", media=MediaRefs(cover=str(tmp_path / "gone.jpg"))),
    )
    worker = catalogue.start(REELFLOW_CONTENT_COVER_TEXT="true")
    ready(worker)
    worker.wait(lambda s: s["items_done"] == 4)
    contents = catalogue.contents()
    assert modalities(contents["words"]) == {"text": 512, "image": 1024}
    assert contents["words"].language == "zh"
    text = {key: one.vectors[0].vector for key, one in contents.items() if one.vectors}
    assert text["words"] @ text["same"] > 0.95
    assert text["words"] @ text["other"] < 0.5
    assert "红烧肉" in [tag.tag for tag in catalogue.tags()["words"].tags if tag.source == "keyword"]
    assert 'reelflow_content_covers_total{outcome="words"} 1.0' in http_text(f"{worker.url}/metrics")
    assert {one.modality: one.reason for one in contents["gone"].missing} == {
        "text": "absent", "image": "not_found", "audio": "absent", "video": "absent",
    }  # fmt: skip
    assert worker.child.stop() == 0, worker.child.tail()


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
