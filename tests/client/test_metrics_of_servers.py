"""The same metrics on both sides: what a report and a batch read of each server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from client.stub import Stub, send
from flytekitplugins.inference import (
    NIM,
    TEI,
    VLLM,
    LlamaCpp,
    MLServer,
    ModelInferenceTemplate,
    NIMSecrets,
    Server,
    SGLang,
    Triton,
    installed_servers,
)
from flytekitplugins.inference.client.batch import chat
from flytekitplugins.inference.client.batch.caller import Caller
from flytekitplugins.inference.client.endpoint import Endpoint
from flytekitplugins.inference.client.report import sampling
from flytekitplugins.inference.facts.metric_names import FAMILIES, names_of

pytestmark = pytest.mark.filterwarnings("ignore::flytekitplugins.inference.InferenceWarning")


@dataclass(frozen=True, kw_only=True)
class _Acme(ModelInferenceTemplate):
    """A server of another distribution."""

    def server(self) -> Server:
        names = {
            "requests_waiting": "acme_queue",
            "requests_running": ("acme_busy", "acme_at_work"),
        }
        return Server(metrics_path="/stats", metric_names=names)


SERVERS: dict[str, Callable[[], ModelInferenceTemplate]] = {
    "vllm": lambda: VLLM(gpu=0),
    "sglang": lambda: SGLang(arg_dict={"model_path": "/opt/m"}),
    "llamacpp": lambda: LlamaCpp(arg_dict={"model": "/opt/m.gguf"}),
    "nim": lambda: NIM(
        image="nvcr.io/nim/a/b:1",
        secrets=NIMSecrets(ngc_secret_key="key", ngc_image_secret="image", secrets_prefix="_X_"),
    ),
    "tei": lambda: TEI(arg_dict={"model_id": "a/b"}),
    "triton": lambda: Triton(model_repository="/opt/models"),
    "mlserver": lambda: MLServer(model_repository="/opt/models", model_names=["a"]),
    "acme": lambda: _Acme(image="acme:1", gpu=0),
}
WITHOUT_METRICS = {"ollama"}


def test_every_installed_server_is_among_them() -> None:
    assert set(installed_servers()) - WITHOUT_METRICS <= set(SERVERS)


def _endpoint(name: str, stub: Stub) -> Endpoint:
    endpoint = SERVERS[name]().endpoint
    return replace(endpoint, url=stub.url, protocol="openai", metrics_url=f"{stub.url}/metrics")


def _sides(endpoint: Endpoint) -> tuple[Mapping[str, float], int | None]:
    """Return the levels that a report reads, and the queue that a batch reads."""
    with sampling(endpoint) as sampler:
        assert sampler is not None
        sampler.sample()
        levels = sampler.snapshot().most

    async def ask() -> int | None:
        caller = Caller(endpoint, chat(), deadline=5)
        try:
            return await caller.queue_length()
        finally:
            await caller.aclose()

    return levels, asyncio.run(ask())


def _level(endpoint: Endpoint, quantity: str, place: int, value: str) -> str:
    names = names_of(endpoint.metric_names, quantity)
    return f'{names[place]}{{model="a b"}} {value}\n' if names else ""


@pytest.mark.parametrize("place", [0, -1], ids=["newest name", "oldest name"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_report_and_a_batch_read_the_same(stub: Stub, name: str, place: int) -> None:
    endpoint = _endpoint(name, stub)
    text = "".join(
        _level(endpoint, quantity, place, value)
        for quantity, value in (("requests_waiting", "7.0"), ("requests_running", "3.0"))
    )
    stub.pages["/metrics"] = send(200, text.encode())
    levels, waiting = _sides(endpoint)
    told = {"requests_waiting": 7, "requests_running": 3}
    assert levels == {
        quantity: told[quantity] for quantity in told if quantity in endpoint.metric_names
    }
    assert waiting == levels.get("requests_waiting")


@pytest.mark.parametrize("family", FAMILIES)
def test_of_an_unknown_server_both_read_what_it_is_known_to_say(stub: Stub, family: str) -> None:
    endpoint = Endpoint(url=stub.url, metrics_url=f"{stub.url}/metrics")
    names = names_of(FAMILIES[family], "requests_waiting")
    stub.pages["/metrics"] = send(200, "".join(f"{name} 7\n" for name in names[:1]).encode())
    levels, waiting = _sides(endpoint)
    assert (levels.get("requests_waiting"), waiting) == ((7, 7) if names else (None, None))


@pytest.mark.parametrize("value", ["+Inf", "-Inf", "NaN", "1e999", "-4", "many", ""])
@pytest.mark.parametrize("name", SERVERS)
def test_a_level_that_is_no_number_is_unknown_to_both(stub: Stub, name: str, value: str) -> None:
    endpoint = _endpoint(name, stub)
    stub.pages["/metrics"] = send(200, _level(endpoint, "requests_waiting", 0, value).encode())
    assert _sides(endpoint) == ({}, None)


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe\x00", b"<html>", b"{}", b"\n" * 100_000, b'acme_queue{a="'],
    ids=["bytes", "html", "json", "lines", "half"],
)
def test_a_page_that_is_none_is_unknown_to_both(stub: Stub, body: bytes) -> None:
    stub.pages["/metrics"] = send(200, body)
    assert _sides(_endpoint("acme", stub)) == ({}, None)


@pytest.mark.parametrize("status", [204, 404, 500])
def test_a_page_that_is_not_given_is_unknown_to_both(stub: Stub, status: int) -> None:
    stub.pages["/metrics"] = send(status, b"acme_queue 3\n")
    assert _sides(_endpoint("acme", stub)) == ({}, None)
