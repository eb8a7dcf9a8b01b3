"""A Flyte `LiteralMap` as plain JSON values with references to the files it names. Pure: no I/O.

The interface of the task is not in `inputs.pb`, so everything is decided by the literals alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ...errors import InvalidSourceError
from .values import (
    Content,
    Kind,
    OffloadedLiteral,
    Path,
    Reference,
    Refers,
    check_depth,
    dotted,
    number,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def parse_literal_map(data: bytes) -> dict[str, Any]:
    """Return the literals of a serialised `flyteidl.core.LiteralMap` by name.

    Protobuf accepts many byte strings by chance, so every record must also be the map's only field.
    No bytes at all are a task without inputs.

    Raises:
        InvalidSourceError: `data` is not a LiteralMap.
    """
    from flyteidl.core.literals_pb2 import LiteralMap
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        parsed = LiteralMap.FromString(data)
    except DecodeError:
        parsed = None
    if parsed is None or not _holds_only_field_1(data):
        raise InvalidSourceError(
            f"These {len(data)} bytes are not a Flyte LiteralMap.",
            hint="Is it the task's inputs.pb, and complete?",
        )
    return {name: parsed.literals[name] for name in sorted(parsed.literals)}


def parse_literal(data: bytes, path: Path) -> Any:
    """Return a serialised `flyteidl.core.Literal`.

    Raises:
        InvalidSourceError: `data` is not a Literal.
    """
    from flyteidl.core.literals_pb2 import Literal
    from google.protobuf.message import DecodeError

    try:
        literal = Literal.FromString(data)
    except DecodeError as error:
        raise InvalidSourceError(
            f"{dotted(path)}: its offloaded value is not a Flyte literal."
        ) from error
    if literal.WhichOneof("value") is None:
        raise InvalidSourceError(f"{dotted(path)}: its offloaded value is empty.")
    return literal


def _holds_only_field_1(data: bytes) -> bool:
    """Whether every top-level record has field number 1 and wire type 2.

    Source: protobuf.dev, "Encoding".
    """
    position = 0
    while position < len(data):
        if data[position] != (1 << 3 | 2):
            return False
        position = position + 1
        length = 0
        shift = 0
        more = True
        while more and position < len(data):
            length |= (data[position] & 0x7F) << shift
            more = bool(data[position] & 0x80)
            position, shift = position + 1, shift + 7
        position += length
    return position == len(data)


def select(literals: Mapping[str, Any], index: int, bound: frozenset[str]) -> dict[str, Any]:
    """Return the inputs of one instance of a map task.

    Of each collection that is not bound that is element `index`.

    Source: `ArrayNodeMapTask._literal_map_to_python_input`, flytekit 1.16.

    Raises:
        InvalidSourceError: A collection has no element `index`.
    """
    chosen = {}
    for name, literal in literals.items():
        chosen[name] = literal
        if name in bound or literal.WhichOneof("value") != "collection":
            continue
        items = literal.collection.literals
        if not 0 <= index < len(items):
            raise InvalidSourceError(
                f"{name}: has {len(items)} items, but this is item {index} of the map task."
            )
        chosen[name] = items[index]
    return chosen


def value_of(literal: Any, path: Path, refers: Refers) -> Any:
    """Return `literal` as JSON values.

    In them are `Reference`, `Content` and `OffloadedLiteral` objects.

    Raises:
        InvalidSourceError: A literal is of a kind that is not known, or nested too deeply.
    """
    check_depth(path)
    kind = literal.WhichOneof("value")
    if kind == "collection":
        return [
            value_of(item, (*path, i), refers) for i, item in enumerate(literal.collection.literals)
        ]
    if kind == "map":
        items = literal.map.literals
        return {key: value_of(items[key], (*path, key), refers) for key in sorted(items)}
    if kind == "offloaded_metadata":
        return OffloadedLiteral(path=path, uri=literal.offloaded_metadata.uri)
    if kind == "scalar":
        return _scalar(literal.scalar, path, refers)
    raise InvalidSourceError(
        f"{dotted(path)}: a literal of unknown kind {kind or 'none'!r}.",
        hint="A newer Flyte may have written it; update flyteidl in this image.",
    )


def _scalar(scalar: Any, path: Path, refers: Refers) -> Any:
    kind = scalar.WhichOneof("value")
    value: Any = getattr(scalar, kind) if kind else None
    convert: dict[str | None, Callable[[], Any]] = {
        "none_type": lambda: None,
        "primitive": lambda: _primitive(value, path),
        "blob": lambda: _blob(value, path),
        "binary": lambda: _binary(value, path, refers),
        "generic": lambda: plain(_struct(value), path, refers),
        "union": lambda: value_of(value.value, path, refers),
        "schema": lambda: {
            "path": Reference(path=path, uri=value.uri, kind=Kind.EITHER),
            "format": "parquet",
        },
        "structured_dataset": lambda: {
            "path": Reference(path=path, uri=value.uri, kind=Kind.EITHER),
            "format": value.metadata.structured_dataset_type.format,
        },
        "error": lambda: {"failed_node_id": value.failed_node_id, "message": value.message},
    }
    if kind not in convert:
        raise InvalidSourceError(f"{dotted(path)}: a scalar of unknown kind {kind or 'none'!r}.")
    return convert[kind]()


def _primitive(primitive: Any, path: Path) -> Any:
    kind = primitive.WhichOneof("value")
    if kind is None:
        raise InvalidSourceError(f"{dotted(path)}: a primitive of unknown kind.")
    value = getattr(primitive, kind)
    if kind == "datetime":
        try:
            moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=value.seconds)
            return moment.replace(microsecond=value.nanos // 1000).isoformat()
        except (OverflowError, ValueError) as error:
            raise InvalidSourceError(f"{dotted(path)}: {value.seconds} s is not a date.") from error
    if kind == "duration":
        return value.seconds + value.nanos / 1e9
    return number(value) if kind == "float_value" else value


def _blob(blob: Any, path: Path) -> Reference:
    multipart = blob.metadata.type.dimensionality == 1  # BlobType.BlobDimensionality.MULTIPART
    return Reference(path=path, uri=blob.uri, kind=Kind.DIRECTORY if multipart else Kind.FILE)


def _binary(binary: Any, path: Path, refers: Refers) -> Any:
    if binary.tag != "msgpack":
        return Content(path=path, data=binary.value, tag=binary.tag)
    import msgpack

    try:
        # a Python dictionary may have keys other than texts
        value = msgpack.unpackb(binary.value, strict_map_key=False)
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        # bytes are left over, a text is not UTF-8, or a list is a key
        raise InvalidSourceError(f"{dotted(path)}: its msgpack bytes cannot be read.") from error
    return plain(value, path, refers)


def _struct(struct: Any) -> dict[str, Any]:
    return {key: _struct_value(struct.fields[key]) for key in struct.fields}


def _struct_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return [_struct_value(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        # A Struct has doubles only: a whole number was an integer, unless no double can hold it
        # exactly.
        return int(number) if number.is_integer() and abs(number) <= 2**53 else number
    return None if kind in (None, "null_value") else getattr(value, kind)
