"""The OpenAI client against a server that misbehaves: which requests it retries, which errors."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

from client.stub import Handler, Stub, chat, crash, half, hang, reset, send, stream
from flytekitplugins.inference.client.endpoint import Endpoint
from flytekitplugins.inference.errors import ServerError, ServerExitedError, ServerNotReadyError

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
Ask = Callable[..., str]


def endpoint_of(stub: Stub, **fields: Any) -> Endpoint:
    return Endpoint(
        url=stub.url, protocol="openai", model="tiny", health_url=f"{stub.url}/health", **fields
    )


def ask_blocking(endpoint: Endpoint, streamed: bool = False, **options: Any) -> str:
    with endpoint.client(**options) as client:
        assert isinstance(client, openai.OpenAI)
        if not streamed:
            answer = client.chat.completions.create(model=endpoint.model, messages=MESSAGES)
            return answer.choices[0].message.content or ""
        chunks = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def ask_async(endpoint: Endpoint, streamed: bool = False, **options: Any) -> str:
    async def ask() -> str:
        async with endpoint.async_client(**options) as client:
            assert isinstance(client, openai.AsyncOpenAI)
            if not streamed:
                answer = await client.chat.completions.create(
                    model=endpoint.model, messages=MESSAGES
                )
                return answer.choices[0].message.content or ""
            chunks = await client.chat.completions.create(
                model=endpoint.model, messages=MESSAGES, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    return asyncio.run(ask())


@pytest.fixture(params=[ask_blocking, ask_async], ids=["blocking", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    asking: Ask = request.param
    return asking


# What is sent


def test_an_answer_is_the_official_clients(stub: Stub, ask: Ask) -> None:
    assert ask(endpoint_of(stub)) == "hello"
    path, headers, body = stub.posts[0]
    assert path == "/v1/chat/completions"
    assert json.loads(body)["model"] == "tiny"
    assert headers["authorization"] == "Bearer none"


def test_nothing_of_an_account_at_openai_is_sent(
    stub: Stub, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    ask(endpoint_of(stub))
    assert "secret" not in str(stub.posts[0][1])


def test_a_key_is_sent_as_a_bearer_token(stub: Stub, ask: Ask) -> None:
    ask(endpoint_of(stub, api_key="abc"))
    assert stub.posts[0][1]["authorization"] == "Bearer abc"


def test_a_proxy_of_the_environment_does_not_stand_before_this_machine(
    stub: Stub, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(endpoint_of(stub)) == "hello"


# What is sent again


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_server_is_asked_again_when_it_says(stub: Stub, ask: Ask, status: int) -> None:
    stub.script = [send(status, {"error": {"message": "full"}}, headers={"Retry-After": "0"})] * 3
    endpoint = endpoint_of(stub)
    assert ask(endpoint) == "hello"
    assert len(stub.posts) == 4
    assert len({body for _, _, body in stub.posts}) == 1
    assert endpoint.record.snapshot()["repeats"] == {str(status): 3}


@pytest.mark.parametrize("text", ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", ""])
def test_a_date_and_what_is_none_are_understood_too(stub: Stub, ask: Ask, text: str) -> None:
    stub.script = [send(503, {}, headers={"Retry-After": text})]
    assert ask(endpoint_of(stub)) == "hello"
    assert len(stub.posts) == 2


def test_a_server_that_wants_longer_than_the_bound_is_not_waited_for(stub: Stub, ask: Ask) -> None:
    stub.script = [
        send(429, {"error": {"message": "come back tomorrow"}}, headers={"Retry-After": "86400"})
    ]
    with pytest.raises(openai.RateLimitError, match="come back tomorrow"):
        ask(endpoint_of(stub), outage_seconds=5)
    assert len(stub.posts) == 1


def test_a_server_that_stays_busy_hands_its_answer_on_when_the_bound_is_over(
    stub: Stub, ask: Ask
) -> None:
    stub.default = send(503, {"error": {"message": "the queue is full"}})
    with pytest.raises(openai.InternalServerError, match="the queue is full"):
        ask(endpoint_of(stub), outage_seconds=0.5)
    assert len(stub.posts) > 1


def test_a_caller_may_have_the_busy_answers_at_once(stub: Stub, ask: Ask) -> None:
    stub.script = [send(503, {"error": {"message": "full"}}, headers={"Retry-After": "0"})]
    with pytest.raises(openai.InternalServerError):
        ask(endpoint_of(stub), retry_busy=False)
    assert len(stub.posts) == 1


def test_a_connection_that_is_reset_before_an_answer_is_asked_again(stub: Stub, ask: Ask) -> None:
    stub.script = [reset, reset]
    endpoint = endpoint_of(stub)
    assert ask(endpoint) == "hello"
    assert len(stub.posts) == 3
    assert endpoint.record.snapshot()["outages"] == []


@pytest.mark.parametrize("status", [400, 404, 500, 504])
def test_other_refusals_are_not_asked_again(stub: Stub, ask: Ask, status: int) -> None:
    stub.default = send(status, {"error": {"message": "because"}})
    with pytest.raises(openai.APIStatusError, match="because"):
        ask(endpoint_of(stub))
    assert len(stub.posts) == 1


def test_a_request_that_takes_too_long_is_not_asked_again(stub: Stub, ask: Ask) -> None:
    stub.default = hang
    with pytest.raises(ServerNotReadyError) as caught:
        ask(endpoint_of(stub), timeout=0.3)
    assert len(stub.posts) == 1
    text = str(caught.value)
    assert f"POST {stub.url}/v1/chat/completions was sent, and nothing came within 0.3 s" in text
    assert "the server may still be working on it. Raise timeout" in text


def test_the_timeout_of_a_single_request_is_the_one_that_is_told(stub: Stub) -> None:
    stub.default = hang
    with (
        endpoint_of(stub).client() as client,
        pytest.raises(ServerNotReadyError, match=r"nothing came within 0\.2 s"),
    ):
        client.chat.completions.create(model="tiny", messages=MESSAGES, timeout=0.2)


# Answers that break off


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_breaks_off_is_not_asked_again(stub: Stub, ask: Ask, streamed: bool) -> None:
    stub.default = stream("Once", " upon", then=reset) if streamed else half
    with pytest.raises(ServerExitedError) as caught:
        ask(endpoint_of(stub), streamed=streamed)
    assert len(stub.posts) == 1
    assert f"The answer to POST {stub.url}/v1/chat/completions broke off after" in str(caught.value)
    assert "The request is not retried, because its answer had begun" in caught.value.hint


def test_a_stream_that_stops_ends_with_what_had_come(stub: Stub, ask: Ask) -> None:
    stub.default = stream("Once", then=hang)
    with pytest.raises(
        ServerNotReadyError, match=r"stopped after \d\d+ bytes: nothing more came within 0.3 s"
    ):
        ask(endpoint_of(stub), streamed=True, timeout=0.3)


def test_a_whole_stream_is_handed_on(stub: Stub, ask: Ask) -> None:
    stub.default = stream("Once", " upon", " a time")
    endpoint = endpoint_of(stub)
    assert ask(endpoint, streamed=True) == "Once upon a time"
    assert endpoint.record.snapshot()["first_byte_seconds"]["count"] == 1


def test_a_web_page_instead_of_json_is_told(stub: Stub, ask: Ask) -> None:
    stub.default = send(200, b"<html><h1>Sign in</h1></html>", kind="text/html; charset=utf-8")
    with pytest.raises(ServerError, match="was answered with text/html instead of JSON") as caught:
        ask(endpoint_of(stub))
    assert "not the address of a model server's API" in caught.value.hint


# Outages


def test_a_request_waits_for_a_server_that_comes_back(stub: Stub, ask: Ask) -> None:
    stub.die()
    endpoint = endpoint_of(stub)
    is_over = threading.Event()

    def start_when_missed() -> None:
        # not after some time: a client that is made slowly would find the server there
        while not endpoint.record.outages[0]:
            if is_over.wait(0.01):
                return
        stub.start()

    starter = threading.Thread(target=start_when_missed)
    starter.start()
    try:
        assert ask(endpoint) == "hello"
    finally:
        is_over.set()
        starter.join()
    (outage,) = endpoint.record.snapshot()["outages"]
    assert outage["ended"] > outage["began"]


def test_a_request_waits_while_the_server_loads(stub: Stub, ask: Ask) -> None:
    healths = itertools.chain([503] * 3, itertools.repeat(200))

    def health(handler: Handler) -> None:
        send(next(healths), {})(handler)

    stub.pages["/health"] = health
    stub.script = [send(503, {"error": {"message": "Loading model"}})]
    assert ask(endpoint_of(stub), retry_busy=False) == "hello"
    assert len(stub.posts) == 2


def test_a_server_that_dies_with_the_request_gets_it_again(stub: Stub, ask: Ask) -> None:
    stub.script = [crash(return_in=0.3)]
    endpoint = endpoint_of(stub)
    assert ask(endpoint) == "hello"
    assert len(stub.posts) == 2
    assert endpoint.record.outages == (1, 1)


def test_a_request_that_always_ends_the_server_is_given_up(stub: Stub, ask: Ask) -> None:
    stub.default = crash(return_in=0.05)
    with pytest.raises(ServerExitedError) as caught:
        ask(endpoint_of(stub))
    assert len(stub.posts) == 3
    assert "the connection ended without an answer" in caught.value.message
    assert "That happened 3 times." in caught.value.message
    assert "This request may be what ends the server" in caught.value.hint


def test_a_server_that_does_not_come_back_is_an_error_with_all_that_is_known(
    stub: Stub, ask: Ask
) -> None:
    stub.script = [crash(return_in=0.2), chat("back"), crash()]
    endpoint = endpoint_of(stub)
    assert ask(endpoint) == "back"
    with pytest.raises(ServerNotReadyError) as caught:
        ask(endpoint, outage_seconds=0.6)
    error = caught.value
    assert isinstance(error, openai.APIConnectionError)
    assert isinstance(error, TimeoutError)
    assert error.retryable
    assert error.code == "ServerNotReadyError"
    assert error.message.startswith(f"POST {stub.url}/v1/chat/completions ")
    assert f"GET {stub.url}/health was refused: nothing listens on the port." in error.message
    assert re.search(r"Waited \d+ s for the server's return\.", error.message)
    assert "the server went away twice and came back once." in error.message
    assert "raise outage_seconds" in error.hint
    assert endpoint.record.snapshot()["errors"] == {"ServerNotReadyError": 1}


def test_without_a_bound_nothing_is_waited_for(stub: Stub, ask: Ask) -> None:
    stub.die()
    with pytest.raises(ServerNotReadyError, match="found no connection"):
        ask(endpoint_of(stub), outage_seconds=0)


def test_the_error_survives_pickling(stub: Stub) -> None:
    stub.die()
    with pytest.raises(ServerNotReadyError) as caught:
        ask_blocking(endpoint_of(stub), outage_seconds=0)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is ServerNotReadyError
    assert str(copy) == str(caught.value)


def test_a_host_without_an_address_is_told_at_once() -> None:
    endpoint = Endpoint(url="http://no-such-host.invalid", protocol="openai", model="m")
    with pytest.raises(ServerError, match="host's name has no address") as caught:
        ask_blocking(endpoint)
    assert not isinstance(caught.value, ServerNotReadyError)


def test_many_waiting_requests_ask_for_the_servers_health_as_one(stub: Stub) -> None:
    """An event loop and threads together: 40 requests, one of them asking."""
    stub.die()
    endpoint = endpoint_of(stub)
    answers: list[str] = []

    async def ask_many() -> list[str]:
        async with endpoint.async_client() as client:
            create = client.chat.completions.create
            done = await asyncio.gather(
                *(create(model="tiny", messages=MESSAGES) for _ in range(30))
            )
            return [one.choices[0].message.content for one in done]

    healths = itertools.chain([503] * 3, itertools.repeat(200))

    def health(handler: Handler) -> None:
        send(next(healths), {})(handler)

    def start_once_it_is_missed() -> None:
        while not endpoint.record.outages[0]:
            time.sleep(0.01)
        stub.start()

    stub.pages["/health"] = health
    threads = [
        threading.Thread(target=lambda: answers.append(ask_blocking(endpoint))) for _ in range(10)
    ]
    threads.append(threading.Thread(target=start_once_it_is_missed))
    for thread in threads:
        thread.start()
    answers += asyncio.run(ask_many())
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 40
    assert len(stub.posts) == 40
    assert stub.asked("/health") < 20
    assert endpoint.record.outages == (1, 1)


def test_a_cancelled_request_leaves_the_others_waiting(stub: Stub) -> None:
    stub.die()
    endpoint = endpoint_of(stub)

    async def cancel_one() -> Any:
        async with endpoint.async_client() as client:
            tasks = [
                asyncio.create_task(client.chat.completions.create(model="tiny", messages=MESSAGES))
                for _ in range(2)
            ]
            await asyncio.sleep(0.2)
            tasks[0].cancel()
            stub.start()
            first, second = await asyncio.gather(*tasks, return_exceptions=True)
            return type(first), second

    kind, answer = asyncio.run(cancel_one())
    assert kind is asyncio.CancelledError
    assert answer.choices[0].message.content == "hello"
    snapshot = endpoint.record.snapshot()
    assert (snapshot["in_flight"], snapshot["answered"], snapshot["failed"]) == (0, 1, 1)
