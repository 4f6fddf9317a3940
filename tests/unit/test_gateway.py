"""The gateway's endpoints with a real worker port beside them and no broker to reach."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from schemas.records import Knows, ModelRef, Reason, RecommendedItem, Snapshot
from schemas.settings import GatewaySettings, Settings
from schemas.topics import MAX_MESSAGE_BYTES
from serving.events_in import parse_events
from serving.gateway import PAGE, create_app
from serving.gateway_models import Recommendations
from serving.gateway_state import Gateway
from tests.fake_worker import FakeWorker, fake_worker
from tests.running_app import running_app

NOBODY = "127.0.0.1:1"
ACKNOWLEDGE_S = 0.5
MAX_BODY = 10_000
LIKE = {"event_id": "e-1", "user_id": "u1", "item_id": "v1", "type": "like", "ts_ms": 1_650_900_000_123}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[FastAPI, str, FakeWorker]]:
    with fake_worker() as worker:
        app = create_app(
            Settings(gateway=GatewaySettings(worker_url=worker.url, max_body_bytes=MAX_BODY)),
            consumer={"bootstrap_servers": NOBODY},
            producer={"bootstrap.servers": NOBODY},
            acknowledge_s=ACKNOWLEDGE_S,
        )
        with running_app(app) as url:
            yield app, url, worker


@pytest.fixture
def worker(running: tuple[FastAPI, str, FakeWorker]) -> FakeWorker:
    """The worker as new."""
    running[2].reset()
    return running[2]


@pytest.fixture
def gateway(running: tuple[FastAPI, str, FakeWorker], worker: FakeWorker) -> Gateway:
    """The gateway as new, as far as an answer shows it."""
    gateway: Gateway = running[0].state.gateway
    gateway.reader._view._kept.clear()
    gateway.worker._stats = None
    return gateway


@pytest.fixture
def client(running: tuple[FastAPI, str, FakeWorker], gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running[1], timeout=20) as client:
        yield client


def publish(gateway: Gateway, user_id: str, *, age_ms: int = 300, ttl_ms: int = 3_600_000) -> Snapshot:
    """Put a snapshot into the reader's view, as if it had come from the topic."""
    snapshot = Snapshot(
        snapshot_id=f"{user_id}.0.7",
        user_id=user_id,
        generated_at_ms=time.time_ns() // 1_000_000 - age_ms,
        ttl_ms=ttl_ms,
        knows=Knows(partition=0, offset=7, event_id="e-7f", ts_ms=1_650_900_000_123),
        model=ModelRef(name="main", epoch=0, sequence=1),
        fallback="none",
        items=[
            RecommendedItem(
                item_id=f"v{n}",
                score=0.9 - n / 100,
                source="transitions",
                reasons=[Reason(kind="because_you_watched", item_id="v1001")],
            )
            for n in range(30)
        ],
    )
    gateway.reader._view.apply(user_id.encode(), msgspec.json.encode(snapshot))
    return snapshot


def test_a_fresh_list_is_the_snapshot_with_its_age(client: httpx.Client, gateway: Gateway) -> None:
    snapshot = publish(gateway, "u1")
    answer = client.get("/v1/users/u1/recommendations", params={"limit": 500})
    assert answer.status_code == 200
    body = answer.json()
    assert {name: body[name] for name in msgspec.to_builtins(snapshot)} == msgspec.to_builtins(snapshot)
    assert body["freshness"] == "fresh"
    assert 300 <= body["age_ms"] < 60_000
    assert answer.headers["cache-control"] == "no-store"


def test_the_limit_shortens_the_list(client: httpx.Client, gateway: Gateway) -> None:
    publish(gateway, "u1")
    items = client.get("/v1/users/u1/recommendations", params={"limit": 3}).json()["items"]
    assert [item["item_id"] for item in items] == ["v0", "v1", "v2"]
    assert len(client.get("/v1/users/u1/recommendations").json()["items"]) == 20


