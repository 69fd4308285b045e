"""Reading one field of a JSON body: the value in the type it must have, or BadPayload that names it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from backend.label_studio.errors import BadPayload


def an_object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(name, "an object", value)
    return value


def a_list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name, "a list", value)
    return value


def objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    """A list of objects, or one object alone as a list of one."""
    if isinstance(value, Mapping):
        return [value]
    return [an_object(item, f"{name}[{position}]") for position, item in enumerate(a_list(value, name))]


def a_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a text", value)
    return value


def an_id(value: Any, name: str) -> int:
    """A positive integer; Label Studio counts ids from 1, and our tables keep them in 32 bits."""
    if type(value) is not int or not 1 <= value < 2**31:
        raise _wrong(name, "an id (an integer from 1 to 2147483647)", value)
    return value


def an_optional_id(value: Any, name: str) -> int | None:
    """An id, an object with one (as some answers nest a user), or None."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return None if value is None else an_id(value, name)


def optional_seconds(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise _wrong(name, "seconds from 0", value)
    return float(value)


def a_time(value: Any, name: str) -> datetime:
    """A point in time with its zone, ISO 8601."""
    try:
        time = datetime.fromisoformat(a_text(value, name))
    except ValueError as error:
        raise _wrong(name, "a time in ISO 8601", value) from error
    if time.tzinfo is None:
        raise _wrong(name, "a time with its zone", value)
    return time


def _wrong(name: str, expected: str, value: Any) -> BadPayload:
    # Only the type of what came: the value may be long, or a secret
    return BadPayload(
        f"{name} must be {expected}, not {type(value).__name__}; is the sender Label Studio 1.23 or newer?"
    )
