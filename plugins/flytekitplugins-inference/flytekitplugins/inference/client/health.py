"""Asking a server whether it is there: one short request, of the standard library's client.

`programs/server/server_probe.py` belongs to the containers beside the task and judges readiness;
this only asks whether anybody answers.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

__all__ = ["Answer", "ask", "is_loopback"]

REQUEST_SECONDS = 21.0
"""SGLang's health call generates a token and answers after up to 20 s
(`SGLANG_HEALTH_CHECK_TIMEOUT`, 0.5)."""
MAX_SHOWN = 200
"""Characters of an answer's body that are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of asking once."""

    asked: str
    """The question, without query."""
    text: str
    """What was answered, or why nothing was; goes on after `asked`, without a full stop."""
    is_there: bool
    """Whether the server answers requests: anything below 500, since some gateways know no such
    path."""

    def __str__(self) -> str:
        return f"{self.asked} {self.text}"


def ask(url: str, *, api_key: str = "", seconds: float = REQUEST_SECONDS) -> Answer:
    """Return what the server answers at a readiness address; without a path, an open port is an answer.

    Args:
        url: http or https.
        api_key: Sent as a bearer token, for gateways that let nobody in without.
        seconds: Bound of connecting, and of each part of the answer.
    """
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    asked = f"GET {parts.scheme}://{parts.netloc}{parts.path}" if path else f"TCP {parts.netloc}"
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    is_there = False
    try:
        is_there, text = _exchange(connection, path, api_key)
    except ConnectionRefusedError:
        text = "was refused: nothing listens on the port"
    except TimeoutError:
        text = f"did not answer within {seconds:.3g} s"
    except OSError as error:
        text = f"found no server: {error.strerror or type(error).__name__}"
    except (HTTPException, ValueError) as error:  # whose text may quote a header
        text = f"answered something that is not HTTP ({type(error).__name__})"
    finally:
        connection.close()
    return Answer(asked=asked, text=text, is_there=is_there)


def _exchange(connection: HTTPConnection, path: str, api_key: str) -> tuple[bool, str]:
    connection.connect()
    if not path:
        return True, "is open"
    headers = {"Accept": "*/*", **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    if response.status < 500:
        return True, f"answered {response.status}"
    return False, f"answered {response.status}: {shown(response.read(4 * MAX_SHOWN))}"


def is_loopback(url: str) -> bool:
    """Return whether a URL names this machine, or a container of the same pod."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_unknown_host(error: BaseException | None) -> bool:
    """Return whether a name has no address, which waiting does not mend; unlike a resolver that is busy."""
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME


def shown(body: bytes | str) -> str:
    """Return the beginning of a text on one line, in quotes, or "nothing"."""
    text = (
        body if isinstance(body, str) else body[: 4 * MAX_SHOWN].decode("utf-8", errors="replace")
    )
    line = " ".join(text.split())
    return repr(line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}…") if line else "nothing"
