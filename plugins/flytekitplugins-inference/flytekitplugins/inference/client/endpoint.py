"""`Endpoint`: where a model server answers, and the clients that talk to it.

The same code works against the sidecar, against a server that runs on this machine, and against one
that runs elsewhere: `template.endpoint` names the first two, `at("https://…")` or the variable
`INFERENCE_URL` the last. Standard library only; what a client needs is imported when one is made.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError
from ..facts.address import AddressError, CredentialsInUrlError, parse_address
from ..facts.metric_names import KNOWN_NAMES, MetricNames
from .attempts import Limits
from .record import Record, record_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .batch import AsyncBatch, BatchResult
    from .report import Report

__all__ = ["API_KEY_VARIABLE", "URL_VARIABLE", "About", "Endpoint", "from_environment"]

URL_VARIABLE = "INFERENCE_URL"
"""Environment variable that replaces the address of a model server; then none is started on this
machine. With several servers in a pod, `INFERENCE_URL_<NAME>` is that of one: upper case, `_` for
`-`."""
API_KEY_VARIABLE = "INFERENCE_API_KEY"
"""Environment variable with the key for that address; `INFERENCE_API_KEY_<NAME>` for one of
several."""

TIMEOUT_SECONDS = 120.0
"""Longer than a slow generation, shorter than the patience of who waits for a server that hangs."""
OUTAGE_SECONDS = 300.0
"""A container that ended is started again after 10 s, then 20, 40, 80 and 160 (the kubelet's
back-off), and loads its model anew."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a report tells of a server besides its address; what is not known is empty."""

    name: str = ""
    """Its name in a pod with several."""
    kind: str = ""
    """The template's class: `VLLM`."""
    model: str = ""
    """Where its model comes from."""
    image: str = ""
    gpus: int | None = None
    cpu: str = ""
    mem: str = ""
    metric_names: MetricNames = field(default_factory=dict)
    """Its names for each quantity of its metrics, as in `Server.metric_names`."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model server answers, and how it is spoken to.

    Raises:
        ConfigError: If an address is none.

    Example:
        ```python
        endpoint = template.endpoint
        client = endpoint.client()
        client.chat.completions.create(model=endpoint.served_model_name(), messages=[…])
        ```
    """

    url: str
    """Where the API begins, without a slash at the end and without `/v1` or `/v2`:
    `http://localhost:8000`."""
    protocol: Literal["openai", "v2", "none"] = "none"
    """The server's API: OpenAI's, the Open Inference Protocol of Triton, MLServer and KServe, or
    one of its own."""
    model: str = ""
    """The name under which requests ask for the model; empty: that of the only one which the server
    lists."""
    health_url: str | None = None
    """Answers below 500 when the server is ready. `None`: an open port is enough."""
    metrics_url: str | None = None
    """Where the server's Prometheus metrics are, or `None` when it has none or they are not
    known."""
    cold_start: str | None = None
    """The file with the report on the server's start, where there is one."""
    api_key: str = field(default="", repr=False)
    """Sent as a bearer token with every request; empty sends none."""
    about: About | None = field(default=None, repr=False, compare=False)
    """What a report tells of the server; a template fills it in."""

    def __post_init__(self) -> None:
        url, problem = _normalised(self.url)
        if (
            problem is None
            and self.protocol != "none"
            and url.endswith(suffix := _SUFFIXES[self.protocol])
        ):
            url = url[: -len(suffix)]
        object.__setattr__(self, "url", url)
        problems = [] if problem is None else [f"url {problem}"]
        for name in ("health_url", "metrics_url"):
            value = getattr(self, name)
            if value is not None and (problem := _normalised(value)[1]):
                problems.append(f"{name} {problem}")
        if self.protocol not in ("openai", "v2", "none"):
            problems.append(f"protocol={self.protocol!r} is not 'openai', 'v2' or 'none'")
        if not (self.api_key.isascii() and self.api_key.isprintable() and " " not in self.api_key):
            problems.append(
                "api_key is not a token: it holds blanks, line breaks or characters outside of "
                "ASCII"
            )
        if problems:
            raise ConfigError("Endpoint(…) cannot be used:", problems=problems)

    def at(self, url: str, *, api_key: str = "") -> Endpoint:
        """Return the endpoint of another server of the same kind.

        The paths of readiness and metrics stay as they are when they were below the old address.

        Args:
            url: Where its API begins; a `/v1` or `/v2` at the end is left out.
            api_key: Sent as a bearer token.

        Raises:
            ConfigError: If it is no address.
        """
        about = self.about and replace(
            self.about, image="", gpus=None, cpu="", mem=""
        )  # of that one, nobody knows
        moved = replace(
            self,
            url=url,
            health_url=None,
            metrics_url=None,
            cold_start=None,
            api_key=api_key,
            about=about,
        )
        return replace(
            moved,
            health_url=_moved(self.health_url, self.url, moved.url),
            metrics_url=_moved(self.metrics_url, self.url, moved.url),
        )

    @property
    def metric_names(self) -> MetricNames:
        """The server's names for each quantity of its metrics.

        Of a server without a description, those of all servers that are known.
        """
        return self.about.metric_names if self.about else KNOWN_NAMES

    @property
    def record(self) -> Record:
        """What the clients of this process saw of the server at this address."""
        return record_of(self.url)

    def client(
        self,
        *,
        timeout: float = TIMEOUT_SECONDS,
        outage_seconds: float = OUTAGE_SECONDS,
        retry_busy: bool = True,
    ) -> Any:
        """Return a client of the server, to be used by any number of threads and closed when no longer needed.

        Args:
            timeout: Seconds from sending a request to the first byte of its answer, and between two
                parts of it. A request that takes longer is not sent again.
            outage_seconds: How long a request waits for a server that went away, or for one that is
                busy.
            retry_busy: Whether 429, 502 and 503 of a server that is ready are asked again; `False`
                hands them to the caller, who can send less.

        Returns:
            `openai.OpenAI` for `protocol="openai"`, `V2Client` for `"v2"`, otherwise the `Client`
            of httpx2 or httpx.

        Raises:
            MissingDependencyError: If the client's library is not installed.
        """
        limits = _limits(timeout, outage_seconds, retry_busy)
        if self.protocol == "openai":
            from .chat import openai_client

            return openai_client(self, limits)
        if self.protocol == "v2":
            from .v2 import V2Client

            return V2Client(self, limits)
        return self._http(limits)

    def async_client(
        self,
        *,
        timeout: float = TIMEOUT_SECONDS,
        outage_seconds: float = OUTAGE_SECONDS,
        retry_busy: bool = True,
    ) -> Any:
        """As `client`, for asyncio.

        Returns:
            `openai.AsyncOpenAI`, `AsyncV2Client`, or the `AsyncClient` of httpx2 or httpx.
        """
        limits = _limits(timeout, outage_seconds, retry_busy)
        if self.protocol == "openai":
            from .chat import async_openai_client

            return async_openai_client(self, limits)
        if self.protocol == "v2":
            from .v2 import AsyncV2Client

            return AsyncV2Client(self, limits)
        from . import http

        return http.async_client(self, limits, http=http.library())

    def report(self, *, path: str | Path | None = None) -> Report:
        """Return what the server did so far: how it started, what was asked, how fast it was, what to change.

        Args:
            path: A directory into which the page and its numbers are also written.

        Example:
            ```python
            with sampling(endpoint):  # from flytekitplugins.inference.client.report: its own metrics, too
                ...
            endpoint.report(path="reports")
            ```
        """
        from .report import report

        return report([self], path=path)

    def batch(self, rows: Any, **options: Any) -> BatchResult:
        """Ask the server about every row; see `client.batch.batch`."""
        from .batch import batch

        return batch(self, rows, **options)

    def abatch(self, rows: Any, **options: Any) -> AsyncBatch:
        """As `batch`, for asyncio: `await` it for the result, or iterate over it for the records."""
        from .batch import abatch

        return abatch(self, rows, **options)

    def served_model_name(self) -> str:
        """Return `model`, or ask the server for the name of the only one it has.

        Raises:
            ConfigError: If it has none or several, or cannot be asked.
            ServerError: If it does not answer.
        """
        if self.model:
            return self.model
        from .models import only_model_of, request_of

        request = request_of(self)
        with self._http(_limits(TIMEOUT_SECONDS, OUTAGE_SECONDS, True)) as client:
            return only_model_of(self, client.request(**request))

    def _http(self, limits: Limits) -> Any:
        from . import http

        return http.client(self, limits, http=http.library())


