"""One message against its contract: the value, or a `ContractError` that says reason and field.

msgspec checks types and limits. What it does not look at is checked here: size, UTF-8 and
nesting of the whole message (msgspec skips unknown fields unseen), and the record key. What
JSON Schema calls an integer is one: ``3.0`` and ``1e3`` too, at the cost of a second look.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Struct, inspect

from .errors import ContractError
from .records import SCHEMA_VERSION, Erasure, Event, Item
from .topics import MAX_MESSAGE_BYTES

MAX_NESTING: Final = 128
"""Arrays and objects inside each other; well below any stack limit, so the same everywhere."""

_MAX_EXPLANATION_CHARS: Final = 240
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_TOP_LEVEL_FIELD: Final = re.compile(r"\.([^.\[]+)")

T = TypeVar("T", bound=Struct)


class _Versioned(Struct):
    schema_version: Any = SCHEMA_VERSION


class Contract(Generic[T]):
    """Decoder of one kind of message, keyed by its field `key_field`.

    `quick` is msgspec's decoder alone: 0.3 microseconds an event, to be used behind `all_clean`
    and before `decode`, which gives the same value wherever `quick` does not raise.
    """

    def __init__(self, struct: type[T], key_field: str) -> None:
        self.struct = struct
        self.key_field = key_field
        self.quick = msgspec.json.Decoder(struct).decode
        self._integers = _integer_fields(struct)
        self._loose = msgspec.json.Decoder(_loosened(struct, self._integers))
        self._versioned = msgspec.json.Decoder(_Versioned)

    def decode(self, value: bytes | None) -> T:
        """Value of one message; its key is not looked at.

        Raises
        ------
        ContractError
            `reason` is one of `deadletters.Reason`; `field` is the top-level field, if there is
            one, and the message begins with its path (``$.watch_ms: ...``).
        """
        checked = screened(value)
        try:
            return self.quick(checked)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._second_look(checked, error)

    def decode_keyed(self, value: bytes | None, key: bytes | None) -> T:
        """As `decode`; the record key must be the UTF-8 text of the key field."""
        decoded = self.decode(value)
        if key != getattr(decoded, self.key_field).encode():
            raise self.key_mismatch()
        return decoded

    def key_mismatch(self) -> ContractError:
        """The error of a record whose key is not its key field."""
        return ContractError(
            f"$.{self.key_field}: the record key must be its UTF-8 text",
            reason="key_mismatch",
            field=self.key_field,
        )

    def _second_look(self, value: bytes, error: Exception) -> T:
        if isinstance(error, msgspec.ValidationError):
            if self._is_of_another_version(value):
                raise ContractError(
                    f"$.schema_version: this contract is version {SCHEMA_VERSION}",
                    reason="unsupported_version",
                    field="schema_version",
                ) from error
            if "got `float`" in str(error):
                try:
                    return self._with_whole_floats(value)
                except (msgspec.DecodeError, RecursionError) as second:
                    error = second
        raise _explained(error) from error

    def _with_whole_floats(self, value: bytes) -> T:
        """Decode with ``3.0`` taken for 3 in the integer fields of the top level."""
        fields = msgspec.structs.asdict(self._loose.decode(value))
        for name in self._integers:
            number = fields[name]
            if isinstance(number, float) and number.is_integer():
                fields[name] = int(number)
        return msgspec.convert(fields, self.struct)

    def _is_of_another_version(self, value: bytes) -> bool:
        try:
            version = self._versioned.decode(value).schema_version
        except (msgspec.DecodeError, RecursionError):
            return False
        is_number = isinstance(version, int | float) and not isinstance(version, bool)
        return is_number and version != SCHEMA_VERSION


def screened(value: bytes | None) -> bytes:
    """`value` if it may be looked at as JSON: present, not too long, UTF-8, not nested too deep.

    Raises
    ------
    ContractError
        null_value, message_too_large, not_utf8, or bad_value for the nesting.
    """
    if value is None:
        raise ContractError("the message has no value", reason="null_value")
    if len(value) > MAX_MESSAGE_BYTES:
        raise ContractError(
            f"{len(value)} bytes are more than the limit of {MAX_MESSAGE_BYTES}", reason="message_too_large"
        )
    if not value.isascii():
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise ContractError(f"not UTF-8 at byte {error.start}", reason="not_utf8") from error
    if _nesting_exceeds(value, MAX_NESTING):
        raise ContractError(f"arrays and objects are nested more than {MAX_NESTING} deep", reason="bad_value")
    return value


def all_clean(values: Sequence[bytes | None]) -> bool:
    """Whether `screened` lets every one pass; False also when that takes a closer look.

    Cost: about 0.05 microseconds a message.
    """
    try:
        joined = b"\n".join(values)  # type: ignore[arg-type]
    except TypeError:  # a null value
        return False
    # Each level takes two bytes, so a short message cannot be nested too deep.
    if max(map(len, values), default=0) > 2 * MAX_NESTING:  # type: ignore[arg-type]
        for value in values:
            if value is not None and (
                len(value) > MAX_MESSAGE_BYTES or value.count(b"[") + value.count(b"{") > MAX_NESTING
            ):
                return False
    if joined.isascii():
        return True
    try:
        # The separator is no continuation byte: the whole is UTF-8 only if each part is.
        joined.decode()
    except UnicodeDecodeError:
        return False
    return True


def decode_item(value: bytes | None, key: bytes | None) -> Item:
    """Catalogue item of one record; a null value has no item, see `withdrawn_item_id`.

    Raises
    ------
    ContractError
        As `Contract.decode`, and key_mismatch.
    """
    return ITEMS.decode_keyed(value, key)


def withdrawn_item_id(key: bytes | None) -> str:
    """Item id of a catalogue record with a null value, which withdraws the item.

    Raises
    ------
    ContractError
        The key is no item id.
    """
    try:
        # The contract's own limits on item_id, by its own decoder.
        return msgspec.convert({"item_id": (key or b"").decode()}, Item).item_id
    except (UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ITEMS.key_mismatch() from error


def decode_erasure(value: bytes | None, key: bytes | None) -> Erasure:
    """Erasure request or receipt of one record.

    Raises
    ------
    ContractError
        As `Contract.decode`, and key_mismatch.
    """
    return ERASURES.decode_keyed(value, key)


def _nesting_exceeds(value: bytes, limit: int) -> bool:
    if len(value) <= 2 * limit or value.count(b"[") + value.count(b"{") <= limit:
        return False
    brackets = np.frombuffer(_STRING.sub(b"", value).translate(None, _NOT_BRACKETS), dtype=np.uint8)
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return bool(np.where(opens, 1, -1).cumsum().max(initial=0) > limit)


def _explained(error: Exception) -> ContractError:
    """What msgspec said, as a reason, a path and a field."""
    text, found, path = str(error).rpartition(" - at `$")
    text, path = (text, path.rstrip("`")) if found else (str(error), "")
    if isinstance(error, RecursionError):
        return ContractError("arrays and objects are nested too deep", reason="bad_value")
    if isinstance(error, UnicodeDecodeError):
        return ContractError(f"not UTF-8 at byte {error.start}", reason="not_utf8")
    if not isinstance(error, msgspec.ValidationError):
        return ContractError(text[:_MAX_EXPLANATION_CHARS], reason="not_json")
    if not path and text.startswith("Expected `object`, got"):
        return ContractError(text, reason="not_an_object")
    reason = "bad_value"
    if text.startswith("Object missing required field `"):
        path = f"{path}.{text.split('`')[1]}"
        reason, text = "missing_field", "required field is missing"
    elif path == ".type" and text.startswith("Invalid enum value"):
        reason = "unknown_type"
    elif path == ".schema_version" and text.startswith("Invalid enum value"):
        reason = "unsupported_version"
    top = _TOP_LEVEL_FIELD.match(path)
    return ContractError(
        f"${path}: {text}"[:_MAX_EXPLANATION_CHARS], reason=reason, field=top.group(1) if top else None
    )


def _integer_fields(struct: type[Struct]) -> tuple[str, ...]:
    return tuple(
        field.name for field in msgspec.structs.fields(struct) if _is_integer(inspect.type_info(field.type))
    )


def _is_integer(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _is_integer(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(_is_integer(part) for part in kind.types)
    if isinstance(kind, inspect.LiteralType):
        return all(isinstance(value, int) for value in kind.values)
    return isinstance(kind, inspect.IntType)


def _loosened(struct: type[Struct], integers: tuple[str, ...]) -> type[Struct]:
    """`struct` with any number allowed where it has an integer."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(struct):
        if field.name in integers:
            required = field.default is msgspec.NODEFAULT
            fields.append(
                (field.name, int | float) if required else (field.name, int | float | None, field.default)
            )
    return msgspec.defstruct(f"Loose{struct.__name__}", fields, bases=(struct,), kw_only=True, frozen=True)


EVENTS: Final = Contract(Event, "user_id")
ITEMS: Final = Contract(Item, "item_id")
ERASURES: Final = Contract(Erasure, "user_id")
