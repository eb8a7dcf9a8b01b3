"""Sends the requests: through aiohttp; a function uses the endpoint's own client."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from ...errors import ConfigError, MissingDependencyError, UnsupportedError
from ..record import record_of
from .faults import Fault, fault_of_status, shortened
from .rows import Row
from .work import FunctionWork, HttpWork, RowAnswer, Work

_PROBE_SECONDS = 5.0
_QUEUES = re.compile(
    r"^(?:vllm:num_requests_waiting|sglang:num_queue_reqs|llamacpp:requests_deferred|num_requests_waiting"
    r"|te_queue_size|tgi_queue_size|nv_inference_pending_request_count)(?:\{[^}]*\})? ([0-9.eE+]+)",
    re.MULTILINE,
)
"""Requests that wait inside a server: vLLM 0.33, SGLang 0.5, llama.cpp, NIM 1.x, TEI 1.9, TGI 3.3,
Triton 2.71."""


class BatchEndpoint(Protocol):
    """What a batch needs to know of a model server."""

    @property
    def url(self) -> str:
        """Its origin, `http://localhost:8000`."""

    @property
    def protocol(self) -> str:
        """`openai`, `v2` or `none`."""

    @property
    def model(self) -> str:
        """The name that requests ask for; empty for the first that `/v1/models` lists."""

    @property
    def health_url(self) -> str | None:
        """Answers below 500 when the server is ready; None when there is none."""

    @property
    def metrics_url(self) -> str | None:
        """Answers with Prometheus metrics; None when there are none."""

    @property
    def api_key(self) -> str:
        """Sent as a bearer token; empty for none."""

    def async_client(self, *, timeout: float, outage_seconds: float, retry_busy: bool) -> Any:
        """Return the client that the user's own function gets."""


