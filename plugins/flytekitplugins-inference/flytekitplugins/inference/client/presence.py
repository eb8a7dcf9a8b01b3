"""Whether the server that a template describes is there, asked once, on a person's machine.

In a cluster the pod holds the function back until its server is ready, and a request waits for a
server that went away. On a machine without the pod none would ever come: after a forgotten
`task_config=`, with a variable that names a server which does not run, or with another program on
the port.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import ServerError, ServerNotReadyError
from ..facts.address import parse_address
from ..facts.http_exchange import NoAnswerError, ask
from ..facts.model_list import MAX_LIST_BYTES, listed, model_list_request, model_names
from . import health

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .server_address import ServerAddress

__all__ = ["is_in_a_cluster", "require_described_server", "require_server_elsewhere"]

SECONDS = 3.0
"""What one answer may take: the server is on this machine, or somebody waits before a terminal."""
_CLUSTER_VARIABLES = ("KUBERNETES_SERVICE_HOST", "FLYTE_INTERNAL_EXECUTION_ID")
"""The kubelet sets the first in every container, Flyte the second in every task."""


def is_in_a_cluster(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process runs in a pod."""
    return any(environ.get(name) for name in _CLUSTER_VARIABLES)


def require_server_elsewhere(endpoint: ServerAddress[Any], variable: str) -> None:
    """Require that something answers where a variable says.

    Args:
        endpoint: The server.
        variable: The variable's name.

    Raises:
        ServerNotReadyError: Nothing does.
    """
    answer = health.ask(endpoint.url, api_key=endpoint.api_key, seconds=SECONDS)
    if not answer.is_there:
        raise ServerNotReadyError(
            f"{variable} names a server that does not answer: {answer}.",
            hint=f"Start that server, or unset {variable}.",
        )


def require_described_server(endpoint: ServerAddress[Any], kind: str, *, has_list: bool) -> None:
    """Require that the described server answers, and not another program on its port.

    Args:
        endpoint: The server.
        kind: The class of its template.
        has_list: Whether such a server lists its models.

    Raises:
        ServerNotReadyError: Nothing listens there.
        ServerError: A server with other models does.
    """
    answer = health.ask(endpoint.url, seconds=SECONDS)
    if not answer.is_there:
        raise ServerNotReadyError(
            f"No server of this {kind} runs on this machine: {answer}.",
            hint="@task(task_config=…) starts it here, as run_locally() does; "
            "@task(pod_template=…) starts it on a cluster only. INFERENCE_URL names a server that "
            "runs elsewhere.",
        )
    names = _names(endpoint) if has_list and endpoint.model else None
    if names is not None and endpoint.model not in names:
        raise ServerError(
            f"{endpoint.url} is not the server of this {kind}: it lists {listed(names)}, not "
            f"{endpoint.model!r}.",
            hint="Another program has the port: stop it, or let @task(task_config=…) start the "
            "server, which takes a free port. INFERENCE_URL names a server that is meant.",
        )


def _names(endpoint: ServerAddress[Any]) -> list[str] | None:
    """Return the models that a server lists; `None` if it gives no list, which says nothing."""
    request = model_list_request(endpoint.protocol)
    if request is None or request.method != "GET":
        return None
    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    address = parse_address(endpoint.url + request.path)
    try:
        with ask(address, seconds=SECONDS, headers=headers, proxied=True) as answer:
            if answer.status != 200:
                return None
            return model_names(endpoint.protocol, answer.read(MAX_LIST_BYTES))
    except (NoAnswerError, ValueError):
        return None
