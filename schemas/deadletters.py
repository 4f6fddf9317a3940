"""Dead letters: why an input could not be used, and the headers that say so.

A dead letter is the original key and value, byte for byte, on ``<topic>.dlq``. Its identity is
(topic, partition, offset) of the original, so a letter written twice counts once.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType

from .media import MediaReason

Reason = Literal[
    "null_value",  # an event without a value
    "message_too_large",  # longer than the contract allows
    "not_utf8",
    "not_json",
    "not_an_object",
    "missing_field",
    "unsupported_version",  # schema_version of another contract
    "unknown_type",  # event type that the contract does not name
    "bad_value",  # wrong type, out of range, unknown surface ...
    "key_mismatch",  # record key is not the user_id (item_id)
    "wrong_partition",  # not where murmur2 puts the key
    "late",  # behind the partition's watermark by more than the allowed lateness
    "future",  # ahead of the broker's clock by more than the allowed skew
    "capacity",  # the configured maximum of users or items is reached
    MediaReason,  # a medium of the item is refused; stage `content`
]
REASONS: Final[tuple[str, ...]] = get_args(Reason)

HEADER_REASON: Final = "reelflow_reason"
HEADER_FIELD: Final = "reelflow_field"
HEADER_MESSAGE: Final = "reelflow_message"
HEADER_TOPIC: Final = "reelflow_topic"
HEADER_PARTITION: Final = "reelflow_partition"
HEADER_OFFSET: Final = "reelflow_offset"
HEADER_STAGE: Final = "reelflow_stage"
HEADER_EXCEPTION: Final = "reelflow_exception"
HEADER_BYTES: Final = "reelflow_original_bytes"
HEADER_SHA256: Final = "reelflow_original_sha256"
HEADER_RESENT: Final = "reelflow_resent_ms"
HEADER_RESENT_FROM: Final = "reelflow_resent_from"
"""Of a message sent again, not of a letter: topic, partition and offset of the original, by slashes."""

Stage = Literal["decode", "fold", "content"]
"""Of stage `content` only what `reelflow_field` names was not used: the item itself was."""


_Number = Annotated[str, Meta(pattern="^(0|[1-9][0-9]*)$")]


class DeadLetterHeaders(Struct, frozen=True, kw_only=True):
    """Headers of a dead letter; each value is UTF-8 text, empty where it does not apply."""

    reelflow_reason: Reason
    reelflow_field: Annotated[str, Meta(description="top-level field that breaks the contract")]
    reelflow_message: Annotated[str, Meta(description="what is wrong, for people; begins with the path")]
    reelflow_topic: Annotated[str, Meta(description="topic of the original")]
    reelflow_partition: Annotated[_Number, Meta(description="partition of the original")]
    reelflow_offset: Annotated[_Number, Meta(description="offset of the original")]
    reelflow_stage: Stage
    reelflow_exception: str
    reelflow_original_bytes: Annotated[_Number, Meta(description="length of the original value, 0 for none")]
    reelflow_original_sha256: Annotated[
        str, Meta(description="of a value too large for a dead letter, which then has none; else empty")
    ]
    reelflow_resent_ms: (
        Annotated[
            str,
            Meta(
                pattern="^[1-9][0-9]*$",
                description="only on a receipt, which has no value: when the letter of this identity was sent"
                " again, milliseconds since 1970",
            ),
        ]
        | UnsetType
    ) = UNSET


class Rejected(Struct, frozen=True, kw_only=True):
    """One message that could not be used: `index` is its place in the run."""

    index: int
    reason: Reason
    field: str | None
    message: str
    exception: str = ""


def headers_of(
    rejected: Rejected,
    *,
    topic: str,
    partition: int,
    offset: int,
    stage: Stage,
    n_bytes: int,
    sha256: str = "",
) -> list[tuple[str, bytes]]:
    """Kafka headers of a dead letter, in a fixed order; values are UTF-8 text."""
    pairs = [
        (HEADER_REASON, rejected.reason),
        (HEADER_FIELD, rejected.field or ""),
        (HEADER_MESSAGE, rejected.message),
        (HEADER_TOPIC, topic),
        (HEADER_PARTITION, str(partition)),
        (HEADER_OFFSET, str(offset)),
        (HEADER_STAGE, stage),
        (HEADER_EXCEPTION, rejected.exception),
        (HEADER_BYTES, str(n_bytes)),
        (HEADER_SHA256, sha256),
    ]
    return [(name, text.encode("utf-8", "replace")) for name, text in pairs]
