"""When a server counts as ready, and how long its answer may take.

The same address answers two questions. The kubelet and the gate ask whether a server may get its
first request. A client whose connection broke asks whether anything answers at all: a gateway
before a remote server may not know the readiness path.
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
"""The documented failure threshold of the startup probe: with a period of 10 s, a server has about
16 minutes to load its model."""


def is_ready(status: int) -> bool:
    """Return whether a server with this status gets requests, by the kubelet's rule.

    Source: kubernetes `pkg/probe/http/http.go`, v1.36.
    """
    return 200 <= status < 400


def is_answering(status: int) -> bool:
    """Return whether something answers, ready or not."""
    # from 500 on, the answer may come from a gateway whose server is gone
    return status < 500
