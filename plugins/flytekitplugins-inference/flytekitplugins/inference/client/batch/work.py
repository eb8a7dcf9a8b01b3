"""Defines the work for each row: chat, completion, embeddings, structured output or a function.

A work builds the request for a row and reads its answer; it sends nothing. The routes are OpenAI's,
as served by vLLM, SGLang, llama.cpp, NIM, Ollama and TEI.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import inspect
import json
import math
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal

from ...dependencies import requires
from ...distribution import install_command
from ...errors import ConfigError
from .faults import Fault, FaultKind, shortened
from .identity import code_digest, unwrapped
from .parameters import request_settings
from .rows import describe

RowFunction = Callable[[Any, Any], Awaitable[Any]]
"""`async def f(client, row)`; its result, which must be valid JSON, is the row's output."""
_MOST_TOKENS = 2**63
"""The output stores counts as 64-bit numbers."""
_BROKEN_OFF: dict[str, tuple[FaultKind, str]] = {
    "abort": ("invalid_answer", "the server aborted the request"),  # vLLM and SGLang
    "error": ("invalid_answer", "the server failed"),
    "content_filter": ("invalid_output", "a filter of the server cut it off"),
}
"""The finish reasons of half a text, its fault and the cause. The first two may pass."""


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """The answer to one row."""

    output: Any
    """A JSON value."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    """The server's reason: `stop`, or `length` if the text was cut off at `max_tokens`."""


@dataclass(frozen=True, kw_only=True)
class HttpWork:
    """One request to a route of the model server per row.

    `chat`, `completion`, `embeddings` and `structured` create it.
    """

    kind: Literal["chat", "completion", "embeddings", "structured"]
    path: str
    column: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Added unchanged to the body of each request."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with each request; they may hold keys."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Added to the address of each request."""
    timeout: float | None = None
    """Seconds that one request may take, in place of the batch's `deadline`."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of a structured output."""
    model_type: Any = None
    """The pydantic model that validates a structured output."""

    def identity(self) -> dict[str, Any]:
        """Return everything that an answer depends on besides the row and the model."""
        facts = {
            "work": self.kind,
            "column": self.column,
            "system": self.system,
            "schema": self.schema,
            "query": self.query or None,
            # not the headers themselves: the journal must not hold keys
            "headers": _digest_of(self.headers) if self.headers else None,
        }
        return {
            key: value for key, value in {**facts, **self.parameters}.items() if value is not None
        }

    def body(self, position: int, value: Any, model: str) -> dict[str, Any]:
        """Return the JSON body of the request for a row.

        Raises:
            Fault: The row is not what this work takes.
        """
        content = self._content(position, value)
        request: dict[str, Any]
        if self.kind == "completion":
            request = {"prompt": content}
        elif self.kind == "embeddings":
            request = {"input": content}
        else:
            request = {"messages": self._messages(position, content)}
        # in this order: a parameter may name another model, and none replaces what is the row's
        return {"model": model, **self.parameters, **request}

    def read(self, answer: Any) -> RowAnswer:
        """Return the answer in the server's JSON.

        Raises:
            Fault: It is not an answer of this route, or the output does not fit the schema.
        """
        try:
            usage = answer.get("usage")
            if self.kind == "embeddings":
                vector = _vector(answer["data"][0]["embedding"])
                return RowAnswer(vector, _tokens(usage, "prompt_tokens"))
            choice = answer["choices"][0]
            text = choice["text"] if self.kind == "completion" else choice["message"].get("content")
            reason = choice.get("finish_reason")
            if not isinstance(text, (str, NoneType)) or not isinstance(reason, (str, NoneType)):
                raise TypeError("a text and a finish_reason")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            message = f"The answer is JSON, but not that of {self.path}: {_quoted(answer)}"
            raise Fault("invalid_answer", message) from error
        if reason in _BROKEN_OFF:
            kind, why = _BROKEN_OFF[reason]
            raise Fault(kind, f"The text is not whole: {why} (finish_reason {reason!r}).")
        # a tool call and a refusal have no text
        if text is None:
            raise Fault(
                "invalid_output", f"The answer has no text; its finish_reason is {reason!r}."
            )
        return RowAnswer(
            self._validated(text, reason) if self.schema is not None else text,
            _tokens(usage, "prompt_tokens"),
            _tokens(usage, "completion_tokens"),
            reason,
        )

    def _content(self, position: int, value: Any) -> Any:
        if self.column is not None:
            if not isinstance(value, Mapping) or self.column not in value:
                expected = f"expected a mapping with the column {self.column!r}"
                raise Fault("invalid_row", f"{describe(position, value)}; {expected}.")
            value = value[self.column]
        elif isinstance(value, Mapping):
            if "messages" not in value or self.kind not in ("chat", "structured"):
                hint = "say which column holds it: column="
                raise Fault(
                    "invalid_row",
                    f"{describe(position, value)}; expected a text. If it is one, {hint}.",
                )
            value = value["messages"]
        if hasattr(value, "tolist"):  # a list of messages in a table is an array
            value = value.tolist()
        is_messages = isinstance(value, (list, tuple)) and self.kind in ("chat", "structured")
        if not isinstance(value, str) and not is_messages:
            expected = (
                "a text or a list of messages" if self.kind in ("chat", "structured") else "a text"
            )
            where = f" in the column {self.column!r}" if self.column else ""
            raise Fault("invalid_row", f"{describe(position, value)}{where}; expected {expected}.")
        return value

    def _messages(self, position: int, content: Any) -> list[Any]:
        messages = (
            [{"role": "user", "content": content}] if isinstance(content, str) else list(content)
        )
        for message in messages:
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                excerpt = shortened(repr(message), 80)
                expected = "expected a mapping with 'role' and 'content'"
                raise Fault(
                    "invalid_row", f"Row {position + 1} has the message {excerpt}; {expected}."
                )
        return (
            messages
            if self.system is None
            else [{"role": "system", "content": self.system}, *messages]
        )

    def _validated(self, text: str, reason: Any) -> Any:
        cut = " It was cut off: raise max_tokens." if reason == "length" else ""
        try:
            if self.model_type is not None:
                return self.model_type.model_validate_json(text).model_dump(mode="json")
            value = json.loads(text)
            _validate(value, self.schema)
            if value is None:
                raise ValueError("null is no output")
        except (ValueError, RecursionError) as error:
            details = f"{shortened(str(error))}{cut} The text is: {shortened(text)}"
            raise Fault("invalid_output", f"The text does not fit the schema: {details}") from error
        return value


