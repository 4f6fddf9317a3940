"""JSON Schemas (draft 2020-12) of the public values, generated from the structs.

The schema and the decoder agree: what the decoder accepts validates, and what the schema rejects
is rejected. The decoder alone knows that a message is at most 1 MiB of UTF-8, nested at most
128 deep, without lone surrogates, with every one of its duplicate fields valid, under its key.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from .content import ItemContent, ItemTags
from .deadletters import DeadLetterHeaders
from .records import Erasure, Event, Item, Snapshot

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

JsonObject = dict[str, Any]

STRUCTS: Final[dict[str, type[Struct]]] = {
    "event": Event,
    "item": Item,
    "item-content": ItemContent,
    "item-tags": ItemTags,
    "snapshot": Snapshot,
    "erasure": Erasure,
    "dead-letter-headers": DeadLetterHeaders,
}
KINDS: Final = tuple(STRUCTS)

_TITLES: Final = {
    "event": "Behaviour event",
    "item": "Catalogue item",
    "item-content": "Vectors of an item",
    "item-tags": "Tags found in an item",
    "snapshot": "Recommendation snapshot",
    "erasure": "Erasure request or receipt",
    "dead-letter-headers": "Headers of a dead letter",
}

EXAMPLES: Final[dict[str, list[JsonObject]]] = {
    "event": [
        {
            "schema_version": 1,
            "event_id": "e-7f",
            "user_id": "u42",
            "item_id": "v1001",
            "type": "watch",
            "ts_ms": 1650900000123,
            "watch_ms": 12400,
            "duration_ms": 15800,
            "surface": "short_video",
            "device": "phone",
            "session_id": "s-9",
            "snapshot_id": "u42.0.18720",
            "position": 3,
        }
    ],
    "item": [
        {
            "schema_version": 1,
            "item_id": "v1001",
            "surface": "short_video",
            "title": "A kettle that sings",
            "tags": ["kitchen", "sound"],
            "category": "home",
            "creator_id": "c7",
            "language": "zh",
            "duration_ms": 15800,
            "published_ts_ms": 1650800000000,
            "expires_ts_ms": None,
            "media": {"cover": "covers/v1001.jpg", "video": "videos/v1001.mp4", "audio": "audio/v1001.m4a"},
            "vectors": [{"modality": "image", "model": "image-encoder-1", "values": [0.1]}],
        }
    ],
    "item-content": [
        {
            "schema_version": 1,
            "item_id": "v1001",
            "content_hash": "0c5a3bdc2f4f5d1e9a8b7c6d5e4f3a2b",
            "encoders": "9f86d081884c7d659a2feaa0c55ad015",
            "source": {"partition": 3, "offset": 902},
            "encoded_at_ms": 1650900000480,
            "language": "zh",
            "labels": ["kitchen", "sound"],
            "vectors": [
                {
                    "modality": "text",
                    "model": "use-multilingual-3",
                    "version": "0.2.1-p1",
                    "values": "zczMPc3MTL4=",
                }
            ],
            "missing": [
                {"modality": "image", "reason": "truncated", "message": "cover: the file ends too early"},
                {"modality": "audio", "reason": "absent", "message": ""},
                {"modality": "video", "reason": "absent", "message": ""},
            ],
        }
    ],
    "item-tags": [
        {
            "schema_version": 1,
            "item_id": "v1001",
            "content_hash": "0c5a3bdc2f4f5d1e9a8b7c6d5e4f3a2b",
            "encoders": "9f86d081884c7d659a2feaa0c55ad015",
            "source": {"partition": 3, "offset": 902},
            "n_examples": 5120,
            "tags": [
                {
                    "tag": "kitchen",
                    "probability": 0.91,
                    "given": True,
                    "source": "learned",
                    "spoke": {"text": 3.1, "image": 0.0, "audio": 0.0, "video": 0.0, "tag_text": 0.4},
                }
            ],
        }
    ],
    "snapshot": [
        {
            "schema_version": 1,
            "snapshot_id": "u42.0.18734",
            "user_id": "u42",
            "generated_at_ms": 1650900000480,
            "ttl_ms": 3600000,
            "knows": {"partition": 0, "offset": 18734, "event_id": "e-7f", "ts_ms": 1650900000123},
            "model": {"name": "main", "epoch": 3, "sequence": 9120},
            "fallback": "none",
            "items": [
                {
                    "item_id": "v88",
                    "score": 0.83,
                    "source": "transitions",
                    "propensity": 1.0,
                    "reasons": [{"kind": "because_you_watched", "item_id": "v1001", "viewers": 312}],
                }
            ],
        }
    ],
    "erasure": [
        {
            "schema_version": 1,
            "kind": "request",
            "request_id": "r-1",
            "user_id": "u42",
            "ts_ms": 1650900000000,
        }
    ],
    "dead-letter-headers": [
        {
            "reelflow_reason": "bad_value",
            "reelflow_field": "watch_ms",
            "reelflow_message": "$.watch_ms: Expected `int` >= 0",
            "reelflow_topic": "reelflow.behaviour.v1",
            "reelflow_partition": "3",
            "reelflow_offset": "18735",
            "reelflow_stage": "decode",
            "reelflow_exception": "ValidationError: Expected `int` >= 0 - at `$.watch_ms`",
            "reelflow_original_bytes": "216",
            "reelflow_original_sha256": "",
        }
    ],
}


def json_schema(kind: str) -> JsonObject:
    """JSON Schema of one kind of value, complete in itself.

    Raises
    ------
    KeyError
        `kind` is none of `KINDS`.

    >>> json_schema("event")["required"]
    ['event_id', 'user_id', 'item_id', 'type', 'ts_ms']
    """
    struct = STRUCTS[kind]
    definitions = msgspec.json.schema(struct)["$defs"]
    own: JsonObject = definitions.pop(struct.__name__)
    own["title"] = _TITLES[kind]
    head = {"$schema": DIALECT, "$id": f"urn:reelflow:schema:{kind}:v1"}
    nested = {"$defs": definitions} if definitions else {}
    return head | own | {"examples": EXAMPLES[kind]} | nested


def all_schemas() -> dict[str, JsonObject]:
    """Every schema by kind."""
    return {kind: json_schema(kind) for kind in KINDS}


def component_schemas(ref_template: str) -> dict[str, JsonObject]:
    """Schemas of all structs by struct name, references written with `ref_template`."""
    _, components = msgspec.json.schema_components(STRUCTS.values(), ref_template=ref_template)
    for kind, struct in STRUCTS.items():
        components[struct.__name__] |= {"title": _TITLES[kind]}
    return components


def pretty(document: JsonObject) -> str:
    """`document` as the text of its file: two spaces, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
