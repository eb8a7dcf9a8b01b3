"""Asks a model server whether it is ready, with one bounded request at a time and no redirects."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from ...errors import UsageError
from ...facts.address import AddressError, parse_address
from ...facts.background import BackgroundCall
from ...facts.http_exchange import HttpExchange, NoAnswerError, NoAnswerReason
from ...facts.model_list import MAX_LIST_BYTES, listed, model_names, model_ready_path
from ...facts.readiness import is_ready
from ...facts.wording import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...facts.address import Address
    from ...facts.http_exchange import HttpAnswer

TICK_SECONDS = 0.25
"""Interval of the calls of `tick` during a request."""


class Api(str, Enum):
    """The API that reports whether a server has a model."""

    OPENAI = "openai"
    """`GET /v1/models` lists it."""
    V2 = "v2"
    """`GET /v2/models/<name>/ready` is 200: the Open Inference Protocol of Triton and MLServer."""
    NONE = "none"
    """The server is not asked for the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeAnswer:
    """The result of one request."""

    text: str
    """The answer, or why none arrived; continues the sentence after `asked`; no full stop."""
    asked: str = ""
    """The request, without its query."""
    is_ready: bool = False
    is_open: bool | None = None
    """Whether the port was open; None if that is unknown."""
    has_answered: bool = False
    """Whether the server answered, be it that it is not ready."""
    hint: str = ""
    """What to do about this particular answer."""
    seconds: float = 0.0


class ServerProbe:
    """Asks one server.

    Args:
        address: The readiness address.
        model: The model to ask for, if any.
        api: The API to ask.
        token: The bearer token of requests for the model; sent to this server only.
        tick: Called every `TICK_SECONDS` during a request; may raise.
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

    def ask_readiness(self, seconds: float) -> ProbeAnswer:
        """Ask whether the server is ready; without a path, an open port is enough."""
        judge = _readiness if self._address.path else None
        return self._ask(self._address, seconds, judge)

    def ask_model(self, seconds: float) -> ProbeAnswer:
        """Ask whether the server has the model."""
        if self._api is Api.V2:
            address = self._address.at(model_ready_path(self._model))
            return self._ask(address, seconds, _model_ready, token=self._token)
        address = self._address.at("/v1/models")
        return self._ask(address, seconds, self._listed, token=self._token)

    def _ask(
        self,
        address: Address,
        seconds: float,
        judge: Callable[[HttpAnswer], ProbeAnswer] | None,
        *,
        token: str = "",
    ) -> ProbeAnswer:
        started = time.monotonic()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # in a thread, so `tick` can run during the request, which has its own deadline
        call = BackgroundCall(lambda: _exchange(address, seconds, judge, headers)).start()
        while not call.wait(TICK_SECONDS):
            self._tick()
        asked = f"GET {address.shown}" if judge else f"TCP {address.authority}"
        return replace(call.result(), asked=asked, seconds=time.monotonic() - started)

    def _listed(self, answer: HttpAnswer) -> ProbeAnswer:
        if answer.status != 200:
            return _refused(answer)
        body = answer.read(MAX_LIST_BYTES)
        try:
            models = model_names("openai", body)
        except ValueError:
            return ProbeAnswer(text=f"answered 200, but not with a list of models: {excerpt(body)}")
        if self._model in models:
            return ProbeAnswer(text="lists the model", is_ready=True)
        text = f"answered 200, but lists {listed(models)} instead of {self._model!r}"
        hint = "Wait for the name that the server gives the model (its served model name)."
        return ProbeAnswer(text=text, hint=hint if models else "")


def server_address(url: str) -> Address:
    """Return the server's address from a program's argument.

    Raises:
        UsageError: The argument is not an address.
    """
    try:
        return parse_address(url)
    except AddressError:
        raise UsageError(
            "The server's address is not a plain http or https URL without user and password.",
            hint="Write it as http://localhost:8000/health.",
        ) from None


def _exchange(
    address: Address,
    seconds: float,
    judge: Callable[[HttpAnswer], ProbeAnswer] | None,
    headers: dict[str, str],
) -> ProbeAnswer:
    try:
        with HttpExchange(address, seconds=seconds) as exchange:
            exchange.connect()
            if judge is None:
                return ProbeAnswer(text="is open", is_ready=True, is_open=True, has_answered=True)
            exchange.send("GET", headers=headers)
            return replace(judge(exchange.receive()), is_open=True, has_answered=True)
    except NoAnswerError as error:
        return ProbeAnswer(text=_unanswered(error, seconds), is_open=_is_open(error))


def _unanswered(error: NoAnswerError, seconds: float) -> str:
    texts = {
        NoAnswerReason.REFUSED: f"was refused: {error.text}",
        NoAnswerReason.UNREACHABLE: f"found no connection: {error.text}",
        NoAnswerReason.TIMEOUT: f"did not answer within {seconds:.3g} s",
        NoAnswerReason.BROKEN: f"broke off: {error.text}",
        NoAnswerReason.NOT_HTTP: f"answered something that is not HTTP: {error.text}",
        NoAnswerReason.NOT_SENT: f"was not sent: {error.text}",
    }
    return texts[error.reason]


def _is_open(error: NoAnswerError) -> bool | None:
    """Return whether the port was open; `None` if a failure other than a refusal hides it."""
    if error.is_connected:
        return True
    return False if error.reason is NoAnswerReason.REFUSED else None


def _readiness(answer: HttpAnswer) -> ProbeAnswer:
    if is_ready(answer.status):
        return ProbeAnswer(text=f"answered {answer.status}", is_ready=True)
    return ProbeAnswer(text=f"answered {answer.status}: {answer.excerpt()}")


def _model_ready(answer: HttpAnswer) -> ProbeAnswer:
    if answer.status == 200:
        return ProbeAnswer(text="answered 200", is_ready=True)
    refused = _refused(answer)
    if answer.status not in (400, 404):
        return refused
    return replace(refused, hint="Wait for the name that the model has in the server's repository.")


def _refused(answer: HttpAnswer) -> ProbeAnswer:
    body = answer.excerpt()
    if answer.status not in (401, 403):
        return ProbeAnswer(text=f"answered {answer.status}: {body}")
    text = f"answered {answer.status}: the server wants a key that it was not given, or another"
    return ProbeAnswer(
        text=f"{text} one ({body})",
        hint="Name the variable that holds the server's API key with --token-env.",
    )