@dataclass(frozen=True)
class FunctionWork:
    """The user's own `async def f(client, row)`."""

    function: RowFunction

    def identity(self) -> dict[str, Any]:
        """Return the function's name and a digest of what it does."""
        function = unwrapped(self.function)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return {"work": "function", "function": name, "code": code_digest(self.function)}


Work = HttpWork | FunctionWork


def chat(
    *,
    column: str | None = None,
    system: str | None = None,
    path: str = "/v1/chat/completions",
    **parameters: Any,
) -> HttpWork:
    """Send rows to `/v1/chat/completions`; the output is the assistant's text.

    Args:
        column: The column with the user's text or a list of messages; None if the row itself is one
            of these, or a mapping with `messages`.
        system: The system message, before all others.
        path: The server's route.
        **parameters: Those of OpenAI's API and of its servers, added unchanged to each request:
            `max_tokens`, `temperature`, `top_k`, `model`, … `extra_body`, `extra_headers`,
            `extra_query` and `timeout` mean what they mean in OpenAI's client; a parameter that
            only your server knows goes into `extra_body`.

    Raises:
        ArgumentError: No server takes a parameter of this name.
        ConfigError: A parameter cannot be used in a batch, or has a wrong value.
    """
    settings = request_settings("chat", parameters)
    return HttpWork(kind="chat", path=path, column=column, system=system, **settings)


def completion(
    *, column: str | None = None, path: str = "/v1/completions", **parameters: Any
) -> HttpWork:
    """Send rows to `/v1/completions`; the output is the text. Takes the arguments of `chat`."""
    settings = request_settings("completion", parameters)
    return HttpWork(kind="completion", path=path, column=column, **settings)


def embeddings(
    *, column: str | None = None, path: str = "/v1/embeddings", **parameters: Any
) -> HttpWork:
    """Send rows to `/v1/embeddings`; the output is the vector, a list of numbers.

    Takes the arguments of `chat`.
    """
    settings = request_settings("embeddings", parameters)
    return HttpWork(kind="embeddings", path=path, column=column, **settings)