def test_a_list_older_than_its_ttl_is_served_and_says_so(client: httpx.Client, gateway: Gateway) -> None:
    publish(gateway, "u1", age_ms=2_000, ttl_ms=1_000)
    body = client.get("/v1/users/u1/recommendations").json()
    assert body["freshness"] == "stale"
    assert body["age_ms"] >= 2_000


def test_an_unknown_user_gets_what_is_popular_and_nothing_invented(
    client: httpx.Client, worker: FakeWorker
) -> None:
    worker.popular = [("v5", 0.25), ("v6", 0.125)]
    answer = client.get("/v1/users/nobody/recommendations", params={"limit": 1})
    assert answer.status_code == 200
    assert answer.json() == {
        "schema_version": 1,
        "snapshot_id": None,
        "user_id": "nobody",
        "generated_at_ms": None,
        "ttl_ms": None,
        "knows": None,
        "model": None,
        "fallback": "cold_user",
        "items": [
            {
                "item_id": "v5",
                "score": 0.25,
                "source": "popularity",
                "propensity": 1.0,
                "reasons": [{"kind": "popular"}],
            }
        ],
        "freshness": "none",
        "age_ms": None,
    }


def test_a_known_list_needs_no_worker_and_an_unknown_one_says_what_is_missing(
    client: httpx.Client, gateway: Gateway, worker: FakeWorker
) -> None:
    publish(gateway, "u1")
    worker.status = 503
    assert client.get("/v1/users/u1/recommendations").status_code == 200
    answer = client.get("/v1/users/nobody/recommendations")
    assert answer.status_code == 503
    assert "no list is known for this user" in answer.json()["error"]
    assert "as the test wants it" in answer.json()["error"]
    assert answer.headers["retry-after"] == "1"


def test_nothing_popular_yet_is_no_empty_list(client: httpx.Client) -> None:
    answer = client.get("/v1/users/nobody/recommendations")
    assert answer.status_code == 503
    assert "nothing is popular yet" in answer.json()["error"]


def test_a_silent_worker_is_given_up_in_time(client: httpx.Client, worker: FakeWorker) -> None:
    worker.delay_s = 30.0
    begun = time.monotonic()
    answer = client.get("/v1/items/v1/similar")
    assert answer.status_code == 503
    assert "did not answer in 2 s" in answer.json()["error"]
    assert time.monotonic() - begun < 6


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"items": [{"item_id": 7}]}'])
def test_a_worker_that_makes_no_sense_is_a_bad_gateway(
    client: httpx.Client, worker: FakeWorker, body: bytes
) -> None:
    worker.body = body
    answer = client.get("/v1/users/nobody/recommendations")
    assert answer.status_code == 502
    assert "is not as expected" in answer.json()["error"]


def test_a_worker_that_fails_is_a_bad_gateway(client: httpx.Client, worker: FakeWorker) -> None:
    worker.status = 500
    answer = client.get("/v1/items/v1/similar")
    assert answer.status_code == 502
    assert "answered 500: as the test wants it" in answer.json()["error"]


