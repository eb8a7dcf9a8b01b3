"""`Endpoint`: addresses, the environment, and what a client needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

from client.stub import Stub, send
from flytekitplugins.inference.client import http
from flytekitplugins.inference.client.endpoint import Endpoint, from_environment
from flytekitplugins.inference.distribution import install_command
from flytekitplugins.inference.errors import ConfigError, ServerError, ServerNotReadyError

LOCAL = Endpoint(
    url="http://localhost:8000",
    protocol="openai",
    model="tiny",
    health_url="http://localhost:8000/health",
    metrics_url="http://localhost:8000/metrics",
    cold_start="/shared/cold-start.json",
)


@pytest.mark.parametrize(
    ("protocol", "url", "expected"),
    [
        ("openai", "http://localhost:8000/", "http://localhost:8000"),
        ("openai", "https://host/models/one/v1/", "https://host/models/one"),
        ("v2", "https://host/v2", "https://host"),
        ("none", "https://host/v1", "https://host/v1"),
    ],
)
def test_an_address_is_kept_without_its_end(protocol: Any, url: str, expected: str) -> None:
    assert Endpoint(url=url, protocol=protocol).url == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("localhost:8000", "url is not an http or https URL"),
        ("ftp://host", "url is not an http or https URL"),
        ("http://", "url is not an http or https URL"),
        ("http://host:99999", "url is not an http or https URL"),
        ("http://ho st", "url is not an http or https URL"),
        ("http://user:secret@host", "url holds a user or password"),
        ("http://host?key=secret", "url has a query or a fragment"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        Endpoint(url=url)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint(url="a", protocol="grpc", health_url="b", metrics_url="c", api_key="two words")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 5
    assert "two words" not in str(caught.value)


def test_a_key_is_in_no_repr() -> None:
    assert "secret" not in repr(LOCAL.at("https://host", api_key="secret"))


def test_another_address_keeps_the_paths() -> None:
    moved = LOCAL.at("https://host/models/one/v1")
    assert moved == Endpoint(
        url="https://host/models/one",
        protocol="openai",
        model="tiny",
        health_url="https://host/models/one/health",
        metrics_url="https://host/models/one/metrics",
    )


def test_what_was_on_another_port_is_not_known_elsewhere() -> None:
    endpoint = Endpoint(url="http://localhost:8000", metrics_url="http://localhost:8002/metrics")
    assert endpoint.at("https://host").metrics_url is None


def test_a_key_is_not_taken_to_another_address() -> None:
    assert LOCAL.at("https://one", api_key="secret").at("https://other").api_key == ""


@pytest.mark.parametrize(
    ("name", "environ", "expected"),
    [
        ("", {}, None),
        ("", {"INFERENCE_URL": "  "}, None),
        ("", {"INFERENCE_URL": "https://host/"}, ("https://host", "")),
        ("", {"INFERENCE_URL": "https://host", "INFERENCE_API_KEY": "k"}, ("https://host", "k")),
        (
            "re-ranker",
            {"INFERENCE_URL_RE_RANKER": "http://a:1", "INFERENCE_API_KEY": "k"},
            ("http://a:1", ""),
        ),
        ("re-ranker", {"INFERENCE_URL": "http://a:1"}, None),
    ],
)
def test_the_environment_names_a_server(name: str, environ: dict[str, str], expected: Any) -> None:
    assert from_environment(name, environ=environ) == expected


def test_a_variable_without_an_address_is_refused_without_being_shown() -> None:
    with pytest.raises(
        ConfigError, match="variable INFERENCE_URL_A holds a user or password"
    ) as caught:
        from_environment("a", environ={"INFERENCE_URL_A": "http://user:secret@host"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("inf")},
        {"outage_seconds": -1},
        {"timeout": True},
        {"timeout": "5"},
    ],
)
def test_a_period_that_is_none_is_refused(options: Any) -> None:
    with pytest.raises(ConfigError, match="is not a number of seconds"):
        LOCAL.client(**options)


# The model's name


def test_a_name_that_was_given_is_not_asked_for() -> None:
    assert LOCAL.served_model_name() == "tiny"


@pytest.mark.parametrize(
    ("protocol", "page", "value"),
    [
        ("openai", "/v1/models", {"object": "list", "data": [{"id": "org/tiny"}]}),
        (
            "v2",
            None,
            [{"name": "org/tiny", "state": "READY"}, {"name": "old", "state": "UNAVAILABLE"}],
        ),
        ("v2", None, [{"name": "org/tiny", "version": "1"}, {"name": "org/tiny", "version": "2"}]),
    ],
)
def test_the_only_model_is_asked_for(
    stub: Stub, protocol: Any, page: str | None, value: Any
) -> None:
    if page:
        stub.pages[page] = send(200, value)
    stub.default = send(200, value)
    assert Endpoint(url=stub.url, protocol=protocol).served_model_name() == "org/tiny"


@pytest.mark.parametrize(("names", "listed"), [([], "no model"), (["a", "b"], "'a', 'b'")])
def test_a_server_with_none_or_several_models_is_refused(
    stub: Stub, names: list[str], listed: str
) -> None:
    stub.pages["/v1/models"] = send(200, {"data": [{"id": name} for name in names]})
    with pytest.raises(ConfigError, match=f"lists {listed}: which one to ask for is not clear"):
        Endpoint(url=stub.url, protocol="openai").served_model_name()


@pytest.mark.parametrize("value", [b"<html>", {"data": None}, ["a"], {"data": [1]}])
def test_an_answer_that_is_no_list_is_told(stub: Stub, value: Any) -> None:
    stub.pages["/v1/models"] = send(200, value)
    with pytest.raises(ServerError, match="something that is no list of models"):
        Endpoint(url=stub.url, protocol="openai").served_model_name()


def test_a_refused_list_is_told(stub: Stub) -> None:
    stub.pages["/v1/models"] = send(401, {"error": "no key"})
    with pytest.raises(ServerError, match=r"/v1/models was answered 401: .*no key"):
        Endpoint(url=stub.url, protocol="openai").served_model_name()


def test_a_server_of_its_own_api_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match="no API that lists models"):
        Endpoint(url="http://localhost:1").served_model_name()


# A server of its own API


def test_its_client_is_a_plain_one_with_the_address(stub: Stub) -> None:
    stub.default = send(200, {"y": 1})
    endpoint = Endpoint(url=f"{stub.url}/api", api_key="k")
    with endpoint.client() as client:
        assert isinstance(client, httpx2.Client)
        assert client.post("/predict", json={"x": 1}).json() == {"y": 1}
    path, headers, _ = stub.posts[0]
    assert (path, headers["authorization"]) == ("/api/predict", "Bearer k")


def test_a_body_that_was_read_from_a_stream_is_not_sent_again(stub: Stub) -> None:
    stub.default = send(503, {"error": "full"}, headers={"Retry-After": "0"})
    with Endpoint(url=stub.url, health_url=f"{stub.url}/health").client() as client:
        headers = {"Content-Length": "3"}
        assert client.post("/", content=iter([b"abc"]), headers=headers).status_code == 503
    assert len(stub.posts) == 1


def test_the_older_library_does_the_same(stub: Stub) -> None:
    """`httpx`, on which OpenAI's client was built before version 3."""
    from flytekitplugins.inference.client.attempts import Limits

    stub.script = [send(503, {}, headers={"Retry-After": "0"}), send(200, {"y": 1})]
    endpoint = Endpoint(url=stub.url, health_url=f"{stub.url}/health")
    limits = Limits(timeout_seconds=5, outage_seconds=0.3, retry_busy=True)
    with http.client(endpoint, limits, http=httpx) as client:
        assert isinstance(client, httpx.Client)
        assert client.post("/").json() == {"y": 1}
        stub.die()
        with pytest.raises(
            ServerNotReadyError, match="the server went away once and did not come back"
        ):
            client.post("/")