def structured(
    schema: Any,
    *,
    column: str | None = None,
    system: str | None = None,
    path: str = "/v1/chat/completions",
    **parameters: Any,
) -> HttpWork:
    """Request JSON of a schema from `/v1/chat/completions`; the output is the validated value.

    The schema is sent as `response_format`, which some servers enforce. Every output is validated
    here as well; if it does not fit the schema, its row fails.

    Args:
        schema: A pydantic model (version 2), or a JSON schema.
        column: As that of `chat`.
        system: As that of `chat`.
        path: As that of `chat`.
        **parameters: As those of `chat`.

    Raises:
        ConfigError: The schema is neither, or not valid.
        MissingDependencyError: A JSON schema is given, and the package `jsonschema` is not
            installed.
    """
    # pydantic is known by its method, because it may not be installed
    if hasattr(schema, "model_json_schema"):
        model_type, schema = schema, schema.model_json_schema()
    elif isinstance(schema, Mapping):
        model_type = None
        _check_schema(schema)
    else:
        raise ConfigError(f"schema={schema!r} is neither a pydantic model nor a JSON schema.")
    # OpenAI's API allows letters, digits, `_` and `-` here; a title is free text
    name = str(schema.get("title", "output")).replace(" ", "_")
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": True},
    }
    settings = request_settings("structured", parameters)
    settings["parameters"] |= {"response_format": response_format}
    return HttpWork(
        kind="structured",
        path=path,
        column=column,
        system=system,
        schema=schema,
        model_type=model_type,
        **settings,
    )


def as_work(work: Any) -> Work:
    """Return the work; a function is wrapped.

    Raises:
        ConfigError: It is neither a work nor an `async def` function of two arguments.
    """
    if isinstance(work, (HttpWork, FunctionWork)):
        return work
    takes = (
        "expected chat(…), completion(…), embeddings(…), structured(…) or an async def "
        "f(client, row)"
    )
    # an object with an `async def __call__` serves as well
    call = getattr(work, "__call__", None)  # noqa: B004
    if not inspect.iscoroutinefunction(work) and not inspect.iscoroutinefunction(call):
        raise ConfigError(f"work={work!r}; {takes}.")
    try:
        # refused here, since each row would otherwise fail with the same error
        inspect.signature(work).bind(None, None)
    except TypeError as error:
        raise ConfigError(
            f"work={work!r} cannot be called with (client, row): {error}; {takes}."
        ) from error
    return FunctionWork(work)


def _tokens(usage: Any, name: str) -> int:
    """Return a count of tokens; 0 if the server's is missing or invalid."""
    count = usage.get(name) if isinstance(usage, Mapping) else None
    if not isinstance(count, int) or isinstance(count, bool):
        return 0
    return count if 0 <= count < _MOST_TOKENS else 0


def _vector(embedding: Any) -> list[float]:
    """Return an embedding as numbers; `encoding_format="base64"` has it as 32-bit floats.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(embedding, str):
        raw = base64.b64decode(embedding, validate=True)
        if len(raw) % 4:
            raise ValueError("no whole 32-bit floats")
        embedding = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    is_vector = isinstance(embedding, list) and embedding
    if not is_vector or not all(
        type(number) in (float, int) and math.isfinite(number) for number in embedding
    ):
        raise ValueError("no vector of numbers")
    return list(embedding)


def _digest_of(headers: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(headers.items())).encode()).hexdigest()[:16]


def _quoted(answer: Any) -> str:
    try:
        return shortened(json.dumps(answer))
    except RecursionError:
        return "it is nested too deeply"


def _check_schema(schema: Mapping[str, Any]) -> None:
    jsonschema = _jsonschema()
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"schema= is not a valid JSON schema: {error.message}.") from error


def _validate(value: Any, schema: Any) -> None:
    error = _jsonschema().exceptions.best_match(_validator(json.dumps(schema)).iter_errors(value))
    if error is not None:
        raise ValueError(f"{error.json_path}: {error.message}") from error


@functools.lru_cache(maxsize=8)
def _validator(schema: str) -> Any:
    """Return the validator of a schema; to make one takes far longer than to use it."""
    value = json.loads(schema)
    return _jsonschema().validators.validator_for(value)(value)


def _jsonschema() -> Any:
    with requires(
        "jsonschema",
        "Validating by a JSON schema",
        hint=f"{install_command('batch')}, or pass a pydantic model.",
    ):
        return importlib.import_module("jsonschema")