def test_the_worker_is_asked_about_ids_as_they_are(client: httpx.Client, worker: FakeWorker) -> None:
    worker.similar["a/b c?d"] = [("v2", 0.5), ("v3", 0.25)]
    worker.users["ü/1"] = [{"item_id": "v1", "type": "like", "ts_ms": 5, "title": None, "tags": ["cats"]}]
    found = client.get("/v1/items/a%2Fb%20c%3Fd/similar", params={"limit": 1})
    assert found.json() == {"item_id": "a/b c?d", "items": [{"item_id": "v2", "score": 0.5}]}
    events = client.get("/v1/users/%C3%BC%2F1/events").json()
    assert events["recent"] == [
        {"item_id": "v1", "type": "like", "ts_ms": 5, "title": None, "tags": ["cats"]}
    ]


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/items/nope/similar", "item_id"), ("/v1/users/nope/events", "user_id")]
)
def test_what_the_worker_does_not_know_is_not_found(client: httpx.Client, path: str, field: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["field"] == field


def test_catalogue_facts_of_several_items(client: httpx.Client, worker: FakeWorker) -> None:
    worker.items = {
        item_id: {"title": "One", "tags": ["a"], "category": None, "duration_ms": 9}
        for item_id in ("v1", "with,comma", "a&id=b +ü", "not asked for")
    }
    answer = client.get("/v1/items", params={"id": ["v1", "v2", "with,comma", "a&id=b +ü"]})
    del worker.items["not asked for"]
    assert answer.json() == {"items": worker.items}
    assert client.get("/v1/items", params={"id": ["x"] * 101}).status_code == 422


def test_items_are_scored_by_the_worker_as_asked(client: httpx.Client, worker: FakeWorker) -> None:
    worker.probabilities = {"v1": 0.25}
    asked = {"items": ["v1", "a/b ü"], "surface": "short_video"}
    body = client.post("/v1/users/%C3%BC%2F1/score", json=asked).json()
    assert worker.posted == [asked]
    assert body["user_id"] == "ü/1"
    assert [(row["item_id"], row["p_like"], row["known"]) for row in body["items"]] == [
        ("v1", 0.25, True),
        ("a/b ü", 0.125, False),
    ]


def test_a_worker_that_learns_no_probabilities_is_told_apart(client: httpx.Client) -> None:
    answer = client.post("/v1/users/u1/score", json={"items": ["v1"]})
    assert answer.status_code == 404
    assert "learner.probabilities" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"[]", 422, None),
        (b"{}", 422, None),
        (b'{"items":[]}', 422, "items"),
        (b'{"items":["v1",""]}', 422, "items[1]"),
        (msgspec.json.encode({"items": ["v1"] * 501}), 422, "items"),
        (b'{"items":["v1"],"surface":"radio"}', 422, "surface"),
        (b'{"items":["v1"],"limit":3}', 422, None),
        (b" " * (MAX_BODY + 1), 413, None),
    ],
)
def test_a_bad_question_is_refused_by_field(
    client: httpx.Client, worker: FakeWorker, body: bytes, status: int, field: str | None
) -> None:
    answer = client.post("/v1/users/u1/score", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json().get("field") == field
    assert worker.posted == []
    assert client.post("/v1/users/u1/score", content=body).status_code == 415
    assert client.post(f"/v1/users/{'u' * 129}/score", json={"items": ["v1"]}).json()["field"] == "user_id"


def test_statistics_pass_through_and_many_askers_are_one_question(
    client: httpx.Client, worker: FakeWorker
) -> None:
    worker.stats["events_learned"] = 42
    answers = [client.get("/v1/stats").json() for _ in range(5)]
    assert answers[0]["events_learned"] == 42
    assert "a_field_of_a_later_version" not in answers[0]
    assert worker.asked.count("/stats") < 5


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"/v1/users/{'u' * 129}/recommendations", "user_id"),
        ("/v1/users//recommendations", "user_id"),
        (f"/v1/users/{'u' * 129}/snapshots", "user_id"),
        (f"/v1/users/{'u' * 129}/events", "user_id"),
        (f"/v1/items/{'u' * 129}/similar", "item_id"),
        ("/v1/users/u1/recommendations?limit=0", "limit"),
        ("/v1/users/u1/recommendations?limit=501", "limit"),
        ("/v1/users/u1/recommendations?limit=x", "limit"),
        ("/v1/items", "id"),
    ],
)
def test_parameters_out_of_bounds_are_named(client: httpx.Client, path: str, field: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert field in answer.json()["error"]


def test_an_id_of_128_characters_is_allowed(client: httpx.Client, gateway: Gateway) -> None:
    user = "ü" * 128
    publish(gateway, user)
    assert client.get(f"/v1/users/{user}/recommendations").json()["user_id"] == user


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"type": "applaud"}, "type", "unknown_type"),
        ({"ts_ms": -1}, "ts_ms", "bad_value"),
        ({"watch_ms": "long"}, "watch_ms", "bad_value"),
        ({"user_id": ""}, "user_id", "bad_value"),
        ({"item_id": "v" * 129}, "item_id", "bad_value"),
        ({"event_id": None}, "event_id", "bad_value"),
        ({"schema_version": 2}, "schema_version", "unsupported_version"),
    ],
)
def test_a_bad_event_is_refused_by_field(
    client: httpx.Client, change: dict[str, Any], field: str, reason: str
) -> None:
    answer = client.post("/v1/events", json=LIKE | change)
    assert answer.status_code == 422
    assert (answer.json()["field"], answer.json()["reason"]) == (field, reason)


