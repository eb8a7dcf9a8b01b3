"""Plain JSON values with references to files in them: the content of `inputs.json`.

Pure: no I/O.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ...errors import InvalidSourceError

Path = tuple[str | int, ...]
"""Where a value is: the input's name, then map keys and list indices."""

MAX_DEPTH = 200
"""Nesting that is followed; protobuf's own parser stops at 100 messages, msgpack's at 1024
containers."""


class Kind(Enum):
    """What a reference points to."""

    FILE = "file"
    DIRECTORY = "directory"
    EITHER = "either"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A value that lies in a store; replaced by a local path once it is here."""

    path: Path
    uri: str
    kind: Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """Bytes that have no JSON form; written to a file whose path stands in their place."""

    path: Path
    data: bytes
    tag: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OffloadedLiteral:
    """A literal that lies in a store because it is large (`LiteralOffloadedMetadata`)."""

    path: Path
    uri: str


Refers = Callable[[str], bool]
"""Whether a text names something in a store that can be read from here."""


def dotted(path: Path) -> str:
    """Return `path` for people: `inputs.rows[3].image`."""
    head, *rest = path
    return str(head) + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest
    )


def plain(value: Any, path: Path, refers: Refers) -> Any:
    """Return what msgpack or a Struct held as JSON values, with references where it names files.

    Args:
        value: Dictionaries, lists and scalars.
        path: Where it is.
        refers: Decides whether a text is the address of a file.

    Raises:
        InvalidSourceError: A dictionary has keys that JSON cannot tell apart, or nesting is too
            deep.
    """
    check_depth(path)
    if isinstance(value, dict):
        keys = [_key(key, path) for key in value]
        if len(set(keys)) < len(keys):
            raise InvalidSourceError(
                f"{dotted(path)}: two keys of a dictionary are the same text in JSON."
            )
        mapping = dict(zip(keys, value.values(), strict=True))
        address = file_key(mapping, refers)
        return {key: _entry(item, key, address, path, refers) for key, item in mapping.items()}
    if isinstance(value, list):
        return [plain(item, (*path, i), refers) for i, item in enumerate(value)]
    if isinstance(value, bytes):
        return _base64(value)  # as a dataclass's own to_json() has it
    if isinstance(value, float):
        return number(value)
    if value is None or isinstance(value, (str, int)):
        return value
    to_datetime = getattr(value, "to_datetime", None)  # msgpack.Timestamp
    return to_datetime().isoformat() if to_datetime else _base64(value.data)  # msgpack.ExtType


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def file_key(mapping: Mapping[str, Any], refers: Refers) -> tuple[str, Kind] | None:
    """Return which value of `mapping` is the address of a file; None for a user's own dictionary.

    The shapes are what flytekit 1.16 writes for `FlyteFile` and `FlyteDirectory` (`path`, perhaps
    `metadata`), `StructuredDataset` (`uri`, `file_format`), `FlyteSchema` (`remote_path`) and a
    pickled dictionary (`pickle_file`): exactly these keys, and a text that `refers` accepts.
    """
    shapes = {
        frozenset({"path"}): ("path", Kind.EITHER),
        frozenset({"path", "metadata"}): ("path", Kind.FILE),
        frozenset({"uri", "file_format"}): ("uri", Kind.EITHER),
        frozenset({"remote_path"}): ("remote_path", Kind.EITHER),
        frozenset({"pickle_file"}): ("pickle_file", Kind.FILE),
    }
    shape = shapes.get(frozenset(mapping))
    if shape is None or not isinstance(mapping.get("metadata"), (dict, type(None))):
        return None
    uri = mapping[shape[0]]
    return shape if isinstance(uri, str) and refers(uri) else None


def _entry(
    item: Any, key: str, address: tuple[str, Kind] | None, path: Path, refers: Refers
) -> Any:
    if address and key == address[0]:
        return Reference(path=path, uri=item, kind=address[1])
    return plain(item, (*path, key), refers)


def _key(key: Any, path: Path) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    if isinstance(key, (int, float)):
        return str(key)
    raise InvalidSourceError(
        f"{dotted(path)}: a dictionary's key is {type(key).__name__}, which JSON does not have."
    )


def number(value: float) -> float | str:
    """Return `value`, or the text that protobuf's JSON mapping has for what JSON lacks."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def check_depth(path: Path) -> None:
    """Raise InvalidSourceError where `path` is longer than `MAX_DEPTH`."""
    if len(path) > MAX_DEPTH:
        raise InvalidSourceError(f"{path[0]}: nested more than {MAX_DEPTH} levels deep.")


def leaves(tree: Any) -> Iterator[Any]:
    """Yield every `Reference`, `Content` and `OffloadedLiteral` of `tree`."""
    if isinstance(tree, dict):
        for item in tree.values():
            yield from leaves(item)
    elif isinstance(tree, list):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, (Reference, Content, OffloadedLiteral)):
        yield tree


def replace(tree: Any, replacements: Mapping[Any, Any]) -> Any:
    """Return `tree` with each leaf that `replacements` knows exchanged."""
    if isinstance(tree, dict):
        return {key: replace(item, replacements) for key, item in tree.items()}
    if isinstance(tree, list):
        return [replace(item, replacements) for item in tree]
    if isinstance(tree, (Reference, Content, OffloadedLiteral)):
        return replacements.get(tree, tree)
    return tree
