"""Reads frozen dataclasses from JSON, by the types of their fields.

The JSON comes from files, other processes and callers. Any part may be missing or broken: a report
shows the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["from_json", "to_json"]

T = TypeVar("T")


def from_json(kind: type[T], value: Any) -> T:
    """Return a dataclass whose fields are an object's members of the same names.

    A member that is missing, or of another type, leaves the field at its default; other members are
    ignored.

    Args:
        kind: The dataclass. Its fields are texts, numbers, `Any`, dataclasses, `tuple[…, ...]` and
            `Mapping[str, …]`, or one of these `| None`.
        value: The parsed JSON.

    Raises:
        ValueError: If it is not an object, or has no valid member for a required field.
    """
    members = _object(value)
    fields: dict[str, Any] = {}
    for field, hint in _hints(typing.cast("Any", kind)):
        try:
            fields[field.name] = _read(hint, members.get(field.name, dataclasses.MISSING))
        except ValueError:
            if _is_required(field):
                message = f"{kind.__name__}: {field.name!r} is missing, or is not a {hint}"
                raise ValueError(message) from None
    return kind(**fields)


def to_json(value: Any) -> Any:
    """Return dataclasses, mappings and sequences as plain JSON values.

    Values that JSON lacks become null (NaN, infinity) or text (anything else).
    """
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


@functools.lru_cache
def _hints(kind: type[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    defaults = (field.default, field.default_factory)
    return all(default is dataclasses.MISSING for default in defaults)


def _read(hint: Any, value: Any) -> Any:
    """Return a value of a type; raise `ValueError` if it does not have it."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        # of `… | None`, the only union here
        return None if value is None else _read(parts[0], value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(value)
        return tuple(_read(parts[0], item) for item in value)
    if origin is not None:  # Mapping[str, …]
        return {str(key): _read(parts[1], item) for key, item in _object(value).items()}
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast("type[Any]", hint), value)
    return _plain(hint, value)


def _plain(kind: Any, value: Any) -> Any:
    if value is dataclasses.MISSING:
        raise ValueError(value)
    if kind in (int, float):
        return _number(kind, value)
    if kind is not Any and not isinstance(value, kind):
        raise ValueError(value)
    return value


def _number(kind: type, value: Any) -> float:
    # for Python a bool is an `int`; infinity has no form in JSON
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    if kind is float:
        return float(value)
    # some writers of JSON have only floats, so 8.0 is a whole number
    if int(value) != value:
        raise ValueError(value)
    return int(value)


def _object(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("expected an object")
    return value
