"""`Endpoint`: where a model server answers, and the clients that talk to it.

The same code talks to the sidecar, to a server on this machine, and to a remote server:
`template.endpoint` is the address of the first two, `at("https://…")` or the variable
`INFERENCE_URL` that of the last. Standard library only; creating a client imports what it needs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .client_options import limits_of
from .methods import ClientMethods
from .protocols import Protocol_co
from .server_address import ServerAddress, ServerDetails, normalised

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

    from .report import Report

__all__ = [
    "API_KEY_VARIABLE",
    "URL_VARIABLE",
    "Endpoint",
    "ServerDetails",
    "from_environment",
    "url_variable",
]

URL_VARIABLE = "INFERENCE_URL"
"""Environment variable that replaces the address of a model server; none is then started on this
machine. With several servers in a pod, `INFERENCE_URL_<NAME>` is that of one: upper case, `_` for
`-`."""
API_KEY_VARIABLE = "INFERENCE_API_KEY"
"""Environment variable with the key for that address; `INFERENCE_API_KEY_<NAME>` for one of
several."""


@dataclass(frozen=True, kw_only=True)
class Endpoint(ServerAddress[Protocol_co], ClientMethods[Protocol_co]):
    """Where a model server answers, which protocol it speaks, and its clients.

    Raises:
        ConfigError: If an address is not one.

    Example:
        ```python
        endpoint = template.endpoint
        client = endpoint.client()
        client.chat.completions.create(model=endpoint.served_model_name(), messages=[…])
        ```
    """

    def _endpoint(self) -> Self:
        return self

    def at(self, url: str, *, api_key: str = "") -> Self:
        """Return the endpoint of another server of the same kind.

        The readiness and metrics paths are kept if they were below the old address.

        Args:
            url: The base address of its API; a `/v1` or `/v2` at the end is dropped.
            api_key: Sent as a bearer token.

        Raises:
            ConfigError: If it is not an address.
        """
        # the template describes the hardware of its own server, not of the one at `url`
        about = self.about and replace(self.about, image="", gpus=None, cpu="", mem="")
        # first the address, because its normal form decides where the other two lie
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

    def report(self, *, path: str | Path | None = None) -> Report:
        """Return a report on the server: its start, its requests, its speed, and what to change.

        Args:
            path: A directory into which the page and its numbers are also written.

        Example:
            ```python
            # from flytekitplugins.inference.client.report: reads the server's own metrics, too
            with sampling(endpoint):
                ...
            endpoint.report(path="reports")
            ```
        """
        from .report import report

        return report([self], path=path)

    def served_model_name(self) -> str:
        """Return `model`, or ask the server for the name of the only one it has.

        Raises:
            ConfigError: If it has none or several, or has no API that lists models.
            ServerError: If it does not answer.
        """
        if self.model:
            return self.model
        from . import http
        from .models import only_model_of, request_of

        with http.client(self, limits_of({}), http=http.library()) as client:
            return only_model_of(self, client.request(**request_of(self)))


def url_variable(name: str) -> str:
    """Return the variable with the address of a server; its name is empty for a single one."""
    return f"{URL_VARIABLE}_{name.upper().replace('-', '_')}" if name else URL_VARIABLE


def from_environment(
    name: str = "", *, environ: Mapping[str, str] | None = None
) -> tuple[str, str] | None:
    """Return the address and key of a remote server, or `None` if no variable names one.

    Args:
        name: The server's name if the pod has several; then only its own variable counts.
        environ: Replaces this process's environment.

    Raises:
        ConfigError: If the variable does not hold an http or https URL; the text is not shown, as
            it may hold a password.
    """
    variables = os.environ if environ is None else environ
    variable = url_variable(name)
    suffix = variable.removeprefix(URL_VARIABLE)
    url = variables.get(variable, "").strip()
    if not url:
        return None
    url, problem = normalised(url)
    if problem:
        raise ConfigError(f"The environment variable {variable} {problem}.", hint=_URL_HINT)
    return url, variables.get(API_KEY_VARIABLE + suffix, "")


_URL_HINT = "Write it as http://localhost:8000 or https://host/path."


def _moved(url: str | None, old: str, new: str) -> str | None:
    """Return `url` below a new address, if it was below the old one."""
    if url is None or not (url == old or url.startswith(f"{old}/")):
        return None
    return new + url.removeprefix(old)
