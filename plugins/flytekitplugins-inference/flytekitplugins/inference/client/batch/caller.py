"""Sends the requests with aiohttp; a user's function gets the endpoint's own client."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from ...dependencies import requires
from ...errors import UnsupportedError
from ...facts.metric_names import MetricNames
from ...facts.metrics_page import MAX_PAGE_BYTES, queue_length
from ...facts.model_list import MAX_LIST_BYTES, only_model
from ...facts.readiness import is_answering
from ..record import record_of
from .faults import Fault, fault_of_status, shortened
from .json_form import as_json, copied
from .rows import Row
from .work import FunctionWork, HttpWork, RowAnswer, Work

MAX_ANSWER_BYTES = 64 << 20
"""The longest answer that is read; a vector of ten thousand numbers takes 0.2 MB."""
_PROBE_SECONDS = 5.0
_NO_SUCH_ROUTE = frozenset({404, 405, 501})


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
    def metric_names(self) -> MetricNames:
        """Its names for each quantity of its metrics."""

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
        if isinstance(work, HttpWork) and work.timeout is not None:
            self._deadline = deadline = work.timeout
        self._origin = endpoint.url.rstrip("/")
        self._record = record_of(endpoint.url)
        self._model = ""
        self._dimension = 0
        """Numbers of a vector, once one is known."""
        self._client: Any = None
        if isinstance(work, FunctionWork):
            # the limiter must see faults, so the client must not wait them out
            self._client = endpoint.async_client(
                timeout=deadline, outage_seconds=0, retry_busy=False
            )
        else:
            if endpoint.protocol == "v2":  # a custom server ("none") may have OpenAI's routes
                message = (
                    f"work is {work.kind}, which uses OpenAI's protocol; the server at "
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
        """Return the model's name; ask the server if the endpoint has none.

        It is empty for a server without this route: one with a single model may not need a name.

        Raises:
            ConfigError: The server lists none or several.
            ServerError: The answer is not a list of models.
            Fault: The server does not answer.
        """
        if not self._model and isinstance(self._work, HttpWork):
            async with self._session.get(f"{self._origin}/v1/models") as response:
                status = response.status
                body = await _read(response.content, MAX_LIST_BYTES)
            if status in _NO_SUCH_ROUTE:
                return ""
            # a server that is still loading answers so; `opening` waits for it
            if status >= 500 or status == 429:
                raise fault_of_status(status, body.decode(errors="replace"), response.headers)
            self._model = only_model("openai", url=self._endpoint.url, status=status, body=body)
        return self._model or self._endpoint.model

    async def call(self, row: Row) -> RowAnswer:
        """Return the answer for a row.

        Raises:
            Exception: Any error; `fault_of_exception` turns it into a fault.
        """
        if isinstance(self._work, HttpWork):
            return await self._post(self._work, row)
        # the user's function may do anything, so no client's timeout bounds it
        output = await asyncio.wait_for(
            self._work.function(self._client, copied(row.value)), self._deadline
        )
        if output is None:
            message = "The function returned None, which is no output; return True for 'done'."
            raise Fault("function", message)
        return RowAnswer(output)

    async def is_up(self) -> bool:
        """Return whether the server answers its health check, or any request if it has none."""
        timeout = self._aiohttp.ClientTimeout(total=_PROBE_SECONDS)
        try:
            async with self._session.get(
                self._endpoint.health_url or self._origin, timeout=timeout
            ) as response:
                return is_answering(response.status) or not self._endpoint.health_url
        except (self._aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return False

    async def queue_length(self) -> int | None:
        """Return how many requests wait inside the server, or None if its metrics do not say.

        It is only a hint for the limiter: whatever the server answers, the batch continues.
        """
        if not self._endpoint.metrics_url:
            return None
        timeout = self._aiohttp.ClientTimeout(total=_PROBE_SECONDS)
        try:
            async with self._session.get(self._endpoint.metrics_url, timeout=timeout) as response:
                if response.status != 200:
                    return None
                page = await _read(response.content, MAX_PAGE_BYTES + 1)
        except (self._aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError):
            return None
        return queue_length(page.decode(errors="replace"), self._endpoint.metric_names)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()
        # OpenAI's asynchronous client has a coroutine `close`, that of httpx has `aclose`
        close = getattr(self._client, "close", None) or getattr(self._client, "aclose", None)
        result = close() if close is not None else None
        if asyncio.iscoroutine(result):
            await result

    async def _post(self, work: HttpWork, row: Row) -> RowAnswer:
        try:
            body = work.body(row.position, row.value, self._model)
            if not body["model"]:
                # a server without a list of models may serve a single one, which needs no name
                del body["model"]
            data = json.dumps(body, default=as_json).encode()
        except Fault:
            raise
        except Exception as error:  # a row's own methods may raise anything
            raise Fault(
                "invalid_row", f"Row {row.position + 1} has no form as JSON: {error}."
            ) from error
        try:
            response, raw = await self._send(work, data)
        except asyncio.TimeoutError as error:
            message = f"No answer within the deadline of {self._deadline:g} s."
            raise Fault(
                "timeout", f"{message} If the model needs longer, raise deadline=."
            ) from error
        if response.status != 200:
            raise fault_of_status(response.status, raw.decode(errors="replace"), response.headers)
        answer = work.read(_parse(raw, response.headers))
        if work.kind == "embeddings":
            self._check_dimension(len(answer.output))
        return answer

    def _check_dimension(self, dimension: int) -> None:
        """Refuse a vector of another length than those of the other rows."""
        self._dimension = self._dimension or dimension
        if dimension != self._dimension:
            raise Fault(
                "invalid_answer",
                f"The vector has {dimension} numbers, and that of another row {self._dimension}.",
            )

    async def _send(self, work: HttpWork, data: bytes) -> tuple[Any, bytes]:
        """Return an answer and its body, and record the request."""
        entry = self._record.begin(f"POST {work.path}")
        try:
            # a redirect may lead to another host, which must not get the user's rows
            async with self._session.post(
                self._origin + work.path,
                data=data,
                headers=work.headers,
                params=work.query,
                allow_redirects=False,
            ) as response:
                raw = await _read(response.content, MAX_ANSWER_BYTES + 1)
        # a cancelled request is over as well; else the record would count it as in flight for ever
        except BaseException as error:
            self._record.end(entry, error)
            raise
        entry.status = response.status
        self._record.end(entry)
        if len(raw) > MAX_ANSWER_BYTES:
            message = f"The answer is longer than {MAX_ANSWER_BYTES >> 20} MiB."
            raise Fault("invalid_output", message)
        return response, raw


async def _read(content: Any, limit: int) -> bytes:
    """Return a body's first bytes: the address may not be that of a model server."""
    body = bytearray()
    while len(body) < limit and (block := await content.read(limit - len(body))):
        body += block
    return bytes(body)


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
    with requires("aiohttp", "batch(…)", hint="pip install aiohttp"):
        import aiohttp
    return aiohttp
