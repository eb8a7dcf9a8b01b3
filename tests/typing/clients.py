"""Which client a server has, for type checkers. This file is checked and never run.

A line that must fail carries what both checkers say of it; one that no longer fails is an error
itself (mypy's `warn_unused_ignores`, pyright's `reportUnnecessaryTypeIgnoreComment`).
"""

from __future__ import annotations

from typing import Any, Literal

import httpx
from openai import AsyncOpenAI, OpenAI
from typing_extensions import assert_type

from flytekitplugins.inference import (
    NIM,
    TEI,
    VLLM,
    LlamaCpp,
    MLServer,
    ModelInferenceTemplate,
    ModelServers,
    NIMSecrets,
    Ollama,
    SGLang,
    Triton,
)
from flytekitplugins.inference.client.endpoint import Endpoint
from flytekitplugins.inference.client.v2 import AsyncV2Client, V2Client

llm = VLLM(model="owner/name")
triton = Triton(model_repository="/models")

# by server
assert_type(llm.client(), OpenAI)
assert_type(SGLang().client(), OpenAI)
assert_type(LlamaCpp().client(), OpenAI)
assert_type(Ollama().client(), OpenAI)
assert_type(TEI().client(), OpenAI)
assert_type(NIM(secrets=NIMSecrets(ngc_secret_key="key")).client(), OpenAI)
assert_type(triton.client(), V2Client)
assert_type(MLServer().client(), V2Client)
assert_type(llm.async_client(), AsyncOpenAI)
assert_type(triton.async_client(), AsyncV2Client)

# the same server elsewhere
assert_type(llm.endpoint.client(), OpenAI)
assert_type(llm.at("https://host").client(timeout=5), OpenAI)
assert_type(llm.at("https://host").at("https://other").async_client(), AsyncOpenAI)

# by protocol, where it is written
assert_type(Endpoint(url="http://host", protocol="openai").client(), OpenAI)
assert_type(Endpoint(url="http://host", protocol="v2").async_client(), AsyncV2Client)
assert_type(Endpoint(url="http://host", protocol="none").client(), httpx.Client)
Endpoint(url="http://host", protocol="grpc")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


class Sentiment(ModelInferenceTemplate[Literal["openai"]]):
    """A server of another distribution says its protocol in the same way."""


assert_type(Sentiment(image="registry/sentiment:1").client(), OpenAI)

# one whose protocol is known at run time only
template = ModelInferenceTemplate(image="registry/server:1")
servers = ModelServers({"llm": llm, "ranker": triton})
of_any_kind: dict[str, ModelInferenceTemplate] = {"llm": llm, "ranker": triton}
assert_type(template.client(), Any)
assert_type(servers["llm"].client(), Any)

# options
llm.client(timeout=5, outage_seconds=0.5, retry_busy=False)
llm.client(time_out="soon")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
llm.client(timeout="soon")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
llm.async_client(retry_busy=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
triton.client(time_out=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
template.client(time_out=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# what the client itself takes
llm.client().chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
llm.client().chat.complete(nonsense=True)  # type: ignore[attr-defined]  # pyright: ignore
triton.client().infer({"x": [1.0]}, outputs=["y"])
print(triton.client().chat)  # type: ignore[attr-defined]  # pyright: ignore
