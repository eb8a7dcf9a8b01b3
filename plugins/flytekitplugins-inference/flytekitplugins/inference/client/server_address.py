"""`ServerAddress`: where a model server answers and which protocol it speaks, as data.

Every other module of the client reads it. `Endpoint` adds the clients; no module below imports
`Endpoint`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, cast, get_args

from ..errors import ConfigError
from ..facts.address import AddressError, CredentialsInUrlError, parse_address
from ..facts.metric_names import KNOWN_NAMES, MetricNames
from ..public_dataclass import PublicDataclass
from .protocols import AnyProtocol, Protocol_co

if TYPE_CHECKING:
    from .record import Record

__all__ = ["ServerAddress", "ServerDetails", "normalised"]


@dataclass(frozen=True, kw_only=True)
class ServerDetails:
    """What a report shows of a server besides its address; unknown facts are empty."""

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
class ServerAddress(PublicDataclass, Generic[Protocol_co]):
    """Where a model server answers, and which protocol it speaks.

    Raises:
        ConfigError: Lists every field that cannot be used.
    """

    url: str
    """The base address of the API, without `/v1` or `/v2` and without a slash at the end:
    `http://localhost:8000`."""
    protocol: Protocol_co = cast("Protocol_co", "none")  # noqa: RUF009 - a text
    """The server's API: `"openai"`, `"v2"` (the Open Inference Protocol of Triton, MLServer and
    KServe), or `"none"` for one of its own."""
    model: str = ""
    """The model's name in requests; empty for the only model that the server lists."""
    health_url: str | None = None
    """The address that answers with a status below 500 when the server is ready. `None`: an open
    port is enough."""
    metrics_url: str | None = None
    """The address of the server's Prometheus metrics; `None` if it has none or the address is not
    known."""
    cold_start: str | None = None
    """The file with the report on the server's start, if there is one."""
    api_key: str = field(default="", repr=False)
    """Sent as a bearer token with every request; empty sends none."""
    about: ServerDetails | None = field(default=None, repr=False, compare=False)
    """What a report shows of the server; a template fills it in."""

    def __post_init__(self) -> None:
        url, url_problem = normalised(self.url)
        suffix = _SUFFIXES.get(self.protocol, "")
        if url_problem is None:
            url = url.removesuffix(suffix)
        object.__setattr__(self, "url", url)
        if problems := [*self._address_problems(), *self._other_problems()]:
            raise ConfigError(f"{type(self).__name__}(…) cannot be used:", problems=problems)

    @property
    def metric_names(self) -> MetricNames:
        """The server's names for each quantity of its metrics.

        A server without a description has those of all known servers.
        """
        return self.about.metric_names if self.about else KNOWN_NAMES

    @property
    def record(self) -> Record:
        """What the clients of this process observed of the server at this address."""
        from .record import record_of

        return record_of(self.url)

    def _address_problems(self) -> list[str]:
        addresses = {name: getattr(self, name) for name in ("url", "health_url", "metrics_url")}
        problems = {
            name: normalised(value)[1] for name, value in addresses.items() if value is not None
        }
        return [f"{name} {problem}" for name, problem in problems.items() if problem]

    def _other_problems(self) -> list[str]:
        problems = []
        if self.protocol not in get_args(AnyProtocol):
            problems.append(f"protocol={self.protocol!r} is not 'openai', 'v2' or 'none'")
        if not (self.api_key.isascii() and self.api_key.isprintable() and " " not in self.api_key):
            problems.append(
                "api_key is not a token: it contains blanks, line breaks or characters outside "
                "ASCII"
            )
        return problems


_SUFFIXES = {"openai": "/v1", "v2": "/v2"}


def normalised(url: str) -> tuple[str, str | None]:
    """Return an address without the slash at its end, and its problem, if any."""
    try:
        parse_address(url)
    except CredentialsInUrlError as error:
        return url, f"{error}: give api_key instead"
    except AddressError as error:
        return url, str(error)
    if "?" in url or "#" in url:
        return url, "has a query or a fragment, which cannot be kept"
    return url.rstrip("/"), None
