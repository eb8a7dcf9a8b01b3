"""Nothing that a user gives is taken in silence: parameters, headers and addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from client.batch.stub import Server, echo
from flytekitplugins.inference.client.batch import batch, chat, completion, embeddings, structured
from flytekitplugins.inference.client.batch.local_paths import local_path
from flytekitplugins.inference.errors import ArgumentError, ConfigError, UnsupportedError


@pytest.mark.parametrize(
    ("make", "parameters", "meant"),
    [
        (chat, {"max_token": 2}, "max_tokens="),
        (chat, {"sytem": "x"}, "system="),
        (chat, {"colum": "text"}, "column="),
        (chat, {"temprature": 1}, "temperature="),
        (chat, {"extrabody": {}}, "extra_body="),
        (completion, {"maxTokens": 2}, "max_tokens="),
        (embeddings, {"dimension": 2}, "dimensions="),
        (embeddings, {"max_tokens": 2}, "extra_body={'max_tokens': …}"),
        (chat, {"zzz": 2}, "extra_body={'zzz': …}"),
        (chat, {"max_token": 2, "sytem": "x"}, "system="),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_unknown_parameter_is_refused_with_the_one_that_was_meant(
    make: Any, parameters: dict[str, Any], meant: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        make(**parameters)
    assert meant in str(caught.value)
    assert all(repr(name) in str(caught.value) for name in parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stream": True}, "stream= cannot be used in a batch"),
        ({"extra_body": {"stream": True}}, "stream= cannot be used in a batch"),
        ({"n": 2}, "n= cannot be used in a batch"),
        ({"messages": []}, "messages= cannot be used in a batch"),
        ({"extra_body": {"a": object()}}, "no form as JSON"),
        ({"extra_body": [1]}, r"extra_body=\[1\]; expected a mapping"),
        ({"extra_headers": {"X": 1}}, r"extra_headers=\{'X': 1\}; expected a text"),
        ({"extra_query": {"v": 1}}, r"extra_query=\{'v': 1\}; expected a text"),
        ({"timeout": 0}, "timeout=0; expected seconds"),
        ({"timeout": "5"}, "timeout='5'; expected seconds"),
    ],
    ids=[str(number) for number in range(10)],
)
def test_a_wrong_value_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chat(**parameters)


def test_what_is_no_part_of_the_body_means_what_it_means_in_openais_client(server: Server) -> None:
    requests: list[Any] = []

    async def handler(request: web.Request, body: Any) -> web.StreamResponse:
        requests.append((dict(request.headers), dict(request.query)))
        return await echo(request, body)

    server.handler = handler
    work = chat(
        max_tokens=5,
        extra_body={"top_k": 5, "max_tokens": 6, "own": {"a": 1}},
        extra_headers={"X-Tenant": "blue"},
        extra_query={"version": "2"},
        timeout=7,
    )
    assert batch(server.endpoint, ["a"], work=work, progress=False).succeeded == 1
    (body,) = server.requests
    assert (body["top_k"], body["max_tokens"], body["own"]) == (5, 6, {"a": 1})
    assert not body.keys() & {"extra_body", "extra_headers", "extra_query", "timeout"}
    ((headers, query),) = requests
    assert (headers["X-Tenant"], query) == ("blue", {"version": "2"})
    assert "blue" not in repr(work)


def test_a_timeout_takes_the_place_of_the_deadline(server: Server) -> None:
    async def hangs(request: web.Request, body: Any) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    server.handler = hangs
    (record,) = batch(
        server.endpoint,
        ["a"],
        work=chat(timeout=0.2),
        max_retries=0,
        progress=False,
        allow_all_failed=True,
    )
    assert "deadline of 0.2 s" in record["error"]["message"]


@pytest.mark.parametrize("setting", ["extra_headers", "extra_query"])
def test_another_header_or_query_starts_anew(setting: str, server: Server, tmp_path: Path) -> None:
    def resumed(value: str) -> int:
        work = chat(**{setting: {"X-Tenant": value}})
        options: Any = {"output": tmp_path / "out.jsonl", "progress": False}
        return batch(server.endpoint, ["a"], work=work, **options).resumed

    assert [resumed("blue"), resumed("blue"), resumed("green")] == [0, 1, 0]
    if setting == "extra_headers":
        assert b"green" not in (tmp_path / "out.jsonl.journal").read_bytes()


@pytest.mark.parametrize("kind", ["s3", "gs", "abfs", "https", "flyte"])
def test_an_address_is_no_local_file(
    kind: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"{kind}://bucket/out.jsonl"
    for value in (address, Path(address)):
        with pytest.raises(UnsupportedError, match=r"is an address.*upload it"):
            batch(server.endpoint, ["a"], work=chat(), output=value, progress=False)
        with pytest.raises(UnsupportedError, match=r"is an address.*download it"):
            batch(server.endpoint, value, work=chat(), progress=False)
    assert list(tmp_path.iterdir()) == []
    assert server.requests == []


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("out.jsonl", "out.jsonl"),
        ("/a/b c.jsonl", "/a/b c.jsonl"),
        ("C:/out.jsonl", "C:/out.jsonl"),
        ("file:///a/b%20c.jsonl", "/a/b c.jsonl"),
        ("a:b.jsonl", "a:b.jsonl"),
    ],
)
def test_a_local_path_is_one(value: str, path: str) -> None:
    assert local_path("output", value, "") == Path(path)


def test_a_schema_excludes_another_response_format() -> None:
    with pytest.raises(ArgumentError, match="response_format"):
        structured({"type": "object"}, response_format={"type": "json_object"})
