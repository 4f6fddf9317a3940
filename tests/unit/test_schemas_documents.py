"""The published documents: generated, complete, in agreement with the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from msgspec import inspect

from schemas.asyncapi import asyncapi_document
from schemas.checks import ERASURES, EVENTS, ITEMS, Contract
from schemas.codec import SNAPSHOTS, decode_snapshot, encode_snapshot
from schemas.content import CONTENTS, TAGS
from schemas.deadletters import HEADER_RESENT, REASONS, Rejected, headers_of
from schemas.jsonschema import EXAMPLES, KINDS, STRUCTS, all_schemas, json_schema
from schemas.topics import model_topic_specs, topic_specs
from streams.cli import cli
from streams.commands.schemas import contract_files
from tests.schema_checker import compile_schema

CONTRACTS_DIR = Path(__file__).parents[2] / "docs" / "contracts"
CONTRACTS: dict[str, Contract[Any]] = {
    "event": EVENTS,
    "item": ITEMS,
    "erasure": ERASURES,
    "snapshot": SNAPSHOTS,
    "item-content": CONTENTS,
    "item-tags": TAGS,
}


def test_the_files_in_docs_are_what_the_code_generates() -> None:
    """Renew them with `reelflow schemas write docs/contracts`."""
    found = {path.name: path.read_text(encoding="utf-8") for path in CONTRACTS_DIR.glob("*.json")}
    assert found == contract_files()


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_valid_and_hold_their_examples(kind: str) -> None:
    schema = json_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:reelflow:schema:{kind}:v1"
    assert schema["title"]
    assert schema["examples"]
    for example in schema["examples"]:
        Draft202012Validator(schema).validate(example)
        assert compile_schema(schema)(example)


@pytest.mark.parametrize("kind", CONTRACTS)
def test_examples_pass_through_the_code_unchanged(kind: str) -> None:
    for example in EXAMPLES[kind]:
        decoded = CONTRACTS[kind].decode(json.dumps(example).encode())
        again = json.loads(msgspec.json.encode(decoded))
        Draft202012Validator(json_schema(kind)).validate(again)
        unset = {
            name: value for name, value in example.items() if name != "schema_version" and value is not None
        }
        assert unset.items() <= again.items()


def test_a_snapshot_is_written_whole() -> None:
    (example,) = EXAMPLES["snapshot"]
    snapshot = decode_snapshot(json.dumps(example).encode())
    assert json.loads(encode_snapshot(snapshot)) == example


def test_integers_stand_at_the_top_level_of_what_others_write() -> None:
    """Where the decoder takes 3.0 for 3, as the schemas do."""
    for kind in ("event", "item", "erasure"):
        for field in msgspec.structs.fields(STRUCTS[kind]):
            assert not _nested_integer(inspect.type_info(field.type), top=True), field.name


def _nested_integer(kind: inspect.Type, *, top: bool) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _nested_integer(kind.type, top=top)
    if isinstance(kind, inspect.UnionType):
        return any(_nested_integer(part, top=top) for part in kind.types)
    if isinstance(kind, inspect.ListType):
        return _nested_integer(kind.item_type, top=False)
    if isinstance(kind, inspect.StructType):
        return any(_nested_integer(field.type, top=False) for field in kind.fields)
    return isinstance(kind, inspect.IntType) and not top


def test_headers_of_dead_letters_are_what_is_written() -> None:
    rejected = Rejected(index=0, reason="bad_value", field=None, message="m\ud800")
    headers = headers_of(rejected, topic="t", partition=3, offset=12, stage="decode", n_bytes=7)
    written = {name: value.decode() for name, value in headers}
    schema = json_schema("dead-letter-headers")
    Draft202012Validator(schema).validate(written)
    assert list(written) == schema["required"]
    assert set(schema["properties"]) - set(written) == {HEADER_RESENT}
    assert sorted(schema["properties"]["reelflow_reason"]["enum"]) == sorted(REASONS)


def _resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    assert reference.startswith("#/")
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for part in value.values() for one in _references(part)]
    if isinstance(value, list):
        return [one for part in value for one in _references(part)]
    return []


def test_asyncapi_covers_every_topic_with_its_configuration() -> None:
    document = asyncapi_document("shop", 7, 3)
    channels = {channel["address"]: channel for channel in document["channels"].values()}
    specs = (*topic_specs("shop", 7, 3), *model_topic_specs("shop", 7, 3))
    assert set(channels) == {spec.name for spec in specs}
    for spec in specs:
        binding = channels[spec.name]["bindings"]["kafka"]
        assert (binding["topic"], binding["replicas"]) == (spec.name, 3)
        assert binding["partitions"] == spec.partitions == (1 if ".dense." in spec.name else 7)
        written = {
            name: ",".join(value) if isinstance(value, list) else str(value)
            for name, value in binding["topicConfiguration"].items()
        }
        assert written == spec.configs


def test_asyncapi_is_complete_in_itself() -> None:
    document = asyncapi_document()
    for reference in _references(document):
        _resolve(document, reference)
    used = {reference.rpartition("/")[2] for reference in _references(document["channels"])}
    assert used == set(document["components"]["messages"])
    for operation in document["operations"].values():
        assert operation["action"] in {"send", "receive"}


def test_asyncapi_payloads_are_the_json_schemas() -> None:
    document = asyncapi_document()
    for kind in CONTRACTS:
        message = document["components"]["messages"][kind]
        root = {**message["payload"], "components": document["components"]}
        validator = Draft202012Validator(root)
        for example in message["examples"]:
            validator.validate(example["payload"])
        assert not validator.is_valid({**EXAMPLES[kind][0], "schema_version": 2})
        published = json_schema(kind)
        component = document["components"]["schemas"][STRUCTS[kind].__name__]
        assert component["required"] == published["required"]
        assert list(component["properties"]) == list(published["properties"])


@pytest.mark.parametrize("kind", KINDS)
def test_command_prints_a_schema(kind: str) -> None:
    result = CliRunner().invoke(cli, ["schemas", "print", kind])
    assert result.exit_code == 0
    assert json.loads(result.output) == json_schema(kind)


def test_command_prints_all(tmp_path: Path) -> None:
    assert json.loads(CliRunner().invoke(cli, ["schemas", "print"]).output) == all_schemas()
    env = {"REELFLOW_KAFKA_PREFIX": "shop", "REELFLOW_KAFKA_PARTITIONS": "3"}
    document = json.loads(CliRunner().invoke(cli, ["schemas", "asyncapi"], env=env).output)
    assert document["channels"]["behaviour"]["address"] == "shop.behaviour.v1"
    assert document["channels"]["behaviour"]["bindings"]["kafka"]["partitions"] == 3
    written = CliRunner().invoke(cli, ["schemas", "write", str(tmp_path / "out")])
    assert written.exit_code == 0
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == contract_files()


def test_command_refuses_an_unknown_name() -> None:
    assert CliRunner().invoke(cli, ["schemas", "print", "nothing"]).exit_code == 2


def test_command_validates_messages(tmp_path: Path) -> None:
    good = json.dumps(EXAMPLES["event"][0])
    bad = json.dumps(EXAMPLES["event"][0] | {"watch_ms": -1})
    file = tmp_path / "events.jsonl"
    file.write_text(f"{good}\n\n{bad}\r\n{good}\n", encoding="utf-8")
    result = CliRunner().invoke(cli, ["schemas", "validate", "event", str(file)])
    assert result.exit_code == 1
    assert result.output == f"{file}:3: bad_value: $.watch_ms: Expected `int` >= 0\n"
    assert str(result.exception) == "1 of 3 messages break the contract"
    file.write_text(good, encoding="utf-8")
    assert CliRunner().invoke(cli, ["schemas", "validate", "event", str(file)]).exit_code == 0
