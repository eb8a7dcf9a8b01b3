"""`LlamaCpp` against the real server.

Its pod, with the model loader and the gate, runs as processes on this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference import LlamaCpp
from flytekitplugins.inference.errors import ServerError
from flytekitplugins.inference.facts.metric_names import names_of
from flytekitplugins.inference.llamacpp import options
from patience import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flytekitplugins.inference.flyte.local_run import LocalServer

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def models(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory such as repositories have: two models, of which one is meant, and an adapter."""
    directory = Path(tmp_path_factory.mktemp("repository"))
    model = servers.model("llamacpp", "llama-gguf") / "model.gguf"
    for name in ("tiny-f32.gguf", "tiny-q8_0.gguf"):
        shutil.copy(model, directory / name)
    shutil.copy(
        servers.model("llamacpp", "adapter-gguf", "--step=-1") / "adapter.gguf",
        directory / "back.gguf",
    )
    return directory


def describe(models: Path, **fields: Any) -> LlamaCpp:
    given: dict[str, Any] = {
        "model": f"file://{models}",
        "model_file": "tiny-f32.gguf",
        "arg_dict": {"ctx_size": 512, "alias": "tiny"},
        "startup_timeout": 120,
        "termination_grace_period": 20,
        "gpu": 0,
        "cpu": 1,
        "mem": "1Gi",
    }
    return LlamaCpp(**{**given, **fields})


@pytest.fixture(scope="module")
def server(servers: Any, models: Path) -> Iterator[LocalServer]:
    with servers.running("llamacpp", describe(models, lora_files=["back.gguf"])) as running:
        yield running


def complete(server: LocalServer, prompt: str, **body: Any) -> str:
    answer = requests.post(
        f"{server.base_url}/v1/completions",
        json={"model": "tiny", "prompt": prompt, **body},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def test_the_gate_let_the_named_model_pass(server: LocalServer) -> None:
    models = requests.get(f"{server.base_url}/v1/models", timeout=patient(10)).json()["data"]
    assert [model["id"] for model in models] == ["tiny"]
    props = requests.get(f"{server.base_url}/props", timeout=patient(10)).json()
    assert props["model_path"].endswith("/current/tiny-f32.gguf")


def test_a_chat_is_answered(server: LocalServer) -> None:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Go on: two"}],
        "max_tokens": 20,
    }
    answer = requests.post(
        f"{server.base_url}/v1/chat/completions", json=body, timeout=patient(60)
    ).json()
    assert answer["choices"][0]["message"]["content"] == " one two three four five six seven eight"


def test_adapters_wait_for_a_request_that_asks_for_them(server: LocalServer) -> None:
    assert complete(server, "one two three four", max_tokens=20) == " five six seven eight"
    asking = {"lora": [{"id": 0, "scale": 1.0}]}
    assert complete(server, "one two three four", max_tokens=20, **asking) == " three two one"


def test_its_metrics_are_those_that_were_saved_and_that_the_template_names(
    server: LocalServer, metric_names: Any, saved_metrics: Any
) -> None:
    described = describe(Path("/data/models"), lora_files=["back.gguf"]).server()
    page = requests.get(f"{server.base_url}{described.metrics_path}", timeout=patient(10)).text
    assert metric_names(page) == metric_names(saved_metrics("llamacpp"))
    names = described.metric_names
    assert names
    assert all(metric_names(page) & {*names_of(names, quantity)} for quantity in names)


def test_a_probed_start_works_as_well(servers: Any, startup: Any, models: Path) -> None:
    template = describe(models, startup_timeout=None, probes=startup("/health"))
    with servers.running("llamacpp", template) as server:
        assert complete(server, "one two", max_tokens=2) == " three four"


def test_a_file_that_the_model_lacks_is_named_by_the_server(servers: Any, models: Path) -> None:
    template = describe(models, model_file="tiny-q4_k_m.gguf")
    with (
        servers.on_path("llamacpp"),
        pytest.raises(ServerError, match=r"tiny-q4_k_m\.gguf"),
        template.run_locally(),
    ):
        pytest.fail("it started")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_ram", 64),
        ("parallel", 2),
        ("jinja", False),
        ("no_kv_offload", True),
        ("temp", 0),
        ("fa", "off"),
    ],
)
def test_options_become_what_the_real_parser_takes(
    servers: Any, models: Path, name: str, value: Any
) -> None:
    arg_dict = {"alias": "tiny", "ctx_size": 512, name: value}
    with servers.running("llamacpp", describe(models, arg_dict=arg_dict)) as server:
        assert complete(server, "one two", max_tokens=1) == " three"


def test_the_options_are_those_of_the_installed_server(servers: Any) -> None:
    root = Path(__file__).parents[2]
    path = f"{servers.environment('llamacpp') / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dev.options", "llamacpp", options.VERSION]
    environ = {**os.environ, "PATH": path}
    done = subprocess.run(
        command, cwd=root, env=environ, check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout == Path(options.__file__).read_text()
