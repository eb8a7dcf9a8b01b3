"""Asks a server once whether it answers.

`programs/server/server_probe.py` runs in the containers beside the task and judges readiness; this
module only finds out whether anything answers.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from ..facts.address import parse_address
from ..facts.http_exchange import HttpExchange, NoAnswerError, NoAnswerReason
from ..facts.readiness import HEALTH_SECONDS, is_answering

__all__ = ["HealthAnswer", "ask", "is_unknown_host"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthAnswer:
    """The outcome of one question."""

    asked: str
    """The question, without the URL's query."""
    text: str
    """The answer, or why there was none; continues `asked`, without a full stop."""
    is_there: bool
    """Whether the server answers requests: any status below 500, because some gateways do not know
    the path."""

    def __str__(self) -> str:
        return f"{self.asked} {self.text}"


def ask(url: str, *, api_key: str = "", seconds: float = HEALTH_SECONDS) -> HealthAnswer:
    """Return what the server answers at a readiness address.

    If the address has no path, an open port counts as an answer. The question takes the same route
    as the requests, which for some remote servers leads through a proxy.

    Args:
        url: http or https.
        api_key: Sent as a bearer token, for gateways that require one.
        seconds: The limit for connecting, sending and receiving together.
    """
    address = parse_address(url)
    asked = f"GET {address.shown}" if address.path else f"TCP {address.authority}"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    is_there = False
    try:
        with HttpExchange(address, seconds=seconds, proxied=True) as exchange:
            exchange.connect()
            if not address.path:
                return HealthAnswer(asked=asked, text="is open", is_there=True)
            exchange.send("GET", headers=headers)
            answer = exchange.receive()
            is_there = is_answering(answer.status)
            text = f"answered {answer.status}"
            text = text if is_there else f"{text}: {answer.excerpt()}"
    except NoAnswerError as error:
        text = _unanswered(error, seconds)
    return HealthAnswer(asked=asked, text=text, is_there=is_there)


def _unanswered(error: NoAnswerError, seconds: float) -> str:
    texts = {
        NoAnswerReason.REFUSED: f"was refused: {error.text}",
        NoAnswerReason.TIMEOUT: f"did not answer within {seconds:.3g} s",
        NoAnswerReason.NOT_HTTP: f"answered something that is not HTTP ({error.text})",
    }
    return texts.get(error.reason, f"found no server: {error.text}")


def is_unknown_host(error: BaseException | None) -> bool:
    """Return whether a host name has no address.

    Waiting does not fix that. It may fix other failures of the resolver, such as `EAI_AGAIN`.
    """
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