def test_an_absent_event_id_is_not_made_up(client: httpx.Client) -> None:
    event = {name: value for name, value in LIKE.items() if name != "event_id"}
    answer = client.post("/v1/events", json=event)
    assert answer.status_code == 422
    assert answer.json()["reason"] == "missing_field"
    assert "event_id" in answer.json()["error"]


def test_one_bad_event_stops_the_list_and_each_has_its_result(client: httpx.Client) -> None:
    answer = client.post("/v1/events", json=[LIKE, LIKE | {"watch_ms": -5}, LIKE, 7])
    assert answer.status_code == 422
    body = answer.json()
    assert body["error"].startswith("event 1: ")
    assert "2 of 4 refused, none stored" in body["error"]
    assert body["field"] == "watch_ms"
    assert [result["status"] for result in body["results"]] == ["not_sent", "refused", "not_sent", "refused"]
    assert body["results"][3]["reason"] == "not_an_object"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"7", 400),
        (b"\xff", 400),
        (b'{"event_id":"\xff"}', 400),
        (b"[{]", 400),
        (b"[" * 9_000, 400),
        (b"[]", 422),
        (b"[" + b",".join([b"{}"] * 501) + b"]", 422),
    ],
)
def test_a_body_that_is_no_event_is_refused(client: httpx.Client, body: bytes, status: int) -> None:
    answer = client.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_large_body_is_refused_declared_or_not(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    body = b" " * (MAX_BODY + 1)
    assert client.post("/v1/events", content=body, headers=headers).status_code == 413
    chunks = (body[at : at + 1_000] for at in range(0, len(body), 1_000))
    answer = client.post("/v1/events", content=chunks, headers=headers)
    assert answer.status_code == 413
    assert str(MAX_BODY) in answer.json()["error"]


def test_an_event_is_as_large_as_the_contract_allows_and_no_larger() -> None:
    def event(size: int) -> bytes:
        empty = msgspec.json.encode(LIKE | {"own": ""})
        return msgspec.json.encode(LIKE | {"own": "x" * (size - len(empty))})

    events, refused = parse_events(event(MAX_MESSAGE_BYTES))
    assert (len(events), refused) == (1, [])
    events, refused = parse_events(b"[" + event(MAX_MESSAGE_BYTES + 1) + b"," + event(500) + b"]")
    assert len(events) == 1
    assert [(bad.index, bad.reason) for bad in refused] == [(0, "message_too_large")]
    assert str(MAX_MESSAGE_BYTES) in refused[0].error


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_only_json_is_taken_so_that_no_foreign_page_can_post(
    client: httpx.Client, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = client.post("/v1/events", content=msgspec.json.encode(LIKE), headers=headers)
    assert answer.status_code == 415


def test_a_broker_that_is_away_is_answered_in_time(client: httpx.Client) -> None:
    begun = time.monotonic()
    answer = client.post("/v1/events", json=[LIKE, LIKE | {"event_id": "e-2"}])
    assert answer.status_code == 503
    assert "the broker stored none of 2 events" in answer.json()["error"]
    assert time.monotonic() - begun < ACKNOWLEDGE_S + 3


def test_health_says_what_is_missing(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "not_ready"
    assert [reason.split(":")[0] for reason in answer.json()["reasons"]] == ["recommendations", "events"]


def test_metrics_count_by_route_and_name_nobody(client: httpx.Client, gateway: Gateway) -> None:
    publish(gateway, "a-certain-user")
    client.get("/v1/users/a-certain-user/recommendations")
    client.post("/v1/events", json=LIKE | {"type": "applaud"})
    client.get("/no/such/path")
    for n in range(3):
        assert client.request(f"BREW{n}", "/no/such/path").status_code in {404, 405}
    text = client.get("/metrics").text
    route = 'route="/v1/users/{user_id:path}/recommendations"'
    for series in (
        f'reelflow_gateway_requests_total{{method="GET",{route},status="200"}}',
        'reelflow_gateway_requests_total{method="GET",route="other",status="404"}',
        'reelflow_gateway_requests_total{method="other",route="other"',
        'reelflow_gateway_events_total{outcome="refused"}',
        'reelflow_gateway_lists_total{kind="fresh"}',
        "reelflow_gateway_reader_users",
    ):
        value = next(line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(series))
        assert float(value) >= 1, series
    assert "certain" not in text
    assert "BREW" not in text


def test_errors_have_one_shape(client: httpx.Client) -> None:
    for answer in (client.get("/nope"), client.delete("/v1/events"), client.get("/docs")):
        assert answer.status_code in {404, 405}
        assert set(answer.json()) == {"error"}


def test_openapi_describes_what_is_answered(
    client: httpx.Client, gateway: Gateway, worker: FakeWorker
) -> None:
    document = client.get("/openapi.json").json()
    worker.popular = [("v5", 0.25)]
    worker.similar["v1"] = [("v2", 0.5)]
    worker.users["u1"] = []
    worker.probabilities = {"v1": 0.5}
    publish(gateway, "u1")
    score = "/v1/users/{user_id}/score"
    asked = {"items": ["v1", "v2"], "surface": "tv"}
    answers = {
        score: client.post("/v1/users/u1/score", json=asked),
        "/v1/users/{user_id}/recommendations": client.get("/v1/users/u1/recommendations"),
        "/v1/users/{user_id}/events": client.get("/v1/users/u1/events"),
        "/v1/items/{item_id}/similar": client.get("/v1/items/v1/similar"),
        "/v1/items": client.get("/v1/items", params={"id": "v1"}),
        "/v1/search": client.get("/v1/search", params={"q": "cat"}),
        "/v1/stats": client.get("/v1/stats"),
        "/health/live": client.get("/health/live"),
        "/health/ready": client.get("/health/ready"),
        "/version": client.get("/version"),
    }
    cold = client.get("/v1/users/nobody/recommendations")
    for path, answer in [*answers.items(), ("/v1/users/{user_id}/recommendations", cold)]:
        method = "post" if path == score else "get"
        described = document["paths"][path][method]["responses"][str(answer.status_code)]
        reference = described["content"]["application/json"]["schema"]
        schema = {**reference, "components": document["components"]}
        Draft202012Validator(schema).validate(answer.json())
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, described in operation["responses"].items():
                assert described.get("content"), f"{path} {status} has no model"
    posted = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    Draft202012Validator({**posted, "components": document["components"]}).validate([LIKE])
    posted = document["paths"][score]["post"]["requestBody"]["content"]["application/json"]["schema"]
    Draft202012Validator({**posted, "components": document["components"]}).validate(asked)


def test_a_served_list_has_every_field_of_the_snapshot() -> None:
    assert set(Recommendations.__struct_fields__) >= set(Snapshot.__struct_fields__)


def test_the_page_is_self_contained(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    for path in sorted(PAGE.iterdir()):
        served = client.get(f"/page/{path.name}")
        assert served.content == path.read_bytes()
        assert served.headers["x-content-type-options"] == "nosniff"
        assert_no_address_outside(path)
        if path.suffix == ".html":
            text = path.read_text()
            assert text.count("<script") == text.count('<script type="module" src="/page/')
            assert "<style" not in text
            assert " style=" not in text
            assert "onclick=" not in text
    assert client.get("/page/../gateway.py").status_code == 404
    assert client.get("/page/%2e%2e/gateway.py").status_code == 404


def assert_no_address_outside(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    for sign in ("http://", "https://", "//cdn", "@import", "url(//"):
        assert sign not in text, f"{path.name} names {sign}"
