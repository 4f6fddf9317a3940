"""A fast checker compiled from a JSON Schema, independent of msgspec and of the structs.

It knows the keywords that the published schemas use and refuses any other, so a new keyword
cannot go unchecked. About 30 times as fast as the jsonschema library, which it is tested against.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]

_NOTES = {"$schema", "$id", "$defs", "title", "description", "default", "examples"}
_KNOWN = _NOTES | {
    "$ref", "anyOf", "enum", "type", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength",
    "pattern", "minItems", "maxItems", "items", "properties", "required", "additionalProperties",
    "contentEncoding",
}  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Check] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def compile_schema(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Check:
    """A predicate that says whether a parsed JSON value validates against `schema`."""
    root = schema if root is None else root
    unknown = set(schema) - _KNOWN
    if unknown:
        raise NotImplementedError(f"keywords {sorted(unknown)}")
    if "$ref" in schema:
        return compile_schema(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    checks = [*_general(schema, root), *_numeric(schema), *_textual(schema), *_nested(schema, root)]
    return lambda value: all(check(value) for check in checks)


def _general(schema: dict[str, Any], root: dict[str, Any]) -> list[Check]:
    checks: list[Check] = []
    if "type" in schema:
        checks.append(_TYPES[schema["type"]])
    if "enum" in schema:
        allowed = schema["enum"]
        # In JSON true is not 1.
        checks.append(
            lambda v: any(v == one and isinstance(v, bool) == isinstance(one, bool) for one in allowed)
        )
    if "anyOf" in schema:
        options = [compile_schema(option, root) for option in schema["anyOf"]]
        checks.append(lambda value: any(option(value) for option in options))
    return checks


def _numeric(schema: dict[str, Any]) -> list[Check]:
    checks: list[Check] = []
    if "minimum" in schema:
        low = schema["minimum"]
        checks.append(lambda value: not _is_number(value) or value >= low)
    if "maximum" in schema:
        high = schema["maximum"]
        checks.append(lambda value: not _is_number(value) or value <= high)
    if "exclusiveMinimum" in schema:
        above = schema["exclusiveMinimum"]
        checks.append(lambda value: not _is_number(value) or value > above)
    return checks


def _textual(schema: dict[str, Any]) -> list[Check]:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", float("inf"))
    checks: list[Check] = [lambda value: not isinstance(value, str) or shortest <= len(value) <= longest]
    if "pattern" in schema:
        pattern = re.compile(schema["pattern"])
        checks.append(lambda value: not isinstance(value, str) or pattern.search(value) is not None)
    if "contentEncoding" in schema:  # jsonschema takes it for a note; the decoder does not
        assert schema["contentEncoding"] == "base64"
        checks.append(lambda value: not isinstance(value, str) or _is_base64(value))
    return checks


def _is_base64(value: Any) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return True


def _nested(schema: dict[str, Any], root: dict[str, Any]) -> list[Check]:
    fewest, most = schema.get("minItems", 0), schema.get("maxItems", float("inf"))
    checks: list[Check] = [lambda value: not isinstance(value, list) or fewest <= len(value) <= most]
    if "items" in schema:
        item = compile_schema(schema["items"], root)
        checks.append(lambda value: not isinstance(value, list) or all(map(item, value)))
    if "required" in schema:
        required = set(schema["required"])
        checks.append(lambda value: not isinstance(value, dict) or required <= value.keys())
    if "additionalProperties" in schema:
        assert "properties" not in schema, "not known together"
        other = compile_schema(schema["additionalProperties"], root)
        checks.append(lambda value: not isinstance(value, dict) or all(map(other, value.values())))
    properties = [(name, compile_schema(part, root)) for name, part in schema.get("properties", {}).items()]
    if properties:
        checks.append(
            lambda value: (
                not isinstance(value, dict)
                or all(check(value[name]) for name, check in properties if name in value)
            )
        )
    return checks
