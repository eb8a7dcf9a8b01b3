"""A pod with a model loader and a gate, on one machine, from the manifest that a cluster gets."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flytekit.types.file import FlyteFile

from flytekitplugins.inference import ModelInferenceTemplate, ServerExitedError
from patience import patient
from users.minimal import ECHO, ask


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model in a directory that stands for an object store."""
    folder = tmp_path / "store" / "ranker"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"layers": 2}')
    (folder / "weights.bin").write_bytes(b"weights" * 1000)
    return folder


def _template(model: Path, **options: Any) -> ModelInferenceTemplate:
    return replace(
        ECHO, model=f"file://{model}", command=(*ECHO.command, "$(INFERENCE_MODEL_PATH)"), **options
    )


def _events(pod: Any) -> list[tuple[str, str]]:
    return [
        (event.container, event.kind)
        for event in pod.events
        if event.kind in ("started", "passed", "exited")
    ]


def test_by_probes_the_model_is_there_before_the_server_starts(model: Path) -> None:
    template = _template(model)
    with template.run_locally() as server:
        (path,) = ask(template)["arguments"]
        assert (Path(path) / "config.json").read_text() == '{"layers": 2}'
        metadata = json.loads(server.pod.path("/models/metadata.json").read_text())
        assert metadata["bytes"] == 7013
        order = _events(server.pod)
    assert order[:4] == [
        ("model-loader", "started"),
        ("model-loader", "passed"),
        ("model-server", "started"),
        ("model-server", "passed"),
    ]


def test_a_file_of_a_web_server_is_brought(model: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(model))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_port}/weights.bin?sig=geheim"
        template = replace(_template(model, startup_timeout=60), model=url)
        with template.run_locally() as server:
            (path,) = ask(template)["arguments"]
            assert (Path(path) / "weights.bin").read_bytes() == b"weights" * 1000
            metadata = server.pod.path("/models/metadata.json").read_text()
            assert "geheim" not in metadata
        web.shutdown()
    assert [name for name, kind in _events(server.pod) if kind == "started"][:2] == [
        "preflight",
        "model-loader",
    ]


def test_by_a_gate_all_start_at_once_and_the_report_has_the_phases(model: Path) -> None:
    template = _template(model, startup_timeout=round(patient(15)), download_inputs=True)
    with template.run_locally({"numbers": [1]}) as server:
        assert ask(template)["inputs"] == {"numbers": [1]}
        started = [name for name, kind in _events(server.pod) if kind == "started"]
        report = json.loads(server.pod.path("/shared/cold-start.json").read_text())
    assert started == [
        "preflight",
        "model-loader",
        "model-server",
        "input-downloader",
        "server-gate",
        "primary",
    ]
    assert report["outcome"] == "ready"
    phases = {phase["name"] for phase in report["phases"]}
    assert {"input_download", "server_load"} <= phases
    assert any(name.startswith("loader.") for name in phases)


@pytest.mark.parametrize("budget", [None, round(patient(15))])
def test_an_input_of_the_task_is_the_model(model: Path, budget: int | None) -> None:
    template = replace(
        _template(model, startup_timeout=budget, download_inputs=True), model="input:weights"
    )
    with template.run_locally({"weights": FlyteFile(str(model / "weights.bin"))}):
        (path,) = ask(template)["arguments"]
        assert [file.read_bytes()[:7] for file in Path(path).rglob("*.bin")] == [b"weights"]


def test_a_model_that_is_not_there_ends_the_start_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # also below a task's function: the local pod is no execution of Flyte's
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "f1b2c3")
    template = _template(tmp_path / "nowhere", startup_timeout=round(patient(15)))
    with pytest.raises(ServerExitedError) as caught, template.run_locally():
        pass
    assert "preflight ended with exit code 66" in str(caught.value)
    assert str(caught.value).count("There is nothing at") == 1
    assert "nowhere" in str(caught.value)


def test_a_loader_that_fails_ends_the_start_with_its_own_words(model: Path) -> None:
    template = replace(
        _template(model, startup_timeout=round(patient(15)), download_inputs=True),
        model="input:missing",
    )
    with pytest.raises(ServerExitedError) as caught, template.run_locally({"numbers": [1]}):
        pass
    assert "server-gate ended with exit code" in str(caught.value)
    assert "The model loader failed" in str(caught.value)
    assert "missing" in str(caught.value)


def test_a_server_that_never_answers_ends_the_start_when_its_budget_is_over(model: Path) -> None:
    template = replace(
        _template(model, startup_timeout=round(patient(1))),
        command=["python", "-c", "import time; time.sleep(60)"],
    )
    with pytest.raises(ServerExitedError) as caught, template.run_locally():
        pass
    assert "server-gate" in str(caught.value)
    assert "refused" in str(caught.value)
