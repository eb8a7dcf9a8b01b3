"""Every way to fail: exit code, the error's name, its message, and nothing half-written."""

from __future__ import annotations

import http.server
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flyteidl.core import literals_pb2
from flytekit.types.directory import FlyteDirectory
from flytekit.types.file import FlyteFile

InputsPb = Callable[..., str]


@pytest.fixture(autouse=True)
def _nothing_is_left(download: Any) -> Any:
    """An earlier run's results are gone and there are no new ones."""
    shared = download.root / "shared"
    shared.mkdir()
    for name in ("inputs.json", "inputs.manifest.json"):
        (shared / name).write_text("{}")
    yield
    if not {0, 64} & {process.returncode for process in download.processes}:
        assert list(shared.iterdir()) == []


def _check(ended: Any, code: int, error: str, *texts: str) -> None:
    assert (ended.code, ended.message["error"]) == (code, error), ended.stderr
    for text in texts:
        assert text in ended.message["message"]
    assert ended.message["program"] == "download_inputs"
    assert "Traceback" not in ended.stderr


def test_inputs_pb_is_missing(s3: Any, web: Any, download: Any, tmp_path: Path) -> None:
    _check(download(f"{tmp_path}/none/inputs.pb"), 66, "SourceNotFoundError", "none/inputs.pb")
    _check(
        download("s3://bucket/none.pb", **s3.environ),
        66,
        "SourceNotFoundError",
        "s3://bucket/none.pb",
    )
    _check(
        download("s3://no-bucket/none.pb", **s3.environ),
        66,
        "SourceNotFoundError",
        "s3://no-bucket/none.pb",
    )
    _check(download(web.url("none.pb")), 66, "SourceNotFoundError", "none.pb (404")
    _check(download(str(tmp_path)), 66, "InvalidSourceError", "is a directory")


@pytest.mark.parametrize(
    "data",
    [b"<html>", b"\x00", b"hello", b"\x12\x03abc", b"\x0a\x05abc", b"\x0a", b"{}", b"\x08\x01"],
)
def test_inputs_pb_is_something_else(data: bytes, download: Any, tmp_path: Path) -> None:
    (tmp_path / "inputs.pb").write_bytes(data)
    _check(
        download(f"{tmp_path}/inputs.pb"),
        66,
        "InvalidSourceError",
        f"{len(data)} bytes are not a Flyte LiteralMap",
    )


def test_inputs_pb_is_truncated(inputs_pb: InputsPb, download: Any) -> None:
    path = Path(inputs_pb(x=("text" * 100, str)))
    path.write_bytes(path.read_bytes()[:-10])
    _check(download(str(path)), 66, "InvalidSourceError", "not a Flyte LiteralMap")


def test_unknown_kinds_name_the_input(inputs_pb: InputsPb, download: Any) -> None:
    nothing, scalar, union, primitive, garbage, odd_key = (literals_pb2.Literal() for _ in range(6))
    scalar.scalar.SetInParent()
    union.scalar.union.SetInParent()
    primitive.scalar.primitive.SetInParent()
    garbage.scalar.binary.tag = "msgpack"
    garbage.scalar.binary.value = b"\xc1"
    odd_key.scalar.binary.tag = "msgpack"
    odd_key.scalar.binary.value = b"\x81\x91\x01\x02"  # {[1]: 2}
    outer = literals_pb2.Literal()
    for literal in (nothing, scalar, union, primitive, garbage, odd_key):
        outer.Clear()
        outer.map.literals["inner"].collection.literals.append(literal)
        _check(download(inputs_pb(x=outer)), 66, "InvalidSourceError", "x.inner[0]: ")


def test_files_that_do_not_exist_are_all_named(
    s3: Any, web: Any, inputs_pb: InputsPb, download: Any
) -> None:
    uri = inputs_pb(
        a=(FlyteFile("s3://bucket/none"), FlyteFile),
        b=(
            [FlyteFile(web.put("there", b"x")), FlyteFile(web.url("none?token=geheim"))],
            list[FlyteFile],
        ),
        c=({"k": {"path": "s3://bucket/none/"}}, dict),
        d=(FlyteDirectory("s3://bucket/none"), FlyteDirectory),
        e=_blob("/none/at/all"),
    )
    ended = download(uri, **s3.environ)
    _check(
        ended, 66, "SourceNotFoundError", "5 inputs cannot be fetched. a: ", "s3://bucket/none (404"
    )
    for text in (
        "b[1]: ",
        "c.k: There is nothing below s3://bucket/none/",
        "d: ",
        "e: There is nothing at '/none/at/all'",
    ):
        assert text in ended.message["message"]
    assert "geheim" not in ended.stderr
    assert ended.files == {}


def test_many_failures_are_bounded(inputs_pb: InputsPb, download: Any) -> None:
    literal = literals_pb2.Literal()
    for index in range(50):
        literal.collection.literals.append(_blob(f"/none/{index}"))
    _check(
        download(inputs_pb(x=literal)),
        66,
        "SourceNotFoundError",
        "50 inputs cannot be fetched.",
        "and 40 more.",
    )


