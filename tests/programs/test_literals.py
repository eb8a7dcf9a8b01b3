"""Literals to values: what needs no process."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from flyteidl.core import literals_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from flytekitplugins.inference.errors import InvalidSourceError
from flytekitplugins.inference.programs.inputs.literals import parse_literal_map, value_of
from flytekitplugins.inference.programs.inputs.values import (
    Kind,
    Reference,
    dotted,
    file_key,
    leaves,
    plain,
    replace,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def _always(text: str) -> bool:
    return True


def _never(text: str) -> bool:
    return False


@given(st.binary(max_size=200))
@example(b"\x0a\x00")
@example(b"\x0a\x80")
def test_any_bytes_are_a_literal_map_or_an_error(data: bytes) -> None:
    try:
        literals = parse_literal_map(data)
    except InvalidSourceError:
        return
    again = literals_pb2.LiteralMap()
    for name, literal in literals.items():
        again.literals[name].CopyFrom(literal)
    assert literals_pb2.LiteralMap.FromString(data) == again


@given(JSON)
def test_msgpack_becomes_json(value: Any) -> None:
    literal = literals_pb2.Literal()
    literal.scalar.binary.tag = "msgpack"
    literal.scalar.binary.value = msgpack.packb(value)
    found = value_of(literal, ("x",), _never)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    if not any(character in repr(value) for character in ("nan", "inf")):
        assert found == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"path": "s3://b/k"}, ("path", Kind.EITHER)),
        ({"path": "s3://b/k", "metadata": None}, ("path", Kind.FILE)),
        ({"path": "s3://b/k", "metadata": {"a": "b"}}, ("path", Kind.FILE)),
        ({"path": "s3://b/k", "metadata": "text"}, None),
        ({"uri": "s3://b/k", "file_format": "csv"}, ("uri", Kind.EITHER)),
        ({"remote_path": "s3://b/k"}, ("remote_path", Kind.EITHER)),
        ({"pickle_file": "s3://b/k"}, ("pickle_file", Kind.FILE)),
        ({"uri": "s3://b/k"}, None),
        ({"path": 3}, None),
        ({"path": "s3://b/k", "more": 1}, None),
        ({}, None),
    ],
)
def test_which_dictionaries_are_files(value: dict[str, Any], expected: Any) -> None:
    assert file_key(value, _always) == expected
    assert file_key(value, _never) is None


def test_references_are_found_and_replaced_where_they_are() -> None:
    tree = plain({"a": [{"path": "s3://b/k"}], "b": "s3://b/k"}, ("x",), _always)
    (leaf,) = leaves(tree)
    assert leaf == Reference(path=("x", "a", 0), uri="s3://b/k", kind=Kind.EITHER)
    assert dotted(leaf.path) == "x.a[0]"
    assert replace(tree, {leaf: "/here"}) == {"a": [{"path": "/here"}], "b": "s3://b/k"}


def test_other_msgpack_types() -> None:
    value = {"t": msgpack.Timestamp(0, 0), "e": msgpack.ExtType(5, b"\0"), "b": b"\1", (1.5): 1}
    found = plain(msgpack.unpackb(msgpack.packb(value), strict_map_key=False), ("x",), _never)
    assert found == {"t": "1970-01-01T00:00:00+00:00", "e": "AA==", "b": "AQ==", "1.5": 1}


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, {b"bytes": 1}])
def test_keys_that_json_cannot_have(value: Any) -> None:
    with pytest.raises(InvalidSourceError, match=r"^x: "):
        plain(value, ("x",), _never)


def test_nesting_is_bounded() -> None:
    value: Any = []
    for _ in range(250):
        value = [value]
    with pytest.raises(InvalidSourceError, match="more than 200 levels"):
        plain(value, ("x",), _never)


def test_a_date_beyond_python_is_an_error() -> None:
    literal = literals_pb2.Literal()
    literal.scalar.primitive.datetime.seconds = 2**62
    with pytest.raises(InvalidSourceError, match="is not a date"):
        value_of(literal, ("x",), _never)
