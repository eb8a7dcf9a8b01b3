"""How one pod is run on this machine: what the manifest does not say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from .backoff import Backoff

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from .backend import Backend

MAX_RESTARTS = 3
"""Restarts in a row before a start is given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSettings:
    """What `start` and `lease` are told beside the manifest."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """Flyte's template variables by name, such as `{"input": "/path/inputs.pb"}`."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Contents of files by the name of the variable that stands for their path, such as
    `{"input": b"..."}`. They lie in the pod's private directory, which goes with it."""
    primary: str = "primary"
    """The name of the container that the caller's own code stands for; it is not started."""
    volumes: Mapping[str, str | os.PathLike[str]] = field(default_factory=dict)
    """Directories for volumes that exist on a cluster only, by the volume's name."""
    startup_seconds: float | None = None
    """Seconds for the whole start, in place of the startup probes' own budgets."""
    backoff: Backoff = field(default_factory=Backoff)
    """When a sidecar that ended is started again."""
    max_restarts: int = MAX_RESTARTS
    """Restarts in a row before a start is given up."""
    output: TextIO | None = None
    """Where the containers' lines are written; `None` is `sys.stderr`."""
    backend: Backend | None = None
    """What runs containers; `None` leaves it to `INFERENCE_LOCAL_BACKEND` and to what this machine
    can."""