def test_forbidden(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("bucket/x", b"x")
    web.faults = {"x": ["403"] * 9, "bucket/x": ["403"] * 9, "y": ["401"] * 9}
    environ = {
        "FLYTE_AWS_ENDPOINT": web.url("")[:-1],
        "FLYTE_AWS_ACCESS_KEY_ID": "k",
        "FLYTE_AWS_SECRET_ACCESS_KEY": "s",
    }
    _check(
        download(inputs_pb(f=_blob(web.url("x")))),
        77,
        "SourceForbiddenError",
        "f: Reading",
        "forbidden",
    )
    _check(
        download(inputs_pb(f=_blob(web.url("y")))),
        77,
        "SourceForbiddenError",
        "f: Reading",
        "(401 ",
    )
    _check(
        download(inputs_pb(f=_blob("s3://bucket/x")), **environ),
        77,
        "SourceForbiddenError",
        "f: Reading s3://bucket/x",
    )


def test_larger_than_the_disk(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("x", b"x")
    web.headers["x"] = {"Content-Range": f"bytes 0-0/{2**60}"}
    free = os.statvfs(download.root)
    ended = download(inputs_pb(x=_blob(web.url("x"))))
    _check(ended, 74, "DestinationError", f"{2**60} bytes are needed", "bytes are free")
    present = int(ended.message["message"].split(", but ")[1].split()[0])
    assert present == pytest.approx(free.f_bavail * free.f_frsize, rel=0.2)
    assert web.count("x") == 1


def test_destination_cannot_be_written(inputs_pb: InputsPb, download: Any, tmp_path: Path) -> None:
    uri = inputs_pb(x=_blob("/etc/hostname"))
    (tmp_path / "plain").write_text("")
    _check(
        download(uri, "--directory", f"{tmp_path}/plain/in"),
        74,
        "DestinationError",
        "plain/in cannot be written",
    )
    _check(
        download(uri, "--output", f"{tmp_path}/plain/out.json"),
        74,
        "DestinationError",
        "plain/out.json",
    )


def test_two_downloaders_in_one_directory(web: Any, inputs_pb: InputsPb, download: Any) -> None:
    web.put("slow", b"x" * 1000)
    web.faults["slow"] = ["hold"]
    uri = inputs_pb(x=_blob(web.url("slow")))
    first = download.start(uri)
    while not web.count("slow"):
        assert first.poll() is None
    other = download(uri, "--output", str(download.root / "other.json"))
    _check(other, 74, "DestinationError", "Another process is writing to")
    web.gate.set()
    assert download.wait(first).code == 0


def test_unknown_protocol_and_missing_package(inputs_pb: InputsPb, download: Any) -> None:
    _check(download("nope://x/inputs.pb"), 78, "UnsupportedError", "nope://")
    _check(
        download(inputs_pb(f=_blob("nope://x/y"))),
        78,
        "UnsupportedError",
        "f: No store is known for nope://",
    )
    _check(download(inputs_pb(f=_blob("oss://x/y"))), 78, "MissingDependencyError", "f: ", "ossfs")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--jobs", "0"],
        ["--jobs", "x"],
        ["--nonsense"],
        ["--stall-timeout", "nan"],
        ["--backoff", "-1"],
        ["two"],
        ["--jobs", "257"],
    ],
)
def test_bad_usage(arguments: list[str], download: Any) -> None:
    ended = download("/x", *arguments)
    _check(ended, 64, "UsageError")
    assert ended.message["hint"] == "See download_inputs --help."


def test_output_that_is_no_file(download: Any) -> None:
    _check(download("/x", "--output", "/"), 64, "UsageError", "--output / is not a file")


def test_a_store_that_is_not_configured(inputs_pb: InputsPb, download: Any) -> None:
    pytest.importorskip("adlfs")
    ended = download(inputs_pb(f=_blob("abfs://c/x")), "--attempts", "1")
    _check(ended, 78, "ConfigError", "f: The store of abfs://c/x is not configured")
    assert "FLYTE_AZURE_STORAGE_ACCOUNT_NAME" in ended.message["hint"]


def test_a_package_that_is_missing(tmp_path: Path, inputs_pb: InputsPb, download: Any) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "msgpack.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'msgpack'\")"
    )
    ended = download(inputs_pb(x=({"a": 1}, dict)), PYTHONPATH=str(tmp_path / "hidden"))
    _check(ended, 78, "MissingDependencyError", "No module named 'msgpack'")


def test_a_certificate_that_is_not_trusted(
    tmp_path: Path, inputs_pb: InputsPb, download: Any
) -> None:
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout "
        "k.pem -out c.pem"
    )
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"127.0.0.1:{server.server_address[1]}"
        environ = {"FLYTE_AWS_ENDPOINT": f"https://{address}", "FLYTE_AWS_ACCESS_KEY_ID": "k"}
        environ["FLYTE_AWS_SECRET_ACCESS_KEY"] = "s"
        for uri in (f"https://{address}/x", "s3://bucket/x"):
            ended = download(inputs_pb(f=_blob(uri)), "--backoff", "20", **environ)
            _check(
                ended,
                74,
                "FetchError",
                "f: The certificate of the server of",
                "is not trusted here",
            )
            assert "REQUESTS_CA_BUNDLE" in ended.message["hint"]
    finally:
        server.shutdown()
        server.server_close()


def test_template_that_was_not_rendered(download: Any) -> None:
    _check(download("{{.input}}"), 64, "UsageError", "'{{.input}}' is not an address")


def test_no_answer_at_all(inputs_pb: InputsPb, download: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        environ = {"FLYTE_AWS_ENDPOINT": f"http://127.0.0.1:{port}", "FLYTE_AWS_ACCESS_KEY_ID": "k"}
        environ["FLYTE_AWS_SECRET_ACCESS_KEY"] = "s"
        ended = download(
            inputs_pb(f=_blob("s3://b-b/x"), g=_blob(f"http://127.0.0.1:{port}/x?sig=geheim")),
            **environ,
        )
    _check(
        ended,
        69,
        "SourceUnavailableError",
        "f: The connection for s3://b-b/x was lost",
        "g: ",
        "was lost",
    )
    assert "geheim" not in ended.stderr


def _blob(uri: str) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.scalar.blob.uri = uri
    return literal
