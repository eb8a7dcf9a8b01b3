"""`VLLM` and vLLM for CPUs: the compiled pod, run as processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference.facts.metric_names import names_of
from patience import patient

if TYPE_CHECKING:
    from collections.abc import Callable

    from flytekitplugins.inference.flyte.local_run import LocalServer

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(900)]


def post(server: LocalServer, path: str, **body: Any) -> requests.Response:
    return requests.post(f"{server.base_url}{path}", json=body, timeout=patient(120))


def complete(server: LocalServer, prompt: str, *, model: str = "tiny", **body: Any) -> Any:
    answer = post(
        server, "/v1/completions", model=model, prompt=prompt, **{"max_tokens": 20, **body}
    )
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return choice["text"], choice["finish_reason"]


def test_it_is_healthy_and_names_its_models(vllm_server: LocalServer) -> None:
    assert requests.get(f"{vllm_server.base_url}/health", timeout=patient(10)).status_code == 200
    models = requests.get(f"{vllm_server.base_url}/v1/models", timeout=patient(10)).json()["data"]
    assert [(model["id"], model["parent"]) for model in models] == [
        ("tiny", None),
        ("back", "tiny"),
    ]


def test_a_completion_goes_on_counting(vllm_server: LocalServer) -> None:
    assert complete(vllm_server, "one two") == (" three four five six seven eight", "stop")
    assert complete(vllm_server, "one two", max_tokens=2) == (" three four", "length")


def test_a_chat_goes_through_the_template(vllm_server: LocalServer) -> None:
    messages = [{"role": "user", "content": "Go on: two"}]
    answer = post(
        vllm_server, "/v1/chat/completions", model="tiny", messages=messages, max_tokens=20
    ).json()
    assert answer["choices"][0]["message"]["content"] == " one two three four five six seven eight"


def test_requests_of_many_are_answered_each_with_its_own(vllm_server: LocalServer) -> None:
    """Batched together in the engine, also with an adapter for some."""
    wanted = {
        ("one", "tiny"): " two three four five six seven eight",
        ("one two three", "tiny"): " four five six seven eight",
        ("one two three", "back"): " two one",
        ("seven", "back"): " six five four three two one",
    }
    asked = list(wanted) * 4
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda each: complete(vllm_server, each[0], model=each[1]), asked))
    assert answers == [(wanted[each], "stop") for each in asked]


def test_adapters_come_and_go_while_it_runs(vllm_server: LocalServer, servers: Any) -> None:
    twos = str(servers.model("vllm", "adapter", "--step=2"))
    assert (
        post(vllm_server, "/v1/load_lora_adapter", lora_name="twos", lora_path=twos).status_code
        == 200
    )
    assert complete(vllm_server, "one", model="twos") == (" three five seven", "stop")
    assert post(vllm_server, "/v1/unload_lora_adapter", lora_name="twos").status_code == 200
    assert post(vllm_server, "/v1/completions", model="twos", prompt="one").status_code == 404


def test_its_metrics_are_those_that_were_saved(
    vllm_server: LocalServer,
    metric_names: Callable[[str], set[str]],
    saved_metrics: Callable[[str], str],
) -> None:
    page = requests.get(f"{vllm_server.base_url}/metrics", timeout=patient(10)).text
    assert metric_names(saved_metrics("vllm-cpu")) <= metric_names(page)
    names = vllm_server.template.server().metric_names
    assert names
    assert all(metric_names(page) & {*names_of(names, quantity)} for quantity in names)