# A proxy, for a server that is elsewhere


def test_a_proxy_of_the_environment_stands_before_another_host(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", stub.url)
    stub.default = send(200, {"y": 1})
    with Endpoint(url="http://model.invalid").client() as client:
        assert client.post("/predict").json() == {"y": 1}
    assert stub.posts[0][0] == "http://model.invalid/predict"


def test_a_host_that_needs_no_proxy_gets_none(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", stub.url)
    monkeypatch.setenv("no_proxy", "model.invalid")
    with (
        Endpoint(url="http://model.invalid").client() as client,
        pytest.raises(ServerError, match="no address"),
    ):
        client.post("/predict")


# What is imported, and when


def run(code: str, path: Path | None = None) -> str:
    environ = {**os.environ, "PYTHONPATH": str(path or "")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_endpoint_imports_nothing_but_the_standard_library() -> None:
    code = """
import sys
before = set(sys.modules)
from flytekitplugins.inference.client.endpoint import Endpoint
Endpoint(url="http://localhost:8000", protocol="openai").record.snapshot()
names = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(names - sys.stdlib_module_names - {"flytekitplugins"}))
"""
    assert run(code).strip() == "[]"


def test_the_package_imports_the_names_of_the_clients_methods_only() -> None:
    code = (
        "import sys, flytekitplugins.inference as root; root.VLLM; "
        "prefix = root.__name__ + '.client.'; "
        "print([name.removeprefix(prefix) for name in sys.modules if name.startswith(prefix)])"
    )
    assert run(code).strip() == "['protocols', 'methods']"


@pytest.mark.parametrize(
    ("protocol", "missing", "extra"),
    [
        ("openai", ["openai"], install_command("openai")),
        ("v2", ["tritonclient"], install_command("open-inference")),
        ("none", ["httpx", "httpx2"], "httpx2 or httpx"),
    ],
)
def test_a_library_that_is_missing_is_named(
    protocol: str, missing: list[str], extra: str, tmp_path: Path
) -> None:
    for name in missing:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}')")
    code = f"""
from flytekitplugins.inference import MissingDependencyError
from flytekitplugins.inference.client.endpoint import Endpoint
for make in ("client", "async_client"):
    try:
        getattr(Endpoint(url="http://localhost:8000", protocol={protocol!r}), make)()
    except MissingDependencyError as error:
        print(error)
"""
    assert run(code, tmp_path).count(extra) == 2
