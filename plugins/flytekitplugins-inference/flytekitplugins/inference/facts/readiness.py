"""When a server counts as ready, and how long it may take to say so.

Two questions are asked of the same address. Whether a server may get its first request is the
kubelet's question, and the gate's. Whether somebody answers at all is a client's whose connection
broke: a gateway in front of a server of another machine may not know the readiness path.
"""

from __future__ import annotations

__all__ = [
    "HEALTH_SECONDS",
    "STARTUP_FAILURE_THRESHOLD",
    "is_answering",
    "is_ready",
]

HEALTH_SECONDS = 21.0
"""How long a readiness request may take. SGLang's generates a token, and answers after up to 20 s
(`SGLANG_HEALTH_CHECK_TIMEOUT`, 0.5)."""

STARTUP_FAILURE_THRESHOLD = 100
"""Documented failures that a startup probe allows: with a period of 10 s, a server has about 16
minutes to load its model."""


def is_ready(status: int) -> bool:
    """Return whether a server with this answer gets requests, as the kubelet decides it.

    Source: kubernetes `pkg/probe/http/http.go`, v1.36.
    """
    return 200 <= status < 400


def is_answering(status: int) -> bool:
    """Return whether a server with this answer is there, ready or not."""
    return status < 500
