"""The model topics' part of the AsyncAPI document."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .model_values import DenseValue, HeadValue, ItemValue, UserValue
from .topics import TopicSpec, model_topic_specs

CONTENT_TYPE: Final = "application/vnd.msgpack"

_KINDS: Final[dict[str, tuple[type[msgspec.Struct], str, str]]] = {
    "modelItem": (ItemValue, "item_id", "What the model knows of an item."),
    "modelUser": (UserValue, "user_id", "The fine-tuned row of a user."),
    "modelDense": (DenseValue, "the parameter group's name", "A named group of dense parameters."),
    "modelHead": (
        HeadValue,
        "the text head",
        "The end of every transaction of the learner: how far it had read, and when it was written.",
    ),
}
_RULES: Final = (
    " The value is a MessagePack map; fields of contentEncoding binary are its bin type, with arrays in"
    " little-endian, C order. Values are absolute: the last one of a key counts. Read with"
    " isolation.level=read_committed. A value of another lineage than the head's, and of a lower epoch"
    " than one seen before in the partition, is not to be used."
)


def model_channels(
    prefix: str, partitions: int, replication: int, model: str
) -> list[tuple[str, TopicSpec, list[str]]]:
    """Channel name, topic and messages of each model topic."""
    items, users, dense = model_topic_specs(prefix, partitions, replication, model)
    return [
        ("modelItems", items, ["modelItem"]),
        ("modelUsers", users, ["modelUser"]),
        ("modelDense", dense, ["modelDense", "modelHead"]),
    ]


def model_messages() -> dict[str, Any]:
    """The messages by name; their payloads refer to `model_schemas`."""
    return {
        name: {
            "name": name,
            "title": struct.__name__,
            "description": what + _RULES,
            "contentType": CONTENT_TYPE,
            "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
            "bindings": {
                "kafka": {
                    "key": {"type": "string", "minLength": 1, "description": f"UTF-8 text of {key}"},
                    "bindingVersion": "0.5.0",
                }
            },
        }
        for name, (struct, key, what) in _KINDS.items()
    }


def model_schemas(ref_template: str) -> dict[str, Any]:
    """Schemas of the model's values by struct name."""
    structs = [struct for struct, _, _ in _KINDS.values()]
    _, components = msgspec.json.schema_components(structs, ref_template=ref_template)
    for component in components.values():
        for field in component.get("properties", {}).values():
            _as_binary(field)
    return components


def _as_binary(field: dict[str, Any]) -> None:
    """MessagePack carries bytes as they are; msgspec describes them for JSON."""
    for part in (field, *field.get("anyOf", ())):
        if part.get("contentEncoding") == "base64":
            part["contentEncoding"] = "binary"
