"""A server's list of models and its readiness: one table of cases for all who ask."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from facts.peer import Peers
from flytekitplugins.inference.client import health
from flytekitplugins.inference.client.batch import batch, chat
from flytekitplugins.inference.client.batch.caller import Caller
from flytekitplugins.inference.client.endpoint import Endpoint
from flytekitplugins.inference.errors import ConfigError, ServerError
from flytekitplugins.inference.facts.address import parse_address
from flytekitplugins.inference.facts.model_list import model_names
from flytekitplugins.inference.local.plan.probe_plan import HttpGet, ProbePlan, TcpSocket
from flytekitplugins.inference.local.prober import ask_probe
from flytekitplugins.inference.programs.server.server_probe import Api, ServerProbe

LONG = 30.0


def answering(status: int, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d Oh\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def probe_of(url: str, model: str = "") -> ServerProbe:
    return ServerProbe(parse_address(url), model=model, api=Api.OPENAI, token="", tick=lambda: None)


# Lists of models


def models(*names: Any) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()


LISTS = [
    (200, models("org/tiny"), "org/tiny", ""),
    (200, models("same", "same"), "same", ""),
    (200, models(), ConfigError, "lists no model: which one to ask for is not clear"),
    (200, models("a", "b"), ConfigError, "lists 'a', 'b': which one to ask for is not clear"),
    (200, models(*"abcdefghij"), ConfigError, "'g', 'h', 2 more: which one"),
    (200, b"", ServerError, "no list of models: nothing."),
    (200, b"not json", ServerError, "no list of models: 'not json'."),
    (200, b"<html>\n sign in", ServerError, "no list of models: '<html> sign in'."),
    (200, b"[" * 100_000, ServerError, "no list of models: '[[["),
    (200, b"\xff\xfe", ServerError, "no list of models"),
    (200, b"null", ServerError, "no list of models"),
    (200, b'["org/tiny"]', ServerError, "no list of models"),
    (200, b'{"data": null}', ServerError, "no list of models"),
    (200, b'{"data": "org/tiny"}', ServerError, "no list of models"),
    (200, b'{"data": [{"name": "org/tiny"}]}', ServerError, "no list of models"),
    (200, models(1), ServerError, "no list of models"),
    (200, models("a", None), ServerError, "no list of models"),
    (302, b"", ServerError, "/v1/models was answered 302: nothing."),
    (401, b"no key", ServerError, "/v1/models was answered 401: 'no key'."),
]


def name_by_client(url: str) -> str:
    return Endpoint(url=url, protocol="openai").served_model_name()


def name_by_batch(url: str) -> str:
    async def find() -> str:
        caller = Caller(Endpoint(url=url, protocol="openai"), chat(), deadline=LONG)
        try:
            return await caller.find_model()
        finally:
            await caller.aclose()

    return asyncio.run(find())


@pytest.mark.parametrize("ask", [name_by_client, name_by_batch])
@pytest.mark.parametrize(("status", "body", "verdict", "text"), LISTS)
def test_a_client_and_a_batch_find_the_same_model(
    peers: Peers, status: int, body: bytes, verdict: Any, text: str, ask: Any
) -> None:
    peer = peers(answering(status, body))
    if isinstance(verdict, str):
        assert ask(peer.url) == verdict
        return
    with pytest.raises(verdict) as caught:
        ask(peer.url)
    assert type(caught.value) is verdict
    assert text in caught.value.message
    assert peer.url in caught.value.message
    assert ("Name it in the request" in caught.value.hint) is (verdict is ConfigError)


@pytest.mark.parametrize(("status", "body", "verdict", "text"), LISTS)
def test_the_gate_reads_the_same_lists(
    peers: Peers, status: int, body: bytes, verdict: Any, text: str
) -> None:
    answer = probe_of(peers(answering(status, body)).url, "org/tiny").ask_model(LONG)
    assert answer.is_ready is (verdict == "org/tiny")
    if verdict is ServerError and status == 200:
        assert "not with a list of models" in answer.text
    elif verdict is ConfigError:
        assert text.partition(":")[0].removeprefix("lists ") in answer.text


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_batch_does_without_the_name_where_there_is_no_such_route(
    peers: Peers, status: int
) -> None:
    peer = peers(answering(status, b"{}"))
    assert name_by_batch(peer.url) == ""
    with pytest.raises(ServerError, match=f"answered {status}"):
        name_by_client(peer.url)


def test_a_broken_list_ends_a_batch_at_once(peers: Peers) -> None:
    peer = peers(answering(200, b"<html>"))
    with pytest.raises(ServerError, match="no list of models"):
        batch(Endpoint(url=peer.url, protocol="openai"), ["a"], work=chat(), progress=False)
    assert len(peer.requests) == 1


def test_a_list_without_end_is_read_up_to_a_bound(peers: Peers) -> None:
    def talk(connected: socket.socket) -> None:
        connected.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connected.sendall(b" " * 65536)

    peer = peers(talk)
    with pytest.raises(ServerError, match="no list of models"):
        name_by_batch(peer.url)
    assert "not with a list of models" in probe_of(peer.url, "m").ask_model(LONG).text


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ([], []),
        ([{"name": "a", "version": "1", "state": "READY"}, {"name": "b"}], ["a"]),
        ([{"name": "a", "version": "1"}, {"name": "a", "version": "2"}], ["a"]),
        ([{"name": "a", "state": "LOADING"}, {"name": "b", "state": "UNAVAILABLE"}], ["a", "b"]),
        ({"name": "a"}, None),
        ([{"id": "a"}], None),
        (["a"], None),
    ],
)
def test_lists_of_the_inference_protocol(body: Any, names: list[str] | None) -> None:
    text = json.dumps(body)
    if names is None:
        with pytest.raises(ValueError, match="not a list of models"):
            model_names("v2", text)
    else:
        assert model_names("v2", text) == names


# Readiness

STATUSES = [200, 204, 299, 301, 302, 307, 399, 400, 401, 404, 429, 499, 500, 502, 503, 599]


@pytest.mark.parametrize("status", STATUSES)
def test_the_gate_and_the_kubelet_call_the_same_server_ready(peers: Peers, status: int) -> None:
    url = f"{peers(answering(status)).url}/health"
    answer = probe_of(url).ask_readiness(LONG)
    result = ask_probe(ProbePlan(action=HttpGet(url=url), timeout=LONG), _no_container())
    assert (answer.is_ready, result.ok) == (200 <= status < 400, 200 <= status < 400)


@pytest.mark.parametrize("status", STATUSES)
def test_a_client_and_a_batch_find_the_same_server_there(peers: Peers, status: int) -> None:
    url = peers(answering(status)).url

    async def is_up() -> bool:
        endpoint = Endpoint(url=url, health_url=f"{url}/health", model="m")
        caller = Caller(endpoint, chat(), deadline=LONG)
        try:
            return await caller.is_up()
        finally:
            await caller.aclose()

    assert health.ask(f"{url}/health").is_there is (status < 500)
    assert asyncio.run(is_up()) is (status < 500)


def test_an_open_port_is_enough_for_all_who_have_no_path(peers: Peers) -> None:
    peer = peers(b"")
    assert probe_of(peer.url).ask_readiness(LONG).text == "is open"
    assert str(health.ask(peer.url)) == f"TCP 127.0.0.1:{peer.port} is open"
    probe = ProbePlan(action=TcpSocket(host="127.0.0.1", port=peer.port))
    assert ask_probe(probe, _no_container()).ok
    assert peer.requests == []


def test_a_closed_port_is_told_by_all_in_their_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/health"
    answer = probe_of(url).ask_readiness(LONG)
    assert (answer.is_open, answer.text) == (False, "was refused: nothing listens on the port")
    assert str(health.ask(url)) == f"GET {url} was refused: nothing listens on the port"
    result = ask_probe(ProbePlan(action=HttpGet(url=url)), _no_container())
    assert result.text == f"GET {url}: connection refused"


def test_a_ready_server_need_not_end_its_body(peers: Peers) -> None:
    peer = peers(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
    url = f"{peer.url}/health"
    assert probe_of(url).ask_readiness(LONG).is_ready
    assert health.ask(url).is_there
    assert ask_probe(ProbePlan(action=HttpGet(url=url), timeout=LONG), _no_container()).ok


def test_a_key_is_in_no_answer(peers: Peers) -> None:
    peer = peers(answering(500, b"oops"))
    answer = health.ask(f"{peer.url}/health?key=hidden", api_key="s3cret")
    assert "Authorization: Bearer s3cret" in peer.requests[0].decode()
    assert "hidden" not in str(answer)
    assert "s3cret" not in str(answer)


def test_a_server_behind_a_proxy_is_asked_through_it(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its requests are sent; otherwise it would count as gone."""
    proxy = peers(answering(200))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    assert health.ask("http://model.invalid/health").is_there
    assert proxy.requests[0].startswith(b"GET http://model.invalid:80/health HTTP/1.1\r\n")


def _no_container() -> Any:
    return None
