"""Every row of the table in docs/input-downloader.md: Python values, through flytekit's types."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from flyteidl.core import literals_pb2, types_pb2
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.type_engine import TypeEngine
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile
from flytekit.types.structured.structured_dataset import StructuredDataset
from google.protobuf.struct_pb2 import Struct
from pydantic import BaseModel

InputsPb = Callable[..., str]


class Color(Enum):
    RED = "red"


@dataclass
class Inner:
    file: FlyteFile
    count: int


@dataclass
class Config:
    name: str
    when: datetime
    inner: Inner
    directory: FlyteDirectory
    files: list[FlyteFile]
    dataset: StructuredDataset
    ratio: float = 0.5
    none: int | None = None


class Model(BaseModel):
    file: FlyteFile
    directory: FlyteDirectory
    rank: int = 3


class Thing:
    def __init__(self, value: int) -> None:
        self.value = value


def _literal(value: Any, kind: type) -> literals_pb2.Literal:
    context = FlyteContextManager.current_context()
    return TypeEngine.to_literal(
        context, value, kind, TypeEngine.to_literal_type(kind)
    ).to_flyte_idl()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with files, as another volume would have it."""
    root = tmp_path / "source"
    (root / "tree" / "deep").mkdir(parents=True)
    (root / "tree" / "one.txt").write_bytes(b"one")
    (root / "tree" / "deep" / "two.txt").write_bytes(b"two")
    (root / "a.txt").write_bytes(b"a")
    (root / "b.txt").write_bytes(b"bb")
    return root


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, int, 3),
        (2**62, int, 2**62),
        (0, int, 0),
        (0.5, float, 0.5),
        (float("nan"), float, "NaN"),
        (float("inf"), float, "Infinity"),
        (float("-inf"), float, "-Infinity"),
        (True, bool, True),
        (False, bool, False),
        ("", str, ""),
        ("gr\u00fc\u00df\u0000\U0001f600", str, "gr\u00fc\u00df\u0000\U0001f600"),
        (Color.RED, Color, "red"),
        (
            datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=timezone.utc),
            datetime,
            "2024-05-06T07:08:09.123456+00:00",
        ),
        (date(1900, 1, 2), date, "1900-01-02T00:00:00+00:00"),
        (timedelta(minutes=1, microseconds=500000), timedelta, 60.5),
        (timedelta(seconds=-1.5), timedelta, -1.5),
        (None, type(None), None),
        (None, int | None, None),
        (4, int | None, 4),
        ("x", int | str, "x"),
        ([], list[int], []),
        ([[1], []], list[list[int]], [[1], []]),
        ({}, dict[str, int], {}),
        ({"b": 1, "a.b": 2}, dict[str, int], {"a.b": 2, "b": 1}),
        ({"k": [1, {"z": None}], "f": 1.0}, dict, {"k": [1, {"z": None}], "f": 1.0}),
        ({}, dict, {}),
        ({1: "a", None: "b", False: "c"}, dict, {"1": "a", "null": "b", "false": "c"}),
        ({"inf": float("inf")}, dict, {"inf": "Infinity"}),
        ({"path": "/no/such/file"}, dict, {"path": "/no/such/file"}),
        ({"path": "/"}, dict, {"path": "/"}),
        ({"path": "file:///no/such/file"}, dict, {"path": "file:///no/such/file"}),
        ({"path": "https"}, dict, {"path": "https"}),
        ({"path": "postgres://host/db"}, dict, {"path": "postgres://host/db"}),
        ({"path": "s3://bucket/key", "other": 1}, dict, {"path": "s3://bucket/key", "other": 1}),
    ],
)
def test_values(value: Any, kind: Any, expected: Any, inputs_pb: InputsPb, download: Any) -> None:
    ended = download(inputs_pb(x=(value, kind)))
    assert ended.code == 0, ended.stderr
    assert ended.inputs == {"x": expected}
    assert ended.files == {}


