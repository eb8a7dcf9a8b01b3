"""Models that a hub keeps in xet; the store speaks the part of its protocol that downloads need."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.programs.stores.hub_store import xet_buffers
from patience import patient, wait_for

hub_api = pytest.importorskip("huggingface_hub.hf_api")
hf_xet = pytest.importorskip("hf_xet")
pytestmark = pytest.mark.skipif(
    "xet_hash" not in hub_api.RepoFile.__dataclass_fields__ or not hasattr(hf_xet, "XetSession"),
    reason="this huggingface_hub does not tell what is in xet, or this hf_xet hands out no streams",
)

MIB = 1024 * 1024
CHUNK = 64 * 1024
DATA = random.Random(3).randbytes(20 * MIB)


def _frame(chunk: bytes) -> bytes:
    """Return a chunk as it lies in a xorb: version 0, both lengths, not compressed."""
    size = len(chunk).to_bytes(3, "little")
    return b"\0" + size + b"\0" + size + chunk


@dataclass
class Xet:
    """A xet store in which each file is a xorb of its own.

    Source: github.com/huggingface/xet-core `spec`, "Download Protocol" and "Xorb Format".
    """

    files: dict[str, bytes] = field(default_factory=dict)
    sent: int = 0
    faults: list[str] = field(default_factory=list)
    port: int = 0
    bytes_per_second: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, data: bytes) -> str:
        name = hashlib.sha256(b"xet" + data).hexdigest()
        self.files[name] = data
        return name

    def plan(self, name: str, start: int, end: int) -> dict[str, Any]:
        first, last = start // CHUNK, -(-end // CHUNK)
        data = self.files[name]
        chunks = {"start": first, "end": last}
        frame = CHUNK + 8
        size = len(data) + 8 * -(-len(data) // CHUNK)
        where = {"start": first * frame, "end": min(last * frame, size) - 1}
        length = min(last * CHUNK, len(data)) - first * CHUNK
        return {
            "offset_into_first_range": start - first * CHUNK,
            "terms": [{"hash": name, "unpacked_length": length, "range": chunks}],
            "fetch_info": {
                name: [{"range": chunks, "url": f"{self.url}/xorb/{name}", "url_range": where}]
            },
        }

    def xorb(self, name: str) -> bytes:
        data = self.files[name]
        return b"".join(_frame(data[start : start + CHUNK]) for start in range(0, len(data), CHUNK))


@pytest.fixture
def xet() -> Iterator[Xet]:  # noqa: C901 (a class in a function)
    state = Xet()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None: ...

        def do_GET(self) -> None:
            kind, _, name = self.path[1:].rpartition("/")
            first, _, last = (
                self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            )
            if kind == "v1/reconstructions":
                size = len(state.files[name])
                start, end = int(first), min(int(last or size - 1) + 1, size)
                self.answer(200, json.dumps(state.plan(name, start, end)).encode())
            elif kind == "xorb":
                self.content(state.xorb(name)[int(first) : int(last) + 1])
            else:
                self.answer(404, b"")

        def content(self, data: bytes) -> None:
            fault = state.faults.pop(0) if state.faults else ""
            if fault == "stall":
                over.wait(patient(30))
            if fault == "corrupt":
                data = data[:8] + bytes([data[8] ^ 1]) + data[9:]
            if state.bytes_per_second:
                time.sleep(len(data) / state.bytes_per_second)
            self.answer(
                int(fault) if fault.isdecimal() else 206, b"" if fault.isdecimal() else data
            )
            state.sent += len(data)

        def answer(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def environ(hub: Any, xet: Xet) -> dict[str, str]:
    """A commit of one large file in xet and a small one beside it."""
    hub.xet[DATA] = xet.put(DATA)
    sha = hub.commit({"config.json": b"{}", "model.bin": DATA})
    token = {"accessToken": "t", "exp": int(time.time()) + 3600, "casUrl": xet.url}
    hub.web.files[f"api/models/owner/name/xet-read-token/{sha}"] = json.dumps(token).encode()
    return {**hub.environ, "HF_HUB_DISABLE_XET": "0"}


FILES = {"config.json": b"{}", "model.bin": DATA}


def test_what_is_in_xet_comes_from_there(
    hub: Any, xet: Xet, load: Any, environ: dict[str, str]
) -> None:
    done = load("owner/name", **environ)
    assert done.code == 0, done.stderr
    assert done.files == FILES
    assert hub.web.count(hub.stored(DATA)) == 0
    assert xet.sent >= len(DATA)


def test_without_xet_the_same_files_come_over_http(
    hub: Any, xet: Xet, load: Any, environ: dict[str, str]
) -> None:
    assert load("owner/name", **{**environ, "HF_HUB_DISABLE_XET": "1"}).files == FILES
    assert xet.sent == 0


def test_what_xet_rebuilds_wrongly_is_fetched_again(
    xet: Xet, load: Any, environ: dict[str, str]
) -> None:
    xet.faults.append("corrupt")
    done = load("owner/name", **environ)
    assert done.files == FILES
    assert "corrupt" in done.stderr


def test_a_stall_of_xet_is_noticed(xet: Xet, load: Any, environ: dict[str, str]) -> None:
    xet.faults += ["stall"] * 2
    begun = time.monotonic()
    done = load("owner/name", "--stall-timeout", "2", **environ)
    assert done.files == FILES
    assert "slower connections" in done.stderr
    assert time.monotonic() - begun < patient(30)


def test_a_killed_download_from_xet_goes_on_where_it_was(
    xet: Xet, load: Any, environ: dict[str, str]
) -> None:
    xet.bytes_per_second = 8 * MIB
    process = load.start(
        "owner/name", "--once", "--jobs", "1", stderr=subprocess.DEVNULL, **environ
    )
    wait_for(lambda: xet.sent >= 16 * MIB, 30)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before, xet.bytes_per_second = xet.sent, 0.0
    assert load("owner/name", **environ).files == FILES
    assert xet.sent - before < len(DATA)


def test_a_gated_model_in_xet_is_told_as_such(hub: Any, load: Any, environ: dict[str, str]) -> None:
    path = next(path for path in hub.web.files if "xet-read-token" in path)
    hub.refuse(path, 403, "GatedRepo")
    done = load("owner/name", **environ)
    assert (done.code, done.message["error"]) == (77, "GatedModelError")


def test_a_check_reads_no_more_than_a_chunk(
    hub: Any, xet: Xet, load: Any, environ: dict[str, str], tmp_path: Path
) -> None:
    done = load.wait(load.start("--check", "owner/name", **environ))
    assert done.code == 0, done.stderr
    assert f"check passed missing_bytes={len(DATA) + 2}" in done.stderr
    assert 0 < xet.sent <= CHUNK + 8
    assert not (tmp_path / "cache").exists()
    hub.refuse(next(path for path in hub.web.files if "xet-read-token" in path), 403, "GatedRepo")
    done = load.wait(load.start("--check", "owner/name", **environ))
    assert (done.code, done.message["error"]) == (77, "GatedModelError")


def test_buffers_of_xet_stay_within_the_container() -> None:
    names = [
        f"HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_{part}"
        for part in ("SIZE", "PERFILE_SIZE", "LIMIT")
    ]
    assert xet_buffers(1024 * MIB) == dict(
        zip(names, map(str, (128 * MIB, 32 * MIB, 256 * MIB)), strict=True)
    )
    assert int(xet_buffers(None)[names[0]]) == 256 * MIB
    assert int(xet_buffers(64 * MIB)[names[0]]) == 32 * MIB
