"""Rules for `tritonserver`'s options that its command line does not enforce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from ..pod.flags import OptionTable
from . import options

__all__ = ["OPTIONS", "TEMPLATE_OPTIONS", "cache_problems", "ending_problems", "option_cautions"]

EXIT_TIMEOUT_SECONDS = 30
"""How long the server waits for requests in flight, unless `exit_timeout_secs` is set."""
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
TEMPLATE_OPTIONS: Mapping[str, str] = {
    "http_port": "give port= instead",
    "http_address": "leave it out, and give expose= instead",
    "grpc_port": "give grpc_port= instead",
    "metrics_port": "give metrics_port= instead",
    "metrics_address": "leave it out, and give expose= instead",
    "model_repository": "give model= or model_repository= instead",
    "load_model": "give model_names= instead",
    "model_control_mode": "give model_control_mode= instead",
}
"""Options that only the template may set → what to do instead."""


def cache_problems(caches: Any) -> Iterator[str]:
    """Yield a sentence if `cache_config`, one text or several, contains a password."""
    texts = [caches] if isinstance(caches, str) else caches or ()
    if any("password=" in str(text) for text in texts):
        yield (
            "arg_dict: cache_config would put a password into the pod's specification; "
            f"{_ELSEWHERE}"
        )


def ending_problems(exit_timeout: Any, grace: Any) -> Iterator[str]:
    """Yield a sentence if Kubernetes would kill the server while it waits for requests in flight.

    Args:
        exit_timeout: The value of `exit_timeout_secs`, if it is set.
        grace: The template's `termination_grace_period`.
    """
    waits = EXIT_TIMEOUT_SECONDS if exit_timeout is None else exit_timeout
    seconds = grace.total_seconds() if isinstance(grace, timedelta) else grace
    seconds = KUBERNETES_GRACE_SECONDS if seconds is None else seconds
    if isinstance(waits, int) and isinstance(seconds, (int, float)) and seconds <= waits:
        yield (
            f"termination_grace_period: the server may wait {waits} s for requests in flight "
            f"(exit_timeout_secs) and is killed after {seconds:g} s; give more than {waits}"
        )


def option_cautions(arguments: Mapping[str, Any], mode: str) -> Iterator[str]:
    """Yield warnings: what is valid but may not do what its author expects.

    Args:
        arguments: Options without problems.
        mode: The model control mode.
    """
    named = {OPTIONS.canonical(name): value for name, value in arguments.items()}
    for name in sorted(named.keys() & options.DEPRECATED.keys()):
        yield (
            f"arg_dict: {name!r} is deprecated in Triton {options.VERSION}; use "
            f"{options.DEPRECATED[name]!r}"
        )
    if mode != "poll" and named.get("repository_poll_secs") is not None:
        yield f"arg_dict: repository_poll_secs does nothing with model control mode {mode!r}"
    if named.get("strict_readiness") is False:
        yield "arg_dict: with strict_readiness=False the server is ready even if models are missing"
