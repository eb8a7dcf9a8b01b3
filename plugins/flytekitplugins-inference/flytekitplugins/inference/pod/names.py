"""The rules for names, ports and paths.

Each predicate answers with the sentence that states the broken rule, or with `None`.

Sources: kubernetes.io "Object Names and IDs"; k8s.io/apimachinery
`pkg/util/validation/validation.go` (v0.31).
"""

from __future__ import annotations

import re

__all__ = ["env_name_problem", "label_problem", "path_problem", "port_problem", "subdomain_problem"]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")


def label_problem(name: object) -> str | None:
    """Say what keeps `name` from being a DNS-1123 label (names of containers and volumes)."""
    if isinstance(name, str) and len(name) <= 63 and _LABEL.match(name):
        return None
    return (
        f"{name!r} is not a DNS-1123 label: lower-case letters, digits and '-', at most 63, no "
        "'-' at either end"
    )


def subdomain_problem(name: object) -> str | None:
    """Say what keeps `name` from being a DNS-1123 subdomain (names of objects, such as secrets)."""
    if isinstance(name, str) and len(name) <= 253 and _SUBDOMAIN.match(name):
        return None
    return (
        f"{name!r} is not a Kubernetes object name: lower-case letters, digits, '-' and '.', "
        "at most 253"
    )


def env_name_problem(name: object) -> str | None:
    """Say what keeps `name` from being the name of an environment variable in a pod."""
    if (
        isinstance(name, str)
        and _ENV_NAME.match(name)
        and name not in (".", "..")
        and not name.startswith("..")
    ):
        return None
    return (
        f"{name!r} is not an environment variable's name: letters, digits, '_', '-' and '.', "
        "no digit in front"
    )


def port_problem(port: object) -> str | None:
    """Say what keeps `port` from being a TCP port."""
    # for Python a bool is an `int`
    if isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65535:
        return None
    return f"{port!r} is not a port: a whole number from 1 to 65535"


def path_problem(path: object) -> str | None:
    """Say what keeps `path` from being an absolute container path that can be mounted."""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return f"{path!r} is not an absolute path"
    if ":" in path:
        return f"{path!r} must not contain ':' (Kubernetes refuses it in a mountPath)"
    if ".." in path.split("/"):
        return f"{path!r} must not contain '..'"
    if not path.strip("/."):
        return f"{path!r} would hide the container's whole file system"
    return None