def test_files(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    a, b = str(source / "a.txt"), str(source / "b.txt")
    uri = inputs_pb(
        plain=(FlyteFile(a), FlyteFile),
        scheme=_blob(f"file://{a}"),
        some=([FlyteFile(a), FlyteFile(b)], list[FlyteFile]),
        named=({"x": [FlyteFile(b)]}, dict[str, list[FlyteFile]]),
        optional=(FlyteFile(a), FlyteFile | None),
        nothing=(None, FlyteFile | None),
    )
    ended = download(uri)
    assert ended.code == 0, ended.stderr
    root = download.root / "inputs"
    assert ended.inputs == {
        "plain": str(root / "plain/a.txt"),
        "scheme": str(root / "scheme/a.txt"),
        "some": [str(root / "some.0/a.txt"), str(root / "some.1/b.txt")],
        "named": {"x": [str(root / "named.x.0/b.txt")]},
        "optional": str(root / "optional/a.txt"),
        "nothing": None,
    }
    assert ended.files == {
        "plain/a.txt": b"a",
        "scheme/a.txt": b"a",
        "some.0/a.txt": b"a",
        "some.1/b.txt": b"bb",
        "named.x.0/b.txt": b"bb",
        "optional/a.txt": b"a",
    }
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*.txt")} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in [root, *root.iterdir()] if path.is_dir()} == {
        0o755
    }


