"""Asks a server for its page of metrics, within bounds of time and size."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...facts.http_exchange import NoAnswerError, NoAnswerReason, ask
from ...facts.metric_names import names_of
from ...facts.metrics_page import MetricFamily, MetricsPage, metric_families, summed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...facts.address import Address
    from ...facts.metric_names import MetricNames

__all__ = ["MAX_PAGE_BYTES", "PAGE_FAULTS", "PageFaultError", "ServerPage", "Upstream"]

MAX_PAGE_BYTES = 2**20
"""A page of a server with eight data-parallel ranks has 0.4 MiB. One of this size takes the
exporter to 50 MiB, and its container has 64: if it died of a page, the kubelet would restart the
server."""
PAGE_FAULTS = (
    *(reason.value for reason in NoAnswerReason),
    "status",
    "too_large",
    "truncated",
    "not_text",
)
"""Why a page may be unusable."""
_TYPE = re.compile(r"^# TYPE (\S+) ", re.MULTILINE)
_NATIVE = re.compile(
    r"^(?:# (?:HELP|TYPE) [a-zA-Z_:][\w:]* [^\n]*"
    r'|[a-zA-Z_:][\w:]*(?:\{(?:[ \t]*\w+[ \t]*=[ \t]*"[^"\\\n]*(?:\\.[^"\\\n]*)*"[ \t]*,?)*\})?'
    r"[ \t]+[-+\w.]+)$",
    re.MULTILINE | re.ASCII,
)
"""Lines of the text format without timestamps and exemplars."""


class PageFaultError(Exception):
    """A page did not arrive, or cannot be used.

    Args:
        reason: One of `PAGE_FAULTS`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ServerPage:
    """What one page of a server says."""

    families: dict[str, MetricFamily] = field(default_factory=dict)
    totals: MetricsPage = field(default_factory=MetricsPage)
    """The same without labels."""
    unmapped: int = 0
    """Families on it that the vocabulary has no place for."""
    size: int = 0
    """Bytes."""
    seconds: float = 0.0
    """How long it took."""
    native: str = ""
    """Its own lines, if they are wanted."""


class Upstream:
    """The page of one server.

    Args:
        address: Where the page is.
        names: The server's names for each quantity.
        token: Sent to the server as a bearer token.
        keeps_native: Whether the server's own lines are wanted too.
    """

    def __init__(
        self, address: Address, names: MetricNames, *, token: str, keeps_native: bool
    ) -> None:
        self._address = address
        self._names = names
        self._headers: Mapping[str, str] = {
            "Accept": "text/plain",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        self._token = token
        self._keeps_native = keeps_native
        self._mapped = {name for quantity in names for name in names_of(names, quantity)}

    def ask(self, seconds: float) -> ServerPage:
        """Return the page.

        Raises:
            PageFaultError: It did not arrive within `seconds`, or cannot be used.
        """
        began = time.monotonic()
        body = self._fetch(seconds)
        text = self._text(body)
        families = metric_families(text, self._names)
        return ServerPage(
            families=families,
            totals=summed(families),
            unmapped=sum(not self._is_mapped(name) for name in _TYPE.findall(text)),
            size=len(body),
            seconds=time.monotonic() - began,
            native=_native(text) if self._keeps_native else "",
        )

    def _fetch(self, seconds: float) -> bytes:
        try:
            with ask(self._address, seconds=seconds, headers=self._headers) as answer:
                if answer.status != 200:
                    raise PageFaultError("status")
                body = answer.read(MAX_PAGE_BYTES + 1)
        except NoAnswerError as error:
            raise PageFaultError(error.reason.value) from None
        if len(body) > MAX_PAGE_BYTES:
            raise PageFaultError("too_large")
        return body

    def _text(self, body: bytes) -> str:
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            raise PageFaultError("not_text") from None
        if "\0" in text:
            raise PageFaultError("not_text")
        # the last line of a page that was cut may hold a part of a number
        if text and not text.endswith("\n"):
            raise PageFaultError("truncated")
        # a server that repeats what it was sent must not publish its key
        return text.replace(self._token, "...") if self._token else text

    def _is_mapped(self, name: str) -> bool:
        # OpenMetrics and some clients leave `_total` out of the type's line; a histogram may be
        # read by one of its samples alone
        return not self._mapped.isdisjoint((name, f"{name}_total", f"{name}_count"))


def _native(text: str) -> str:
    """Return a page's own lines, without those that would spoil the page that they join.

    The times of creation that Python's client adds to each counter are as many lines as the
    counters, and no dashboard reads them.
    """
    lines = (match[0] for match in _NATIVE.finditer(text))
    return "".join(f"{line}\n" for line in lines if "_created" not in line)
