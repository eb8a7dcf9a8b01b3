"""The rules for names, ports and paths.

Each predicate answers with the sentence that states the broken rule, or with `None`.

Sources: kubernetes.io "Object Names and IDs"; k8s.io/apimachinery
`pkg/util/validation/validation.go` (v0.31).
"""

from __future__ import annotations

import re

__all__ = [
    "env_name_problem",
    "label_problem",
    "label_value_problem",
    "path_problem",
    "port_name_problem",
    "port_problem",
    "qualified_name_problem",
    "relative_path_problem",
    "subdomain_problem",
]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_PORT_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
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


def qualified_name_problem(name: object) -> str | None:
    """Say what keeps `name` from being the key of a label, annotation or toleration."""
    if isinstance(name, str):
        prefix, slash, last = name.rpartition("/")
        is_prefixed = not slash or subdomain_problem(prefix) is None
        if is_prefixed and len(last) <= 63 and _QUALIFIED.match(last):
            return None
    return (
        f"{name!r} is not a key: letters, digits, '-', '_' and '.', at most 63, a letter or digit "
        "at either end; in front of it at most a domain and '/'"
    )


def label_value_problem(value: object) -> str | None:
    """Say what keeps `value` from being a label's value."""
    if isinstance(value, str) and (not value or (len(value) <= 63 and _QUALIFIED.match(value))):
        return None
    return (
        f"{value!r} is not a label's value: a text of letters, digits, '-', '_' and '.', at most "
        "63, a letter or digit at either end"
    )


def port_name_problem(name: object) -> str | None:
    """Say what keeps `name` from being a port's name (RFC 6335, section 5.1)."""
    if (
        isinstance(name, str)
        and len(name) <= 15
        and _PORT_NAME.match(name)
        and not name.replace("-", "").isdecimal()
    ):
        return None
    return (
        f"{name!r} is not a port's name: lower-case letters, digits and single '-' between them, "
        "at most 15, at least one letter"
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


def relative_path_problem(path: object) -> str | None:
    """Say what keeps `path` from being a path below a volume."""
    if not isinstance(path, str) or not path or path.startswith("/") or ".." in path.split("/"):
        return f"{path!r} must be a relative path without '..'"
    return None
