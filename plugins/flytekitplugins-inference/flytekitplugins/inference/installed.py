"""Lists the installed kinds of model server: ours, and those of other distributions.

A distribution adds one with an entry point of the group `flytekitplugins.inference.servers`. The
name of the entry point is the server's name, its object a subclass of `ModelInferenceTemplate`. Our
own servers are registered in the same way.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from .sidecar_template import InferenceWarning, ModelInferenceTemplate

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["SERVERS", "installed_servers"]

SERVERS = "flytekitplugins.inference.servers"
"""The group of the entry points."""


def installed_servers() -> dict[str, type[ModelInferenceTemplate]]:
    """Return the kinds of model server by name, in alphabetical order.

    A server that cannot be imported, is not a template or has the name of another one is left out
    with a warning that names its distribution: one broken package must not hide the others.
    """
    from importlib.metadata import entry_points  # takes 20 ms, too long for this package's import

    kinds: dict[str, type[ModelInferenceTemplate]] = {}
    owners: dict[str, str] = {}
    # ours first, so that of two servers with one name the other distribution's is left out
    for entry_point in sorted(entry_points(group=SERVERS), key=_ours_first):
        owner = entry_point.dist.name if entry_point.dist else "?"
        try:
            kind = _loaded(entry_point)
            if entry_point.name in kinds and kinds[entry_point.name] is not kind:
                raise TypeError(f"{owners[entry_point.name]} already has a server of this name")
        except Exception as error:  # whatever a foreign module raises when it is imported
            text = (
                f"The server {entry_point.name!r} of {owner} is left out: "
                f"{type(error).__name__}: {error}."
            )
            warnings.warn(text, InferenceWarning, stacklevel=2)
            continue
        kinds[entry_point.name], owners[entry_point.name] = kind, owner
    return dict(sorted(kinds.items()))


def _ours_first(entry_point: EntryPoint) -> tuple[bool, str, str]:
    return (
        not entry_point.value.startswith("flytekitplugins.inference."),
        entry_point.name,
        entry_point.value,
    )


def _loaded(entry_point: EntryPoint) -> type[ModelInferenceTemplate]:
    kind = entry_point.load()
    if not isinstance(kind, type) or not issubclass(kind, ModelInferenceTemplate):
        raise TypeError(f"{entry_point.value} is not a subclass of ModelInferenceTemplate")
    return kind
