"""The live page in a real browser, before the real worker on the real broker."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from playwright.sync_api import Browser, ConsoleMessage, expect, sync_playwright

from schemas.codec import encode_event, encode_item
from schemas.records import Event, Item
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from tests.processes import RunningWorker, running_gateway, running_worker

PARTITIONS = 4
N_USERS = 24
N_ITEMS = 40
EVENTS_EACH = 25
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REQUIRED = os.environ.get("REQUIRE_BROWSER") == "1"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.integration,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(
        CHROMIUM is None and not REQUIRED,
        reason="chromium is not installed (Debian: apt-get install chromium); the page is not tested",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "REQUIRE_BROWSER=1, but there is no chromium"
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def worker(broker: LocalBroker, topics: str, tmp_path: Path) -> Iterator[RunningWorker]:
    with running_worker(
        broker.bootstrap, topics, PARTITIONS, tmp_path, REELFLOW_RANKER_EVALUATE_BUDGET_US="1000000"
    ) as running:
        yield running


def replay(kafka: KafkaSettings) -> int:
    """A few hundred watches: every user walks through the items in order, each from another start."""
    names = topic_names(kafka.prefix)
    producer = Producer(confluent_config(kafka) | {"acks": "all", "enable.idempotence": True})
    now_ms = time.time_ns() // 1_000_000
    for n in range(N_ITEMS):
        item = Item(item_id=f"v{n}", title=f"Film <b>{n}</b>", tags=[f"tag{n % 5}"], surface="short_video")
        producer.produce(names.catalogue, encode_item(item), item.item_id.encode())
    n_events = 0
    for step in range(EVENTS_EACH):
        for user in range(N_USERS):
            event = Event(
                event_id=f"e-{user}-{step}",
                user_id=f"u{user}",
                item_id=f"v{(5 * user + step) % N_ITEMS}",
                type="watch",
                ts_ms=now_ms - 1_000 * (EVENTS_EACH - step),
                watch_ms=9_000,
                duration_ms=10_000,
                surface="short_video",
            )
            producer.produce(names.behaviour, encode_event(event), event.user_id.encode())
            n_events += 1
    assert producer.flush(30) == 0
    return n_events


def share(text: str) -> float:
    return float(text.removesuffix(" %"))


def test_a_like_on_the_page_is_in_the_next_list_within_a_second(
    worker: RunningWorker, broker: LocalBroker, topics: str, tmp_path: Path, browser: Browser
) -> None:
    kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix=topics, partitions=PARTITIONS)
    n_events = replay(kafka)
    worker.wait(lambda stats: stats["events_learned"] >= n_events and stats["users_with_snapshot"] >= N_USERS)
    with running_gateway(worker, tmp_path) as url:
        page = browser.new_page(viewport={"width": 1280, "height": 1400}, color_scheme="dark")
        problems: list[str] = []
        addresses: list[str] = []

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                problems.append(message.text)

        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(f"{url}/#user=u3")

        items = page.get_by_test_id("item")
        expect(items.first).to_be_visible(timeout=60_000)
        expect(page.get_by_test_id("status")).to_have_attribute("data-state", "ready", timeout=60_000)
        expect(page.get_by_test_id("tile-events_learned")).to_have_text(f"{n_events}")
        expect(page.get_by_test_id("tile-users_with_snapshot")).to_have_text(f"{N_USERS}")
        expect(page.get_by_test_id("tile-dead_letters")).to_have_text("0")
        expect(page.get_by_test_id("last-event-id")).to_have_text(f"e-3-{EVENTS_EACH - 1}")
        expect(page.get_by_test_id("events").get_by_role("listitem").first).to_contain_text(
            "watched Film <b>"
        )
        expect(page.get_by_test_id("reason").first).not_to_be_empty()

        by_metric: dict[tuple[str, str], str] = {}
        for metric, title in (
            ("mrr_20", "MRR@20"),
            ("hit_rate_10", "Hit rate@10"),
            ("recall_20", "Recall@20"),
        ):
            page.get_by_test_id("metric").select_option(metric)
            for contender in ("reelflow", "popularity", "markov"):
                figure = page.get_by_test_id(f"quality-{contender}")
                expect(figure).to_have_attribute("data-metric", metric)
                expect(figure).to_have_text(re.compile(r"^\d+\.\d %$"))
                by_metric[metric, contender] = figure.inner_text()
            chart = page.get_by_test_id("chart")
            expect(chart.get_by_role("img")).to_have_accessible_name(
                re.compile(f"^{title} over events scored")
            )
            for contender in ("reelflow", "popularity", "markov"):
                expect(chart.locator(f"path.line.{contender}")).to_have_count(1)
        # Everyone walks the ring, so the chain knows what comes next, and a hit has at most its place.
        assert share(by_metric["recall_20", "markov"]) > share(by_metric["recall_20", "popularity"])
        assert share(by_metric["mrr_20", "markov"]) <= share(by_metric["recall_20", "markov"])
        expect(page.get_by_test_id("chart-note")).to_contain_text("events scored")
        expect(page.get_by_test_id("chart-note")).to_contain_text("of the catalogue")

        with page.expect_request("**/v1/events") as posted:
            items.nth(2).click()
        like: Any = posted.value.post_data_json
        assert (like["type"], like["user_id"]) == ("like", "u3")
        latency = page.get_by_test_id("like-latency")
        expect(latency).to_be_visible(timeout=60_000)
        expect(page.get_by_test_id("last-event-id")).to_have_text(like["event_id"])
        expect(latency).to_have_attribute("data-event-id", like["event_id"])
        assert int(latency.get_attribute("data-ms") or "-1") < 1_000
        expect(page.get_by_test_id("events").get_by_role("listitem").first).to_contain_text("liked")
        expect(page.get_by_test_id("change")).not_to_contain_text("Choose an item")

        page.get_by_test_id("user-input").fill("a viewer nobody has seen")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_test_id("badge")).to_have_text("No list of their own yet", timeout=60_000)
        expect(items.first).to_contain_text("popular now")

        # 404 for the unknown viewer's events is shown by the browser as an error of the console.
        assert [text for text in problems if "404" not in text] == []
        assert [address for address in addresses if not address.startswith(url)] == []
        page.close()
