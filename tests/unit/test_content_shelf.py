"""What is near an item or a text, held in memory; and the gateway's answers from it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from schemas.content import CatalogueSource, EncodedVector, ItemContent, packed_vector
from schemas.runs import Float32
from schemas.settings import GatewaySettings, Settings
from serving.content_shelf import AT_ONCE, ContentShelf
from serving.gateway import create_app
from streams.content.finding import ContentFinder
from tests.fake_worker import FakeWorker, fake_worker
from tests.running_app import running_app

NOBODY = "127.0.0.1:1"


def content(item_id: str, version: str = "1", **vectors: Float32) -> ItemContent:
    return ItemContent(
        item_id=item_id, content_hash="0" * 32, encoders="0" * 32, language="und", labels=[], missing=[],
        source=CatalogueSource(partition=0, offset=0), encoded_at_ms=0,
        vectors=[
            EncodedVector(modality=modality, model="m", version=version, values=packed_vector(vector))  # type: ignore[arg-type]
            for modality, vector in vectors.items()
        ],
    )  # fmt: skip


def vectors(n: int, dims: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)


def test_the_nearest_are_those_of_a_plain_computation() -> None:
    n = AT_ONCE + 50
    x = vectors(n, 8)
    shelf = ContentShelf()
    for i in range(n):
        shelf.put(content(f"v{i}", text=x[i] * (1 + i % 5)))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    found = shelf.search(unit[7], "m", "1", 20)
    expected = np.argsort(-(unit @ unit[7]))[:20]
    assert [item for item, _ in found] == [f"v{i}" for i in expected]
    assert found[0][1] == pytest.approx(1.0, abs=1e-3)
    centred = unit - unit.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    near = shelf.similar("v7", 10)
    assert near is not None
    assert [item for item, _ in near] == [f"v{i}" for i in np.argsort(-(centred @ centred[7]))[1:11]]


def test_versions_never_meet_and_modalities_are_averaged() -> None:
    shelf = ContentShelf()
    x, y = vectors(4, 6), vectors(4, 5, 1)
    shelf.put(content("both", text=x[0], image=y[0]))
    shelf.put(content("twin", text=x[0], image=y[1]))
    shelf.put(content("other", text=x[1], image=y[2]))
    shelf.put(content("later", version="2", text=x[0]))
    shelf.put(content("sound", audio=x[0]))
    found = dict(shelf.similar("both", 9) or [])
    assert set(found) == {"twin", "other"}
    assert shelf.similar("later", 9) == []
    assert shelf.similar("nobody", 9) is None
    assert [item for item, _ in shelf.search(x[0], "m", "2", 9)] == ["later"]
    assert shelf.search(x[0], "m", "3", 9) == []
    shelf.put(content("twin", text=x[2]))
    assert len(shelf) == 5
    assert dict(shelf.search(x[0] / np.linalg.norm(x[0]), "m", "1", 9))["twin"] < 0.999
    shelf.drop("twin")
    shelf.drop("twin")
    assert "twin" not in dict(shelf.search(x[0], "m", "1", 9))
    shelf.put(content("empty", text=np.zeros(6, np.float32)))
    assert shelf.similar("empty", 9) is None
    assert len(shelf) == 4


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[str, FakeWorker]]:
    with fake_worker() as worker:
        settings = Settings(gateway=GatewaySettings(worker_url=worker.url, search=True))
        finder = ContentFinder(settings)
        titles = {"猫": "小猫咪", "饭": "How to cook rice", "车": "高铁列车"}
        for item_id, title in titles.items():
            (vector,) = finder._encoder.encode([title])
            assert vector is not None
            name, version = finder._encoder.name, finder._encoder.version
            one = EncodedVector(modality="text", model=name, version=version, values=packed_vector(vector))
            known = content(item_id)
            finder.shelf.put(
                ItemContent(
                    **{f: getattr(known, f) for f in known.__struct_fields__ if f != "vectors"}, vectors=[one]
                )
            )
        app = create_app(
            settings, consumer={"bootstrap_servers": NOBODY}, producer={"bootstrap.servers": NOBODY},
            finder=finder,
        )  # fmt: skip
        finder._config["bootstrap.servers"] = NOBODY
        with running_app(app) as url:
            yield url, worker


def test_search_and_neighbours_over_http(gateway: tuple[str, FakeWorker]) -> None:
    url, worker = gateway
    with httpx.Client(base_url=url, timeout=20) as client:
        found = client.get("/v1/search", params={"q": "kitten", "limit": 2}).json()
        assert found["query"] == "kitten"
        assert found["items"][0]["item_id"] == "猫"
        assert len(found["items"]) == 2
        assert client.get("/v1/search", params={"q": "火车"}).json()["items"][0]["item_id"] == "车"
        assert client.get("/v1/search", params={"q": ""}).status_code == 422
        assert client.get("/v1/search", params={"q": "<b></b>"}).json()["items"] == []
        near = client.get("/v1/items/猫/similar").json()
        assert {one["item_id"] for one in near["items"]} == {"饭", "车"}
        worker.similar["猫"] = [("from events", 0.5)]
        assert client.get("/v1/items/猫/similar").json()["items"][0]["item_id"] == "from events"
        assert client.get("/v1/items/nobody/similar").status_code == 404