def test_directory(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    (source / "empty").mkdir()
    uri = inputs_pb(
        tree=(FlyteDirectory(str(source / "tree")), FlyteDirectory),
        trees=([FlyteDirectory(str(source / "tree"))], list[FlyteDirectory]),
        empty=_blob(str(source / "empty"), multipart=True),
    )
    ended = download(uri)
    assert ended.code == 0, ended.stderr
    assert set(ended.files.values()) == {b"one", b"two"}
    tree = Path(ended.inputs["tree"])
    assert {str(path.relative_to(tree)) for path in tree.rglob("*.txt")} == {
        "one.txt",
        "deep/two.txt",
    }
    assert Path(ended.inputs["trees"][0], "deep", "two.txt").read_bytes() == b"two"
    assert list(Path(ended.inputs["empty"]).iterdir()) == []


def test_dataclass_and_pydantic(s3: Any, inputs_pb: InputsPb, download: Any) -> None:
    a, b, tree = s3.put("types/a.txt", b"a"), s3.put("types/b.csv", b"bb"), "s3://bucket/types/tree"
    s3.put("types/tree/one.txt", b"one")
    s3.put("types/tree/deep/two.txt", b"two")
    config = Config(
        name="n",
        when=datetime(2024, 1, 2, tzinfo=timezone.utc),
        inner=Inner(file=FlyteFile(a), count=3),
        directory=FlyteDirectory(tree),
        files=[FlyteFile(b)],
        dataset=StructuredDataset(uri=b, file_format="csv"),
    )
    uri = inputs_pb(
        config=(config, Config),
        configs=([config], list[Config]),
        model=(Model(file=FlyteFile(a), directory=FlyteDirectory(tree)), Model),
    )
    ended = download(uri, **s3.environ)
    assert ended.code == 0, ended.stderr
    root = download.root / "inputs"
    assert ended.inputs["config"] == {
        "name": "n",
        "when": "2024-01-02T00:00:00+00:00",
        "inner": {"file": {"path": f"{root}/config.inner.file/a.txt"}, "count": 3},
        "directory": {"path": f"{root}/config.directory/tree"},
        "files": [{"path": f"{root}/config.files.0/b.csv"}],
        "dataset": {"uri": f"{root}/config.dataset/b.csv", "file_format": "csv"},
        "ratio": 0.5,
        "none": None,
    }
    assert ended.inputs["configs"][0]["inner"]["file"] == {
        "path": f"{root}/configs.0.inner.file/a.txt"
    }
    assert ended.inputs["model"] == {
        "file": {"path": f"{root}/model.file/a.txt"},
        "directory": {"path": f"{root}/model.directory/tree"},
        "rank": 3,
    }
    assert ended.files["config.inner.file/a.txt"] == b"a"
    assert ended.files["config.directory/tree/deep/two.txt"] == b"two"
    assert ended.files["config.files.0/b.csv"] == ended.files["config.dataset/b.csv"] == b"bb"
    assert ended.files["model.directory/tree/one.txt"] == b"one"


def test_attribute_of_a_dataclass_and_file_metadata(
    source: Path, inputs_pb: InputsPb, download: Any
) -> None:
    """Propeller resolves `config.inner` to a literal of its own, with the same msgpack form."""
    import msgpack

    value = {"path": f"file://{source}/a.txt", "metadata": {"sha256": "x"}}
    ended = download(
        inputs_pb(
            x=_binary(msgpack.packb(value), "msgpack"), n=_binary(msgpack.packb(7), "msgpack")
        )
    )
    assert ended.inputs["n"] == 7
    assert ended.inputs["x"]["metadata"] == {"sha256": "x"}
    assert Path(ended.inputs["x"]["path"]).read_bytes() == b"a"


def test_struct(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    struct = Struct()
    struct.update(
        {
            "n": 3,
            "f": 0.5,
            "big": 1e20,
            "l": [1, None, "x", True],
            "m": {"path": f"file://{source}/a.txt"},
        }
    )
    full, empty = literals_pb2.Literal(), literals_pb2.Literal()
    full.scalar.generic.CopyFrom(struct)
    empty.scalar.generic.CopyFrom(Struct())
    ended = download(inputs_pb(full=full, empty=empty))
    assert ended.code == 0, ended.stderr
    local = str(download.root / "inputs" / "full.m" / "a.txt")
    assert ended.inputs == {
        "full": {"n": 3, "f": 0.5, "big": 1e20, "l": [1, None, "x", True], "m": {"path": local}},
        "empty": {},
    }
    assert isinstance(ended.inputs["full"]["n"], int)


def test_pickles(inputs_pb: InputsPb, download: Any) -> None:
    from flytekit.types.pickle import FlytePickle

    ended = download(inputs_pb(thing=([1, 2], FlytePickle[list])))
    assert ended.code == 0, ended.stderr
    assert pickle.loads(Path(ended.inputs["thing"]).read_bytes()) == [1, 2]


def test_pickled_dictionary(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    struct = Struct()
    struct.update({"pickle_file": f"file://{source}/a.txt"})
    literal = literals_pb2.Literal(metadata={"format": "pickle"})
    literal.scalar.generic.CopyFrom(struct)
    ended = download(inputs_pb(x=literal))
    assert Path(ended.inputs["x"]["pickle_file"]).read_bytes() == b"a"


def test_datasets_and_schemas(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    dataset, schema = literals_pb2.Literal(), literals_pb2.Literal()
    dataset.scalar.structured_dataset.uri = str(source / "tree")
    dataset.scalar.structured_dataset.metadata.structured_dataset_type.format = "parquet"
    schema.scalar.schema.uri = f"file://{source}/tree/"
    single = (StructuredDataset(uri=str(source / "a.txt"), file_format="csv"), StructuredDataset)
    ended = download(inputs_pb(dataset=dataset, schema=schema, single=single))
    assert ended.code == 0, ended.stderr
    assert ended.inputs["dataset"]["format"] == "parquet"
    assert Path(ended.inputs["dataset"]["path"], "one.txt").read_bytes() == b"one"
    assert Path(ended.inputs["schema"]["path"], "deep/two.txt").read_bytes() == b"two"
    assert ended.inputs["schema"]["format"] == "parquet"
    assert Path(ended.inputs["single"]["path"]).read_bytes() == b"a"


def test_binary_and_error_literals(inputs_pb: InputsPb, download: Any) -> None:
    error = literals_pb2.Literal()
    error.scalar.error.failed_node_id = "n0"
    error.scalar.error.message = "broken"
    inner = _binary(__import__("msgpack").packb({"raw": b"\xff\0"}), "msgpack")
    ended = download(inputs_pb(blob=_binary(b"\0\xff", "cbor"), error=error, inner=inner))
    assert ended.code == 0, ended.stderr
    assert Path(ended.inputs["blob"]).read_bytes() == b"\0\xff"
    assert Path(ended.inputs["blob"]).stat().st_mode & 0o777 == 0o644
    assert ended.inputs["error"] == {"failed_node_id": "n0", "message": "broken"}
    assert base64.b64decode(ended.inputs["inner"]["raw"]) == b"\xff\0"


def test_offloaded_everywhere(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    """Offloaded literals at the top, in a list, in a map, and inside each other."""
    files = [FlyteFile(str(source / "a.txt")), FlyteFile(str(source / "b.txt"))]
    (source / "list.pb").write_bytes(_literal(files, list[FlyteFile]).SerializeToString())
    nested = literals_pb2.Literal()
    nested.collection.literals.append(_offloaded(source / "list.pb"))
    nested.map.literals["k"].CopyFrom(_offloaded(source / "list.pb"))
    (source / "nested.pb").write_bytes(nested.SerializeToString())
    listed = literals_pb2.Literal()
    listed.collection.literals.append(_offloaded(source / "list.pb"))
    uri = inputs_pb(
        top=_offloaded(source / "list.pb"), nested=_offloaded(source / "nested.pb"), listed=listed
    )
    ended = download(uri)
    assert ended.code == 0, ended.stderr
    assert [Path(path).read_bytes() for path in ended.inputs["top"]] == [b"a", b"bb"]
    assert [Path(path).read_bytes() for path in ended.inputs["nested"]["k"]] == [b"a", b"bb"]
    assert [Path(path).read_bytes() for path in ended.inputs["listed"][0]] == [b"a", b"bb"]


def test_offloaded_literals_that_refer_to_themselves_end(
    source: Path, inputs_pb: InputsPb, download: Any
) -> None:
    (source / "loop.pb").write_bytes(_offloaded(source / "loop.pb").SerializeToString())
    ended = download(inputs_pb(x=_offloaded(source / "loop.pb")))
    assert (ended.code, ended.message["error"]) == (66, "InvalidSourceError")


MAP = {"BATCH_JOB_ARRAY_INDEX_VAR_NAME": "FLYTE_K8S_ARRAY_INDEX"}


def test_map_task(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    files = [FlyteFile(str(source / "a.txt")), FlyteFile(str(source / "b.txt"))]
    (source / "list.pb").write_bytes(_literal(files, list[FlyteFile]).SerializeToString())
    uri = inputs_pb(
        n=([10, 11], list[int]),
        f=_offloaded(source / "list.pb"),
        bound=([1, 2, 3], list[int]),
        single=(5, int),
    )
    ended = download(uri, "--bound", "bound", **MAP, FLYTE_K8S_ARRAY_INDEX="1")
    assert ended.code == 0, ended.stderr
    local = str(download.root / "inputs/f/b.txt")
    assert ended.inputs == {"n": 11, "f": local, "bound": [1, 2, 3], "single": 5}
    assert list(ended.files) == ["f/b.txt"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"FLYTE_K8S_ARRAY_INDEX": "1", "BATCH_JOB_ARRAY_INDEX_OFFSET": "1"}, 12),
        ({"BATCH_JOB_ARRAY_INDEX_OFFSET": "2"}, 12),
        ({}, 10),
    ],
)
def test_index_is_flytekits(
    variables: dict[str, str],
    expected: int,
    inputs_pb: InputsPb,
    download: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flytekit.core.array_node_map_task import ArrayNodeMapTask

    for name, value in {**MAP, **variables}.items():
        monkeypatch.setenv(name, value)
    assert [10, 11, 12][ArrayNodeMapTask._compute_array_job_index()] == expected
    assert download(inputs_pb(n=([10, 11, 12], list[int])), **MAP, **variables).inputs == {
        "n": expected
    }


@pytest.mark.parametrize("index", ["3", "-1"])
def test_index_out_of_range(index: str, inputs_pb: InputsPb, download: Any) -> None:
    ended = download(inputs_pb(n=([1, 2, 3], list[int])), **MAP, FLYTE_K8S_ARRAY_INDEX=index)
    assert ended.code == 66
    assert ended.message["message"] == f"n: has 3 items, but this is item {index} of the map task."


def test_index_that_is_no_number(inputs_pb: InputsPb, download: Any) -> None:
    ended = download(inputs_pb(n=([1], list[int])), **MAP, FLYTE_K8S_ARRAY_INDEX="x")
    assert (ended.code, ended.message["error"]) == (78, "ConfigError")


def test_skip_leaves_files_where_they_are(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    value = {"out": {"path": "s3://no-such-bucket/x"}, "in": {"path": f"file://{source}/a.txt"}}
    ended = download(inputs_pb(x=(value, dict)), "--skip", "x.out")
    assert ended.code == 0, ended.stderr
    assert ended.inputs["x"]["out"] == {"path": "s3://no-such-bucket/x"}
    assert Path(ended.inputs["x"]["in"]["path"]).read_bytes() == b"a"


def test_manifest(source: Path, inputs_pb: InputsPb, download: Any) -> None:
    a = str(source / "a.txt")
    ended = download(inputs_pb(files=([FlyteFile(a)], list[FlyteFile])))
    manifest = ended.manifest
    assert manifest["total_files"] == len(manifest["files"]) == 1
    assert manifest["total_bytes"] == 1
    (record,) = manifest["files"]
    assert record.pop("seconds") >= 0
    uri = record.pop("uri")
    assert uri.endswith("/a.txt")
    assert record == {
        "input": "files[0]",
        "path": str(download.root / "inputs/files.0/a.txt"),
        "bytes": 1,
    }


def _blob(uri: str, *, multipart: bool = False) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.scalar.blob.uri = uri
    kinds = types_pb2.BlobType.BlobDimensionality
    literal.scalar.blob.metadata.type.dimensionality = (
        kinds.MULTIPART if multipart else kinds.SINGLE
    )
    return literal


def _binary(value: bytes, tag: str) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.scalar.binary.value = value
    literal.scalar.binary.tag = tag
    return literal


def _offloaded(path: Path) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.offloaded_metadata.uri = str(path)
    literal.offloaded_metadata.size_bytes = 1
    return literal