class Caller:
    """Sends requests to one server. Made, used and closed on one event loop.

    Args:
        endpoint: The server.
        work: What is asked.
        deadline: Seconds that one request may take.

    Raises:
        UnsupportedError: The server does not speak the work's protocol.
        MissingDependencyError: aiohttp is not installed.
    """

    def __init__(self, endpoint: BatchEndpoint, work: Work, *, deadline: float) -> None:
        self._aiohttp = _import_aiohttp()
        self._endpoint = endpoint
        self._work = work
        self._deadline = deadline
        self._origin = endpoint.url.rstrip("/")
        self._record = record_of(endpoint.url)
        self._model = ""
        self._client: Any = None
        if isinstance(work, FunctionWork):
            # what went wrong is for the limiter to see, not for the client to wait out
            self._client = endpoint.async_client(
                timeout=deadline, outage_seconds=0, retry_busy=False
            )
        else:
            if endpoint.protocol == "v2":  # a custom server ("none") may well have OpenAI's routes
                message = (
                    f"work is {work.kind}, which asks by OpenAI's protocol; the server at "
                    f"{endpoint.url} speaks 'v2'."
                )
                raise UnsupportedError(message, hint="Pass an async def f(client, row) instead.")
            self._model = str(work.parameters.get("model") or endpoint.model)
        headers = {"Content-Type": "application/json"}
        if endpoint.api_key:
            headers["Authorization"] = f"Bearer {endpoint.api_key}"
        self._session = self._aiohttp.ClientSession(
            # the limiter bounds the connections, and the server is on this machine or in this pod
            connector=self._aiohttp.TCPConnector(limit=0),
            timeout=self._aiohttp.ClientTimeout(total=deadline, connect=min(deadline, 30.0)),
            headers=headers,
        )

    async def find_model(self) -> str:
        """Return the model's name, asking the server when the endpoint does not say it.

        Raises:
            ConfigError: The server lists several.
            Fault: The server does not answer.
        """
        if not self._model and isinstance(self._work, HttpWork):
            async with self._session.get(f"{self._origin}/v1/models") as response:
                text = await response.text(errors="replace")
                if response.status >= 500 or response.status == 429:
                    raise fault_of_status(response.status, text, response.headers)
            self._model = _only_model(text, self._endpoint.url)
        return self._model or self._endpoint.model

    async def call(self, row: Row) -> RowAnswer:
        """Return the answer for a row.

        Raises:
            Exception: What `fault_of_exception` makes a fault of.
        """
        if isinstance(self._work, HttpWork):
            return await self._post(self._work, row)
        output = await asyncio.wait_for(
            self._work.function(self._client, row.value), self._deadline
        )
        return RowAnswer(output)

    async def is_up(self) -> bool:
        """Return whether the server answers its health check, or anything where it has none."""
        timeout = self._aiohttp.ClientTimeout(total=_PROBE_SECONDS)
        try:
            async with self._session.get(
                self._endpoint.health_url or self._origin, timeout=timeout
            ) as response:
                return response.status < 500 or not self._endpoint.health_url
        except (self._aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return False

    async def queue_length(self) -> int | None:
        """Return how many requests wait inside the server, None when its metrics do not say."""
        timeout = self._aiohttp.ClientTimeout(total=_PROBE_SECONDS)
        try:
            async with self._session.get(
                self._endpoint.metrics_url or self._origin, timeout=timeout
            ) as response:
                return (
                    parse_queue_length(await response.text(errors="replace"))
                    if response.status == 200
                    else None
                )
        except (self._aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return None
        except (ValueError, OverflowError):  # +Inf, NaN, or no number: a hint cannot end the run
            return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()
        close = getattr(self._client, "close", None) or getattr(self._client, "aclose", None)
        result = close() if close is not None else None
        if asyncio.iscoroutine(result):
            await result

    async def _post(self, work: HttpWork, row: Row) -> RowAnswer:
        body = work.body(row.position, row.value, self._model)
        if not body["model"]:
            del body["model"]
        try:
            data = json.dumps(body).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise Fault(
                "invalid_row", f"Row {row.position + 1} has no form as JSON: {error}."
            ) from error
        try:
            response, raw = await self._send(work.path, data)
        except asyncio.TimeoutError as error:
            message = f"No answer within the deadline of {self._deadline:g} s."
            raise Fault(
                "timeout", f"{message} If the model needs longer, raise deadline=."
            ) from error
        if response.status != 200:
            raise fault_of_status(response.status, raw.decode(errors="replace"), response.headers)
        return work.read(_parse(raw, response.headers))

    async def _send(self, path: str, data: bytes) -> tuple[Any, bytes]:
        """Return an answer and its body, and put the request on record."""
        entry = self._record.begin(f"POST {path}")
        try:
            async with self._session.post(self._origin + path, data=data) as response:
                raw = await response.read()
        except BaseException as error:
            self._record.end(entry, error)
            raise
        entry.status = response.status
        self._record.end(entry)
        return response, raw


def parse_queue_length(text: str) -> int | None:
    """Return the sum of what a page of Prometheus metrics says of waiting requests, None when it says nothing."""
    values = [float(value) for value in _QUEUES.findall(text)]
    return round(sum(values)) if values else None


def _only_model(text: str, url: str) -> str:
    """Return the only model of a list; nothing when it is no list, as of a server of one model without that route."""
    try:
        names = list(dict.fromkeys(str(model["id"]) for model in json.loads(text)["data"]))
    except (ValueError, LookupError, TypeError):
        return ""
    if len(names) > 1:
        message = (
            f"The server at {url} lists {', '.join(map(repr, names[:8]))}: which one to ask "
            "for is not clear."
        )
        raise ConfigError(message, hint="Name it: chat(model=…), or in the template.")
    return names[0] if names else ""


def _parse(raw: bytes, headers: Mapping[str, str]) -> Any:
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise Fault("invalid_answer", "The answer is JSON that is nested too deeply.") from error
    except ValueError as error:
        text = raw.decode(errors="replace")
        kind = headers.get("Content-Type", "of no type").partition(";")[0]
        if text.lstrip()[:1] in ("{", "["):
            raise Fault(
                "invalid_answer", f"The answer is broken JSON ({error}): {shortened(text)}"
            ) from error
        quoted = shortened(re.sub(r"<[^>]*>", " ", text), 120) or "nothing"
        message = (
            f"The answer is {kind}, not JSON; does another program answer at this address? "
            f"It says: {quoted}"
        )
        raise Fault("not_json", message) from error


def _import_aiohttp() -> Any:
    try:
        import aiohttp
    except ImportError as error:
        raise MissingDependencyError(
            "batch needs the package aiohttp.", hint="pip install aiohttp"
        ) from error
    return aiohttp