def from_environment(
    name: str = "", *, environ: Mapping[str, str] | None = None
) -> tuple[str, str] | None:
    """Return the address of a server that runs elsewhere and the key for it, or `None` when no variable names one.

    Args:
        name: The server's name, when a pod has several; then only its own variable counts.
        environ: Instead of this process's environment.

    Raises:
        ConfigError: If the variable does not hold an http or https URL; the text is not shown, as
            it may hold a password.
    """
    variables = os.environ if environ is None else environ
    suffix = f"_{name.upper().replace('-', '_')}" if name else ""
    url = variables.get(URL_VARIABLE + suffix, "").strip()
    if not url:
        return None
    url, problem = _normalised(url)
    if problem:
        raise ConfigError(
            f"The environment variable {URL_VARIABLE}{suffix} {problem}.", hint=_URL_HINT
        )
    return url, variables.get(API_KEY_VARIABLE + suffix, "")


_SUFFIXES = {"openai": "/v1", "v2": "/v2"}
_URL_HINT = "Write it as http://localhost:8000 or https://host/path."


def _normalised(url: str) -> tuple[str, str | None]:
    """Return an address without the slash at its end, and what is wrong with it."""
    try:
        parse_address(url)
    except CredentialsInUrlError as error:
        return url, f"{error}: give api_key instead"
    except AddressError as error:
        return url, str(error)
    if "?" in url or "#" in url:
        return url, "has a query or a fragment, which cannot be kept"
    return url.rstrip("/"), None


def _moved(url: str | None, old: str, new: str) -> str | None:
    is_below = url is not None and (url == old or url.startswith(f"{old}/"))
    return new + url[len(old) :] if url is not None and is_below else None


def _limits(timeout: float, outage_seconds: float, retry_busy: bool) -> Limits:
    problems = [
        f"{name}={value!r} is not a number of seconds {bound}"
        for name, value, bound, is_right in (
            ("timeout", timeout, "above 0", _is_number(timeout) and timeout > 0),
            (
                "outage_seconds",
                outage_seconds,
                "of 0 or more",
                _is_number(outage_seconds) and outage_seconds >= 0,
            ),
        )
        if not is_right
    ]
    if problems:
        raise ConfigError("client(…) cannot be made:", problems=problems)
    return Limits(timeout_seconds=timeout, outage_seconds=outage_seconds, retry_busy=retry_busy)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
