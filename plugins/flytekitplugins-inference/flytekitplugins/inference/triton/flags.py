"""The rules for `tritonserver`'s options: which there are, which are the template's, and which exclude each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from ..pod.flags import OptionTable, option_problems
from . import options

__all__ = [
    "OPTIONS",
    "argument_problems",
    "dict_problems",
    "ending_problems",
    "option",
    "option_cautions",
]

EXIT_TIMEOUT_SECONDS = 30
"""What the server waits for requests in flight, unless `exit_timeout_secs` says otherwise."""
KUBERNETES_GRACE_SECONDS = 30
_ELSEWHERE = (
    "write it into args= with the value as $(NAME) of a variable that base= fills from a "
    "Kubernetes secret"
)

OPTIONS = OptionTable.read(
    options,
    server="Triton",
    secret={"grpc_restricted_protocol": _ELSEWHERE, "http_restricted_api": _ELSEWHERE},
)
_OURS = {
    "http_port": "give port= instead",
    "http_address": "leave it out: the kubelet probes the pod's address",
    "grpc_port": "give grpc_port= instead",
    "metrics_port": "give metrics_port= instead",
    "metrics_address": "leave it out: metrics are read at the pod's address",
    "model_repository": "give model= or model_repository= instead",
    "load_model": "give model_names= instead",
    "model_control_mode": "give model_control_mode= instead",
}
"""Options that the template writes itself."""


def option(given: Any, name: str, default: Any = None) -> Any:
    """Return the value of the option `name` in `given`, however the user spelled it."""
    options = given if isinstance(given, Mapping) else {}  # checks ask before that is known
    return {
        OPTIONS.canonical(key): value for key, value in options.items() if isinstance(key, str)
    }.get(name, default)


def dict_problems(given: Any) -> Iterator[str]:
    """Yield what is wrong with the options given as a dictionary."""
    if not isinstance(given, Mapping):
        yield f"arg_dict must be a dict of Triton's options, not a {type(given).__name__}"
        return
    yield from (f"arg_dict: {problem}" for problem in option_problems(given, OPTIONS))
    for name in (name for name in given if isinstance(name, str)):
        if (flag := OPTIONS.canonical(name)) in _OURS:
            yield f"arg_dict: {name!r} is the template's; {_OURS[flag]}"
    if option(given, "allow_http") is False:
        yield "arg_dict: without HTTP (allow_http) nobody can ask whether the server is ready"
    caches = option(given, "cache_config") or ()
    if any("password=" in str(item) for item in ([caches] if isinstance(caches, str) else caches)):
        yield (
            "arg_dict: cache_config would put a password into the pod's specification; "
            f"{_ELSEWHERE}"
        )


def argument_problems(words: Any) -> Iterator[str]:
    """Yield what of the user's `args` is the template's own."""
    for word in words if isinstance(words, (list, tuple)) else ():
        if isinstance(word, str) and word.startswith("--"):
            flag = OPTIONS.canonical(word.partition("=")[0])
            if flag in _OURS:
                yield f"args: {word!r} is the template's; {_OURS[flag]}"


def ending_problems(given: Any, grace: Any) -> Iterator[str]:
    """Yield a sentence when the server would be killed while it still waits for requests in flight."""
    waits = option(given, "exit_timeout_secs", EXIT_TIMEOUT_SECONDS)
    seconds = grace.total_seconds() if isinstance(grace, timedelta) else grace
    seconds = KUBERNETES_GRACE_SECONDS if seconds is None else seconds
    if isinstance(waits, int) and isinstance(seconds, (int, float)) and seconds <= waits:
        yield (
            f"termination_grace_period: the server may wait {waits} s for requests in flight "
            "(exit_timeout_secs) and "
            f"is killed after {seconds:g} s; give more than {waits}"
        )


def option_cautions(given: Mapping[str, Any], mode: str) -> Iterator[str]:
    """Yield what works, but not as its author may think.

    Args:
        given: Options without problems.
        mode: The model control mode.
    """
    for name in sorted({OPTIONS.canonical(name) for name in given} & options.DEPRECATED.keys()):
        yield (
            f"arg_dict: {name!r} is deprecated in Triton {options.VERSION}; say "
            f"{options.DEPRECATED[name]!r}"
        )
    if mode != "poll" and option(given, "repository_poll_secs") is not None:
        yield f"arg_dict: repository_poll_secs does nothing with model control mode {mode!r}"
    if option(given, "strict_readiness") is False:
        yield "arg_dict: with strict_readiness=False the server is ready while models are missing"
