"""llama.cpp's server, by its real command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference import ModelInferenceTemplate
from flytekitplugins.inference.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flytekitplugins.inference.flyte.local import LocalServer

pytestmark = pytest.mark.live


def describe(servers: Any, startup: Any, *options: str, **fields: Any) -> ModelInferenceTemplate:
    model = servers.model("llamacpp", "llama-gguf") / "model.gguf"
    command = ["llama-server", "--model", str(model), "--host", "127.0.0.1", "--port", "8080", "--threads", "1"]
    given: dict[str, Any] = {"probes": startup("/health"), "termination_grace_period": 20, **fields}
    return ModelInferenceTemplate(
        image="llama.cpp", command=[*command, *options], port=8080, gpu=0, health_endpoint="/health", **given
    )


@pytest.fixture(scope="module")
def server(servers: Any, startup: Any) -> Iterator[LocalServer]:
    adapter = servers.model("llamacpp", "adapter-gguf", "--step=-1") / "adapter.gguf"
    # not --lora-init-without-apply, which leaves adapters applied: https://github.com/ggml-org/llama.cpp/issues/28674
    options = ["--alias", "tiny", "--metrics", "--lora-scaled", f"{adapter}:0"]
    template = describe(servers, startup, *options, env={"LLAMA_ARG_CTX_SIZE": "512"})
    with servers.running("llamacpp", template) as running:
        yield running


def post(server: LocalServer, path: str, **body: Any) -> Any:
    answer = requests.post(f"{server.base_url}{path}", json={"model": "tiny", "max_tokens": 20, **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def complete(server: LocalServer, prompt: str, **body: Any) -> Any:
    (choice,) = post(server, "/v1/completions", prompt=prompt, **body)["choices"]
    return choice["text"], choice["finish_reason"]


def test_it_is_healthy_and_gives_the_model_its_name(server: LocalServer) -> None:
    assert requests.get(f"{server.base_url}/health", timeout=10).json() == {"status": "ok"}
    models = requests.get(f"{server.base_url}/v1/models", timeout=10).json()["data"]
    assert [model["id"] for model in models] == ["tiny"]


def test_a_completion_goes_on_counting(server: LocalServer) -> None:
    assert complete(server, "one two") == (" three four five six seven eight", "stop")
    assert complete(server, "one two", max_tokens=2) == (" three four", "length")


def test_a_chat_goes_through_the_template(server: LocalServer) -> None:
    answer = post(server, "/v1/chat/completions", messages=[{"role": "user", "content": "Go on: two"}])
    assert answer["choices"][0]["message"]["content"] == " one two three four five six seven eight"


def test_an_adapter_counts_backwards_for_the_request_that_asks_for_it(server: LocalServer) -> None:
    assert complete(server, "one two three four", lora=[{"id": 0, "scale": 1.0}]) == (" three two one", "stop")
    assert complete(server, "one two three four") == (" five six seven eight", "stop")


def test_it_reads_its_variables(server: LocalServer) -> None:
    slots = requests.get(f"{server.base_url}/slots", timeout=10).json()
    assert {slot["n_ctx"] for slot in slots} == {512}


def test_its_metrics_are_those_that_were_saved(
    server: LocalServer, metric_names: Callable[[str], set[str]], saved_metrics: Callable[[str], str]
) -> None:
    complete(server, "one")
    page = requests.get(f"{server.base_url}/metrics", timeout=10).text
    assert metric_names(page) == metric_names(saved_metrics("llamacpp"))
    (line,) = (line for line in page.splitlines() if line.startswith("llamacpp:tokens_predicted_total "))
    assert float(line.split()[1]) >= 8


def test_an_unknown_option_is_refused_in_its_own_words(servers: Any, startup: Any) -> None:
    template = describe(servers, startup, "--no-such-option")
    with (
        servers.on_path("llamacpp"),
        pytest.raises(ServerError, match="invalid argument: --no-such-option"),
        template.run_locally(),
    ):
        pytest.fail("it started")
