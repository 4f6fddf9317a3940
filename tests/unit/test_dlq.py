"""Which letters are chosen, how they are counted, and what the contract says of them today."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from schemas.deadletters import HEADER_RESENT, Rejected, headers_of
from streams.dlq import DeadLetters, Identity, Letter, Selection, grouped, identity_of, letter_of
from streams.dlq_resend import ResendReport, chosen, verdict
from tests.broken_events import valid_fields

TOPIC = "reelflow.behaviour.v1"
HOUR_MS = 3_600_000
GOOD = msgspec.json.encode(valid_fields(7))


def record(
    offset: int = 5, value: bytes | None = GOOD, *, reason: str = "late", at_ms: int = 0, resent: bool = False
) -> Any:
    rejected = Rejected(index=0, reason=cast("Any", reason), field="ts_ms", message="m")
    headers = headers_of(rejected, topic=TOPIC, partition=3, offset=offset, stage="fold", n_bytes=9)
    if resent:
        headers.append((HEADER_RESENT, b"123"))
    return SimpleNamespace(
        topic=f"{TOPIC}.dlq", key=b"u7", value=value, headers=headers, timestamp=at_ms, offset=0
    )


def letter(*arguments: Any, **options: Any) -> Letter:
    found = letter_of(record(*arguments, **options), "behaviour")
    assert found is not None
    return found


class Log:
    """Letters in memory, read as `DeadLetters` is."""

    def __init__(self, *letters: Letter) -> None:
        self._letters = letters

    def letters(self) -> Iterator[Letter]:
        yield from self._letters

    def resent(self) -> set[Identity]:
        return DeadLetters.resent(cast("DeadLetters", self))


def choose(
    *letters: Letter, selection: Selection | None = None, **options: Any
) -> tuple[list[int], ResendReport]:
    report = ResendReport(by_reason={}, dry_run=False)
    found = chosen(cast("Any", Log(*letters)), selection or Selection(), report, **options)
    return [one.identity.offset for one in found], report


def test_a_letter_is_what_its_headers_say() -> None:
    found = letter(5, at_ms=17)
    assert found.identity == Identity("behaviour", 3, 5) == identity_of("behaviour/3/5")
    assert (found.reason, found.written_ms, found.key, found.value, found.resent_ms) == (
        "late", 17, b"u7", GOOD, None,
    )  # fmt: skip
    assert letter(5, None, resent=True).resent_ms == 123


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reelflow_topic", b"another.v1"),
        ("reelflow_reason", b"unheard_of"),
        ("reelflow_partition", b"x"),
        ("reelflow_offset", b""),
    ],
)
def test_what_is_no_letter_of_ours_is_none(name: str, value: bytes) -> None:
    foreign = record()
    foreign.headers = [(key, value if key == name else old) for key, old in foreign.headers]
    assert letter_of(foreign, "behaviour") is None


@pytest.mark.parametrize("text", ["behaviour/3", "behaviour/3/x", "recommendations/3/5", "behaviour/3/5/6"])
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="behaviour/3/18735"):
        identity_of(text)


def test_counts_are_of_distinct_identities() -> None:
    letters = [
        letter(1, at_ms=HOUR_MS),
        letter(2, at_ms=HOUR_MS + 5),
        letter(1, at_ms=2 * HOUR_MS),
        letter(3, None, at_ms=2 * HOUR_MS, reason="message_too_large"),
        letter(2, None, at_ms=3 * HOUR_MS, resent=True),
        letter(9, None, at_ms=3 * HOUR_MS, resent=True),  # its letter is gone
    ]
    late, large = grouped(letters, Selection())
    assert (late.reason, late.letters, late.records, late.resent, late.without_value) == ("late", 2, 3, 1, 0)
    assert (late.first_ms, late.last_ms) == (HOUR_MS, 2 * HOUR_MS)
    assert (large.reason, large.letters, large.resent, large.without_value) == ("message_too_large", 1, 0, 1)
    hours = grouped(letters, Selection(reasons=("late",)), hourly=True)
    assert [(group.hour_ms, group.letters) for group in hours] == [(HOUR_MS, 2)]


@pytest.mark.parametrize(
    ("selection", "offsets"),
    [
        (Selection(), [1, 2, 3]),
        (Selection(reasons=("future",)), [2]),
        (Selection(partition=3, offset=3), [3]),
        (Selection(partition=4), []),
        (Selection(since_ms=20), [2, 3]),
        (Selection(since_ms=20, until_ms=30), [2]),
    ],
)
def test_selection(selection: Selection, offsets: list[int]) -> None:
    letters = [letter(1, at_ms=10), letter(2, at_ms=20, reason="future"), letter(3, at_ms=30)]
    assert choose(*letters, selection=selection)[0] == offsets


def test_sent_before_broken_and_empty_letters_are_left_out_and_counted() -> None:
    letters = [
        letter(1),
        letter(1),
        letter(2),
        letter(3, b"{"),
        letter(4, None),
        letter(2, None, resent=True),
        letter(5),
    ]
    offsets, report = choose(*letters)
    assert offsets == [1, 5]
    assert (report.selected, report.without_value, report.resent_before, report.broken) == (5, 1, 1, 1)
    assert report.by_reason == {"late": 2}
    assert choose(*letters, again=True)[0] == [1, 2, 5]
    assert choose(*letters, broken=True)[0] == [1, 3, 5]
    assert choose(*letters, limit=1)[0] == [1]


def test_verdict_is_that_of_the_contract() -> None:
    assert verdict(letter()) is None
    error = verdict(letter(1, b"{"))
    assert error is not None
    assert error.reason == "not_json"
    other_key = msgspec.structs.replace(letter(), key=b"somebody")
    error = verdict(other_key)
    assert error is not None
    assert error.reason == "key_mismatch"
