"""Asking a model server whether it is ready: one request at a time, each bounded, no redirect followed."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, replace
from enum import Enum
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote, urlsplit

from ...errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPResponse

MAX_LIST_BYTES = 4 * 1024 * 1024
"""How much of a list of models is read."""
MAX_SHOWN = 200
"""Characters of an answer's body that are shown."""
MAX_SHOWN_MODELS = 8
TICK_SECONDS = 0.25
"""How often a caller is called back while an answer is awaited."""

_T = TypeVar("_T")


class Api(str, Enum):
    """How a server is asked for one model."""

    OPENAI = "openai"
    """`GET /v1/models` lists it."""
    V2 = "v2"
    """`GET /v2/models/<name>/ready` is 200: the Open Inference Protocol of Triton and MLServer."""
    NONE = "none"
    """It is not asked for."""


class Call(Generic[_T]):
    """Something that may take its time, in a thread that nobody has to wait for.

    A socket's own timeout bounds one read, neither a look-up of a name nor an answer that arrives
    byte by byte.

    Args:
        action: What to do; its exception is raised by `result`.
    """

    def __init__(self, action: Callable[[], _T]) -> None:
        self._done = threading.Event()
        self._results: list[_T] = []
        self._errors: list[Exception] = []
        threading.Thread(target=self._run, args=(action,), daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long and return whether it is done."""
        return self._done.wait(max(seconds, 0))

    def result(self) -> _T:
        """Return what the action returned; only when it is done."""
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def _run(self, action: Callable[[], _T]) -> None:
        try:
            self._results.append(action())
        except Exception as error:  # handed to the thread that asks for the result
            self._errors.append(error)
        finally:
            self._done.set()


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a server listens."""

    scheme: str
    host: str
    port: int
    path: str
    """With its query; empty when a connection is all that is asked for."""

    @property
    def origin(self) -> str:
        """Scheme, host and port as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Return the address that `url` names.

    Raises:
        UsageError: It is no `http` or `https` URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        parts, port = urlsplit(""), 0
    if (
        not parts.hostname
        or parts.username is not None
        or not url.isprintable()
        or " " in url
        or not url.isascii()
    ):
        raise UsageError(
            "The server's address is not a plain http or https URL without user and password.",
            hint="Write it as http://localhost:8000/health.",
        )
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path
    return Address(scheme=parts.scheme, host=parts.hostname, port=port, path=path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of asking once."""

    text: str
    """What was answered, or why nothing was: goes on after `asked`, without a full stop."""
    asked: str = ""
    """The request, without query."""
    is_ready: bool = False
    is_open: bool | None = None
    """Whether the port was open; None when that was not to be told."""
    hint: str = ""
    """What this answer in particular calls for."""
    seconds: float = 0.0


class ServerProbe:
    """Asks one server.

    Args:
        address: The readiness address.
        model: The model to ask for, if any.
        api: How to ask for it.
        token: Sent when asking for the model, to this server only.
        tick: Called again and again while an answer is awaited; may raise.
    """

    def __init__(
        self, address: Address, *, model: str, api: Api, token: str, tick: Callable[[], None]
    ) -> None:
        self._address = address
        self._model = model
        self._api = api
        self._token = token
        self._tick = tick

    @property
    def asks_for_model(self) -> bool:
        """Whether `ask_model` is part of being ready."""
        return bool(self._model) and self._api is not Api.NONE

    def ask_readiness(self, seconds: float) -> Answer:
        """Ask whether the server is ready: 2xx or 3xx, or an open port where the address has no path."""
        if not self._address.path:
            return self._ask("", seconds, None)
        return self._ask(self._address.path, seconds, _readiness)

    def ask_model(self, seconds: float) -> Answer:
        """Ask whether the server has the model."""
        if self._api is Api.V2:
            return self._ask(
                f"/v2/models/{quote(self._model, safe='')}/ready", seconds, _model_ready
            )
        return self._ask("/v1/models", seconds, self._listed)

    def _ask(
        self, path: str, seconds: float, judge: Callable[[HTTPResponse], Answer] | None
    ) -> Answer:
        address, started = self._address, time.monotonic()
        asked = (
            f"GET {address.origin}{path.partition('?')[0]}"
            if judge
            else f"TCP {address.host}:{address.port}"
        )
        sockets: list[socket.socket] = []
        call = Call(lambda: self._exchange(path, seconds, sockets, judge))
        try:
            while not call.wait(min(TICK_SECONDS, started + seconds - time.monotonic())):
                self._tick()
                if time.monotonic() - started >= seconds:
                    text = f"did not answer within {seconds:.3g} s"
                    answer = Answer(text=text, is_open=True if sockets else None)
                    break
            else:
                answer = call.result()
        finally:
            for connected in sockets:  # a thread that still reads from it ends too
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)
        return replace(answer, asked=asked, seconds=time.monotonic() - started)

    def _exchange(
        self,
        path: str,
        seconds: float,
        sockets: list[socket.socket],
        judge: Callable[[HTTPResponse], Answer] | None,
    ) -> Answer:
        connection = self._connection(seconds + 1)  # it is the caller who ends what takes too long
        try:
            connection.connect()
            sockets.append(connection.sock)
        except ConnectionRefusedError:
            return Answer(text="was refused: nothing listens on the port", is_open=False)
        except (OSError, UnicodeError) as error:
            return Answer(text=f"found no connection: {_reason(error)}")
        try:
            if judge is None:
                return Answer(text="is open", is_ready=True, is_open=True)
            headers = {"Accept": "*/*", "User-Agent": "flytekitplugins-inference"}
            if self._token and path != self._address.path:
                headers["Authorization"] = f"Bearer {self._token}"
            connection.request("GET", path, headers=headers)
            return replace(judge(connection.getresponse()), is_open=True)
        except OSError as error:
            return Answer(text=f"broke off: {_reason(error)}", is_open=True)
        except (HTTPException, ValueError) as error:
            text = f"answered something that is not HTTP: {_reason(error)}"
            return Answer(text=text, is_open=True)
        finally:
            connection.close()

    def _connection(self, seconds: float) -> HTTPConnection:
        address = self._address
        if address.scheme == "http":
            return HTTPConnection(address.host, address.port, timeout=seconds)
        context = ssl.create_default_context()
        if _is_loopback(
            address.host
        ):  # as the kubelet does: no authority certifies a pod's own server
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return HTTPSConnection(address.host, address.port, timeout=seconds, context=context)

    def _listed(self, response: HTTPResponse) -> Answer:
        if response.status != 200:
            return _refused(response)
        body = response.read(MAX_LIST_BYTES)
        try:
            models = [model["id"] for model in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return Answer(text=f"answered 200, but not with a list of models: {_shown(body)}")
        if self._model in models:
            return Answer(text="lists the model", is_ready=True)
        names = [_shown(str(name)) for name in models[:MAX_SHOWN_MODELS]]
        names += (
            [f"{len(models) - MAX_SHOWN_MODELS} more"] if len(models) > MAX_SHOWN_MODELS else []
        )
        listed = ", ".join(names) or "no model"
        hint = (
            "Wait for the name that the server gives the model (its served model name)."
            if models
            else ""
        )
        return Answer(
            text=f"answered 200, but lists {listed} instead of {self._model!r}", hint=hint
        )


def _readiness(response: HTTPResponse) -> Answer:
    if 200 <= response.status < 400:
        return Answer(text=f"answered {response.status}", is_ready=True)
    return Answer(text=f"answered {response.status}: {_shown(response.read(MAX_SHOWN * 4))}")


def _model_ready(response: HTTPResponse) -> Answer:
    if response.status == 200:
        return Answer(text="answered 200", is_ready=True)
    hint = "Wait for the name that the model has in the server's repository."
    return (
        replace(_refused(response), hint=hint)
        if response.status in (400, 404)
        else _refused(response)
    )


def _refused(response: HTTPResponse) -> Answer:
    body = _shown(response.read(MAX_SHOWN * 4))
    if response.status in (401, 403):
        text = (
            f"answered {response.status}: the server wants a key that it was not given, or "
            f"another one ({body})"
        )
        return Answer(
            text=text, hint="Name the variable that holds the server's API key with --token-env."
        )
    return Answer(text=f"answered {response.status}: {body}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Exception) -> str:
    """Return what went wrong, but not a ValueError's text: http.client's quotes headers."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = "" if type(error) is ValueError else str(error)
    return f"{type(error).__name__} {_shown(text)}" if text else type(error).__name__


def _shown(body: bytes | str) -> str:
    """Return the beginning of a text on one line, in quotes, or "nothing"."""
    text = (
        body if isinstance(body, str) else body[: 4 * MAX_SHOWN].decode("utf-8", errors="replace")
    )
    line = " ".join(text.split())
    return repr(line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}…") if line else "nothing"
