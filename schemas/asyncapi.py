"""One AsyncAPI 3.0 document for all topics, generated from the structs and the topic specs.

It is enough to write a producer or a reader from: addresses, keys, partitioning, headers,
payload schemas, examples, and what a reader may rely on.
"""

from __future__ import annotations

from typing import Any, Final

from .asyncapi_model import model_channels, model_messages, model_schemas
from .deadletters import HEADER_RESENT_FROM
from .jsonschema import EXAMPLES, STRUCTS, JsonObject, component_schemas
from .topics import DEFAULT_MODEL, DEFAULT_PARTITIONS, DEFAULT_PREFIX, TopicSpec, topic_names, topic_specs

CONTRACT_VERSION: Final = "1.0.0"
KAFKA_BINDING: Final = "0.5.0"
_REFERENCE: Final = "#/components/schemas/{name}"

_DESCRIPTION: Final = """\
reelflow keeps a recommendation list per user fresh while the user watches: behaviour events in,
recommendation snapshots out, over Kafka.

Keys are UTF-8 text. A record goes to partition (murmur2(key) & 0x7fffffff) mod partitions, as
Kafka's Java client and kafka-python do by default; librdkafka needs partitioner=murmur2_random.

Public values are JSON in UTF-8 (no byte order mark), at most 1 MiB, nested at most 128 deep. Unknown
fields are ignored. A message that breaks its contract goes to the dead-letter topic of its
topic, byte for byte, with the reason in its headers. The model topics carry MessagePack, from the
learner to the rankers.

CloudEvents in binary mode are understood: ce_* headers are tolerated and not read, the value is
the same JSON."""

_KIND_DESCRIPTIONS: Final = {
    "event": (
        "One thing a user did. event_id makes it idempotent: a second one with the same id within "
        "the deduplication window changes nothing. Order per user is the order in the partition."
    ),
    "item": "Catalogue metadata and content of an item; the last record of a key is the current one.",
    "item-content": (
        "What encoders made of an item, in one vector a modality, and why others lack. Of one item "
        "source.offset only grows, so a reader drops a record that is older than the one it has. Vectors of "
        "another model or version are never to be compared."
    ),
    "item-tags": (
        "Tags found in an item's content, most probable first. Written before the item-content record of "
        "the same source, which says that the item is done."
    ),
    "snapshot": (
        "A user's current list, best first. The pair (knows.partition, knows.offset) only grows, so a "
        "reader drops a snapshot that is older than the one it has. After ttl_ms the list is stale."
    ),
    "erasure": "A request to forget the user everywhere, or the receipt that it was done.",
}

INPUTS: Final = ("event", "item", "erasure")
"""What others write."""

_CLOUD_EVENT_HEADERS: Final[JsonObject] = {
    "type": "object",
    "description": (
        "Optional CloudEvents attributes in binary mode; tolerated, not read. reelflow_resent_from stands on "
        "messages that `reelflow dlq resend` sent: topic/partition/offset of the original."
    ),
    "properties": {
        name: {"type": "string"}
        for name in (
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_time",
            "ce_specversion",
            "content-type",
            HEADER_RESENT_FROM,
        )
    },
}


