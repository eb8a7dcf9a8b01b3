"""A model server whose answers a test gives, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from flytekitplugins.inference.facts.metric_names import KNOWN_NAMES, MetricNames
from patience import patient
from ports import reserve_port

Handler = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Endpoint:
    """What `batch` needs to know of a server."""

    url: str
    model: str = "tiny"
    protocol: str = "openai"
    health_url: str | None = None
    metrics_url: str | None = None
    metric_names: MetricNames = field(default_factory=lambda: KNOWN_NAMES)
    api_key: str = ""
    client: Any = None

    def async_client(self, **options: Any) -> Any:
        return self.client


def text_of(body: Any) -> str:
    """Return the user's text of a request to any of the routes."""
    if "messages" in body:
        return str(body["messages"][-1]["content"])
    return str(body.get("prompt", body.get("input")))


def answered(text: str, **usage: int) -> web.Response:
    """Return an answer to a chat or a completion."""
    choice = {
        "message": {"role": "assistant", "content": text},
        "text": text,
        "finish_reason": "stop",
    }
    return web.json_response(
        {"choices": [choice], "usage": usage or {"prompt_tokens": 2, "completion_tokens": 3}}
    )


async def echo(request: web.Request, body: Any) -> web.StreamResponse:
    return answered(f"answer to {text_of(body)}")


@dataclass
class Server:
    """A server in a thread."""

    handler: Handler = echo
    """Answers all requests to the routes of OpenAI."""
    requests: list[Any] = field(default_factory=list)
    """The bodies, as they came."""
    most: int = 0
    """Requests that were in flight at once."""
    metrics: str = ""
    healthy: bool = True
    models: tuple[str, ...] = ("listed",)
    _busy: int = 0
    _port: int = field(default_factory=reserve_port)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(
            self.url, health_url=f"{self.url}/health", metrics_url=f"{self.url}/metrics"
        )

    @property
    def texts(self) -> list[str]:
        return [text_of(body) for body in self.requests]

    def start(self) -> None:
        """Listen, at once or again: on the same port, which is kept while the server is away."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(patient(10))

    def stop(self) -> None:
        """Break all connections and listen no more."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(patient(10))

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def end(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        for route in ("chat/completions", "completions", "embeddings"):
            app.router.add_post(f"/v1/{route}", self._answer)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.requests.append(body)
        self._busy += 1
        self.most = max(self.most, self._busy)
        try:
            return await self.handler(request, body)
        finally:
            self._busy -= 1

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self.metrics)
