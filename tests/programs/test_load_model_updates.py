"""How the model loader replaces a model that is being served."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from patience import patient, wait_for

pytest.importorskip("huggingface_hub")


@dataclass
class ModelServer:
    """A server that notes what it is told and answers as it is asked to."""

    port: int = 0
    told: list[tuple[str, Any]] = field(default_factory=list)
    status: int = 200
    refused: str = ""
    """A model that is answered with 400 instead."""
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    state = ModelServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.told.append((self.path, body))
            data = json.dumps(state.answer).encode()
            is_refused = f"/{state.refused}/" in self.path
            self.send_response(400 if is_refused else state.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = listening.server_address[1]
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield state
    listening.shutdown()
    listening.server_close()


@dataclass
class Sidecar:
    """A loader that looks for updates all the time, and what it has published."""

    root: Path
    process: Any

    @property
    def current(self) -> bytes:
        return (self.root / "models" / "current" / "model.bin").read_bytes()

    @property
    def metadata(self) -> Any:
        return json.loads((self.root / "models" / "metadata.json").read_text())

    def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, (self.root / "log").read_text()
            assert time.monotonic() < end, (self.root / "log").read_text() + json.dumps(
                self.metadata["updates"]
            )
            time.sleep(0.02)


@pytest.fixture
def serve(load: Any, hub: Any, tmp_path: Path) -> Callable[..., Sidecar]:
    def start(*arguments: str) -> Sidecar:
        with (tmp_path / "log").open("a") as log:
            before = log.tell()
            process = load.start(
                "owner/name", "--update-interval", "0.3", *arguments, stderr=log, **hub.environ
            )
        sidecar = Sidecar(tmp_path, process)
        wait_for(
            # the file `.ready` may be an earlier loader's
            lambda: b"load_model ready" in (tmp_path / "log").read_bytes()[before:],
            30,
            otherwise=(tmp_path / "log").read_text,
        )
        return sidecar

    return start


def test_a_new_revision_is_swapped_in_and_the_old_one_kept(hub: Any, serve: Any) -> None:
    first = hub.commit({"model.bin": b"first"})
    sidecar = serve()
    old = (sidecar.root / "models" / "current").resolve()
    second = hub.commit({"model.bin": b"second"})
    sidecar.until(lambda: sidecar.metadata["revision"] == second)
    assert sidecar.current == b"second"
    assert (old / "model.bin").read_bytes() == b"first"
    assert first != second
    assert sidecar.metadata["updates"]["notifies"].startswith("no server is told")
    third = hub.commit({"model.bin": b"third"})
    sidecar.until(lambda: sidecar.metadata["revision"] == third)
    assert not old.exists()  # nobody's any more, and there is no limit that would remove it


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("triton", "/v2/repository/models/name/load"),
        ("mlserver", "/v2/repository/models/name/load"),
        ("sglang", "/update_weights_from_disk"),
    ],
)
def test_the_server_is_told_in_its_own_way(
    hub: Any, serve: Any, server: ModelServer, kind: str, path: str
) -> None:
    hub.commit({"model.bin": b"first"})
    sidecar = serve("--notify", f"{kind}={server.url}")
    second = hub.commit({"model.bin": b"second"})
    sidecar.until(lambda: sidecar.metadata["revision"] == second)
    assert [told for told, _ in server.told] == [path]
    if kind == "sglang":
        assert server.told[0][1] == {
            "model_path": str((sidecar.root / "models" / "current").resolve())
        }


def test_each_model_of_a_repository_is_told(hub: Any, serve: Any, server: ModelServer) -> None:
    hub.commit({"model.bin": b"first", "a/1/x": b"1", "b/1/x": b"1"})
    sidecar = serve(
        "--notify", f"mlserver={server.url}", "--model-name", "a", "--model-name", "b c"
    )
    second = hub.commit({"model.bin": b"second", "a/1/x": b"2", "b/1/x": b"2"})
    sidecar.until(lambda: sidecar.metadata["revision"] == second)
    assert [told for told, _ in server.told] == [
        f"/v2/repository/models/{name}/load" for name in ("a", "b%20c")
    ]


def test_triton_is_shown_directories_that_are_newer_than_all_before(
    hub: Any, serve: Any, server: ModelServer
) -> None:
    """Triton reloads only what is newer: `ModelTimestamp::IsModified`, triton core 26.06."""
    files = {"model.bin": b"first", "a/config.pbtxt": b"", "a/1/x": b"1"}
    first = hub.commit(files)
    sidecar = serve("--notify", f"triton={server.url}", "--model-name", "a")
    model = sidecar.root / "models" / "current" / "a"
    old = model.resolve()
    second = hub.commit({**files, "a/1/x": b"2"})
    sidecar.until(lambda: sidecar.metadata["revision"] == second)
    newest = max((model / part).stat().st_mtime_ns for part in ("", "1", "1/x", "config.pbtxt"))
    revisions = f"api/models/{hub.repository}/revision"
    hub.web.files[f"{revisions}/main"] = hub.web.files[
        f"{revisions}/{first}"
    ]  # whose files are in the cache
    sidecar.until(lambda: sidecar.metadata["revision"] == first)
    assert model.resolve() == old
    assert (old / "1" / "x").stat().st_mtime_ns < newest
    assert all((old / part).stat().st_mtime_ns > newest for part in ("", "1"))


def test_whoever_took_a_refused_version_takes_the_old_one_back(
    hub: Any, serve: Any, server: ModelServer
) -> None:
    first = hub.commit({"model.bin": b"first"})
    server.refused = "b"
    sidecar = serve("--notify", f"mlserver={server.url}", "--model-name", "a", "--model-name", "b")
    hub.commit({"model.bin": b"second"})
    sidecar.until(lambda: sidecar.metadata["updates"]["refused"])
    assert [told.split("/")[4] for told, _ in server.told] == ["a", "b", "a"]
    assert (sidecar.current, sidecar.metadata["revision"]) == (b"first", first)


@pytest.mark.parametrize(
    ("status", "answer"), [(400, {"error": "bad weights"}), (200, {"success": False})]
)
def test_a_refusal_brings_the_old_version_back(
    hub: Any, serve: Any, server: ModelServer, status: int, answer: dict[str, Any]
) -> None:
    first = hub.commit({"model.bin": b"first"})
    server.status, server.answer = status, answer
    sidecar = serve("--notify", f"sglang={server.url}")
    second = hub.commit({"model.bin": b"second"})
    sidecar.until(lambda: sidecar.metadata["updates"]["refused"])
    assert (sidecar.current, sidecar.metadata["revision"]) == (b"first", first)
    assert sidecar.metadata["updates"]["refused"]["model"]["revision"] == second
    polls = sidecar.metadata["updates"]["polls"]
    sidecar.until(lambda: sidecar.metadata["updates"]["polls"] > polls + 1)
    assert len(server.told) == 1  # it is not asked again about what it has refused
    server.status, server.answer = 200, {"success": True}
    third = hub.commit({"model.bin": b"third"})
    sidecar.until(lambda: sidecar.metadata["revision"] == third)
    assert sidecar.metadata["updates"]["refused"] == {}


def test_a_server_that_does_not_answer_is_asked_again(
    hub: Any, serve: Any, server: ModelServer
) -> None:
    hub.commit({"model.bin": b"first"})
    sidecar = serve("--notify", "triton=http://127.0.0.1:9")
    hub.commit({"model.bin": b"second"})
    sidecar.until(lambda: sidecar.metadata["updates"]["failed_polls"] > 1)
    assert sidecar.current == b"first"
    assert "ServerNotReadyError" in sidecar.metadata["updates"]["last_error"]


@pytest.mark.parametrize("failure", ["hub", "corrupt"])
def test_a_failed_poll_disturbs_nothing(hub: Any, serve: Any, failure: str) -> None:
    first = hub.commit({"model.bin": b"first"})
    sidecar = serve("--attempts", "2")
    if failure == "hub":
        hub.refuse("api/models/owner/name/revision/main", 500)
    else:
        hub.commit({"model.bin": b"second"})
        hub.web.faults[hub.stored(b"second")] = ["corrupt"] * 2
    sidecar.until(lambda: sidecar.metadata["updates"]["failed_polls"] > 0)
    assert (sidecar.metadata["revision"], sidecar.current) == (first, b"first")
    assert sidecar.metadata["updates"]["last_error"]
    hub.web.answers.pop("api/models/owner/name/revision/main", None)
    third = hub.commit({"model.bin": b"third"})
    sidecar.until(lambda: sidecar.metadata["revision"] == third)
    assert sidecar.metadata["updates"]["last_error"] == ""


@pytest.mark.parametrize("body", [b"[]", b"{}", b"<html>", b'{"id": 5, "sha": [], "siblings": 3}'])
def test_an_answer_that_nobody_expects_disturbs_nothing(hub: Any, serve: Any, body: bytes) -> None:
    first = hub.commit({"model.bin": b"first"})
    sidecar = serve("--attempts", "1")
    hub.web.files["api/models/owner/name/revision/main"] = body
    sidecar.until(lambda: sidecar.metadata["updates"]["failed_polls"] > 1)
    assert (sidecar.metadata["revision"], sidecar.current) == (first, b"first")
    second = hub.commit({"model.bin": b"second"})
    sidecar.until(lambda: sidecar.metadata["revision"] == second)


@pytest.mark.parametrize(
    ("text", "is_mended"), [('{"updates": 5}', True), ('{"updates": {}}', False)]
)
def test_metadata_that_cannot_be_read_disturb_nothing(
    hub: Any, serve: Any, text: str, is_mended: bool
) -> None:
    first = hub.commit({"model.bin": b"first"})
    sidecar = serve()
    (sidecar.root / "models" / "metadata.json").write_text(text)
    if is_mended:
        sidecar.until(lambda: sidecar.metadata.get("revision") == first)
    else:
        sidecar.until(
            lambda: (sidecar.root / "log").read_text().count("poll failed error=KeyError") > 1
        )
    assert sidecar.current == b"first"


def test_an_adapter_is_loaded_into_a_running_vllm(
    hub: Any, serve: Any, server: ModelServer, tmp_path: Path
) -> None:
    adapter = {"adapter_config.json": b"{}", "adapter_model.bin": b"1"}
    hub.commit({"model.bin": b"first"})
    hub.commit(adapter, repository="a/lora")
    loras = tmp_path / "loras"
    sidecar = serve(
        "--adapter",
        "sql=a/lora",
        "--adapters-directory",
        str(loras),
        "--notify",
        f"vllm-lora={server.url}",
    )
    hub.commit({**adapter, "adapter_model.bin": b"2"}, repository="a/lora")
    sidecar.until(lambda: server.told)
    assert server.told[0][0] == "/v1/load_lora_adapter"
    assert server.told[0][1]["lora_name"] == "sql"
    assert server.told[0][1]["load_inplace"] is True
    sidecar.until(lambda: (loras / "sql" / "adapter_model.bin").read_bytes() == b"2")


def test_a_reader_never_sees_a_half_model(hub: Any, serve: Any) -> None:
    files = [
        {f"{name}.bin": bytes([n]) * 300_000 for name in ("model", "a", "b")} for n in range(4)
    ]
    hub.commit(files[0])
    sidecar = serve()
    over, seen, broken = threading.Event(), set(), []

    def read() -> None:
        while not over.is_set():
            current = (sidecar.root / "models" / "current").resolve()
            found = {path.name: path.read_bytes() for path in current.iterdir()}
            seen.add(found["model.bin"][:1])
            if found not in files:
                broken.append(sorted(found))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for further in files[1:]:
            revision = hub.commit(further)
            sidecar.until(lambda revision=revision: sidecar.metadata["revision"] == revision)
    finally:
        over.set()
        reader.join()
    assert (broken, len(seen)) == ([], 4)


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.4, 0.6])
def test_it_ends_at_once_between_and_during_polls(delay: float, hub: Any, serve: Any) -> None:
    hub.commit({"model.bin": b"first"})
    sidecar = serve()
    time.sleep(delay)
    begun = time.monotonic()
    sidecar.process.send_signal(signal.SIGTERM)
    assert sidecar.process.wait(patient(10)) == 143
    assert time.monotonic() - begun < patient(1)


def test_a_restarted_loader_tells_the_server_that_went_on(
    hub: Any, load: Any, server: ModelServer
) -> None:
    hub.commit({"model.bin": b"first"})
    notify = ("--notify", f"triton={server.url}", "--model-name", "m")
    assert load("owner/name", *notify, **hub.environ).code == 0
    assert server.told == []
    hub.commit({"model.bin": b"second"})
    assert load("owner/name", *notify, **hub.environ).files == {"model.bin": b"second"}
    assert [path for path, _ in server.told] == ["/v2/repository/models/m/load"]