def asyncapi_document(
    prefix: str = DEFAULT_PREFIX,
    partitions: int = DEFAULT_PARTITIONS,
    replication: int = 1,
    bootstrap: str = "127.0.0.1:9092",
    model: str = DEFAULT_MODEL,
) -> JsonObject:
    """The document for the topics under `prefix`, with those of one `model`.

    Operations are seen from reelflow: it receives behaviour, catalogue and erasure, and sends
    item content and tags, recommendations, erasure receipts, dead letters and the model.
    """
    names = topic_names(prefix)
    carried = {
        names.behaviour: ("behaviour", ["event"]),
        names.behaviour_dlq: ("behaviourDeadLetters", ["deadLetter"]),
        names.catalogue: ("catalogue", ["item", "itemWithdrawn"]),
        names.catalogue_dlq: ("catalogueDeadLetters", ["deadLetter"]),
        names.item_content: ("itemContent", ["item-content", "itemContentWithdrawn"]),
        names.item_tags: ("itemTags", ["item-tags", "itemTagsWithdrawn"]),
        names.recommendations: ("recommendations", ["snapshot", "userErased"]),
        names.erasure: ("erasure", ["erasure"]),
        names.erasure_dlq: ("erasureDeadLetters", ["deadLetter"]),
    }
    channels: JsonObject = {}
    for spec in topic_specs(prefix, partitions, replication):
        channel, messages = carried[spec.name]
        channels[channel] = _channel(spec, messages, replication)
    for channel, spec, messages in model_channels(prefix, partitions, replication, model):
        channels[channel] = _channel(spec, messages, replication)
    operations: JsonObject = {}
    for channel, action in (
        ("behaviour", "receive"),
        ("catalogue", "receive"),
        ("erasure", "receive"),
        ("recommendations", "send"),
        ("itemContent", "send"),
        ("itemContent", "receive"),
        ("itemTags", "send"),
        ("erasure", "send"),
        ("behaviourDeadLetters", "send"),
        ("catalogueDeadLetters", "send"),
        ("erasureDeadLetters", "send"),
        ("modelItems", "send"),
        ("modelUsers", "send"),
        ("modelDense", "send"),
        ("modelItems", "receive"),
        ("modelUsers", "receive"),
        ("modelDense", "receive"),
    ):
        operations[f"{action}{channel[0].upper()}{channel[1:]}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
        }
    return {
        "asyncapi": "3.0.0",
        "id": "urn:reelflow:asyncapi:v1",
        "info": {
            "title": "reelflow",
            "version": CONTRACT_VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": {"host": bootstrap, "protocol": "kafka", "description": "bootstrap servers"}},
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": _messages() | model_messages(),
            "schemas": component_schemas(_REFERENCE) | model_schemas(_REFERENCE),
        },
    }


def _channel(spec: TopicSpec, messages: list[str], replication: int) -> JsonObject:
    configuration: JsonObject = {}
    for name, text in spec.configs.items():
        if name == "cleanup.policy":
            configuration[name] = text.split(",")
        else:
            configuration[name] = int(text) if text.isdigit() else text
    return {
        "address": spec.name,
        "description": f"{spec.what}; key: {spec.key}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "replicas": replication,
                "topicConfiguration": configuration,
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _messages() -> JsonObject:
    keys = {
        "event": "user_id",
        "item": "item_id",
        "item-content": "item_id",
        "item-tags": "item_id",
        "snapshot": "user_id",
        "erasure": "user_id",
    }
    messages: JsonObject = {}
    for kind, key in keys.items():
        messages[kind] = {
            "name": kind,
            "title": STRUCTS[kind].__name__,
            "description": _KIND_DESCRIPTIONS[kind],
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{STRUCTS[kind].__name__}"},
            "bindings": _key_binding(f"UTF-8 text of {key}"),
            "examples": [
                {"name": f"{kind}{number}", "payload": example}
                for number, example in enumerate(EXAMPLES[kind], start=1)
            ],
        }
        if kind in INPUTS:
            messages[kind]["headers"] = _CLOUD_EVENT_HEADERS
    messages["itemWithdrawn"] = _tombstone("itemWithdrawn", "item_id", "The item is no longer offered.")
    for name in ("itemContentWithdrawn", "itemTagsWithdrawn"):
        messages[name] = _tombstone(name, "item_id", "The catalogue withdrew the item.")
    messages["userErased"] = _tombstone(
        "userErased", "user_id", "The user was erased: readers forget the list."
    )
    messages["deadLetter"] = {
        "name": "deadLetter",
        "title": "Dead letter",
        "description": (
            "The original key and value, byte for byte (a null stays null; a value of more than 8 MiB is "
            "replaced by its length and SHA-256 in the headers), in the original's partition "
            "number; the headers say why. Headers of the original are not copied. The identity is "
            "(reelflow_topic, reelflow_partition, reelflow_offset): a letter written twice counts once. "
            "A record with reelflow_resent_ms is a receipt: the letter of its identity was sent again."
        ),
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        "payload": {"description": "any bytes, or null"},
        "bindings": {
            "kafka": {
                "key": {"description": "the original key: any bytes, or null"},
                "bindingVersion": KAFKA_BINDING,
            }
        },
        "examples": [{"name": "negativeWatch", "headers": EXAMPLES["dead-letter-headers"][0]}],
    }
    return messages


def _tombstone(name: str, key: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": "Null value",
        "description": description,
        "payload": {"type": "null"},
        "bindings": _key_binding(f"UTF-8 text of {key}"),
    }


def _key_binding(description: str) -> dict[str, Any]:
    return {
        "kafka": {
            "key": {"type": "string", "minLength": 1, "maxLength": 128, "description": description},
            "bindingVersion": KAFKA_BINDING,
        }
    }
