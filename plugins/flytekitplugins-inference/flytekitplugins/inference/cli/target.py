"""Finds what a command line names: a template in a module, or a task with one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError, UsageError
from ..flyte.task_pod import described_by, pod_of
from ..model_servers import ModelServers
from ..pod.compile import Manifest
from ..sidecar_template import InferenceWarning, PodDescription

__all__ = ["PodTarget", "load_target"]


@dataclass(frozen=True, kw_only=True)
class PodTarget:
    """A description, and its pod as a task would submit it."""

    label: str
    """What the user typed."""
    description: PodDescription
    manifest: Manifest
    is_task: bool
    """Whether the task's own resources are part of the pod."""
    cautions: tuple[str, ...]
    """What works, but perhaps not as its author thinks."""


def load_target(text: str) -> PodTarget:
    """Return what `text` names.

    Args:
        text: `module:name` or `path/to/file.py:name`. The name is that of a template, of a task
            that has one, or a dotted path to one. Without `:name`, the module must have exactly
            one.

    Raises:
        UsageError: If there is no such module or name.
        ConfigError: If the module cannot be imported, or what it holds describes no pod.
    """
    place, colon, name = text.rpartition(":") if ":" in text else (text, "", "")
    with warnings.catch_warnings():
        # those of the target are told below; those of its neighbours are not asked for
        warnings.simplefilter("ignore", InferenceWarning)
        module = _imported(place)
        value = _named(module, name) if colon else _only_one(module)
        description = described_by(value)
        if description is None:
            raise UsageError(
                f"{text!r} is a {type(value).__name__}, neither a template nor a task with one.",
                hint=_choices(module),
            )
        manifest = pod_of(value)
    cautions = (text for server in description.servers.values() for text in server.cautions())
    return PodTarget(
        label=text,
        description=description,
        manifest=manifest,
        is_task=value is not description,
        cautions=tuple(dict.fromkeys(cautions)),
    )


def _imported(place: str) -> ModuleType:
    path = Path(place)
    # as `python -m` and pyflyte do, so that the module finds its neighbours
    folder = str((path.parent if path.suffix == ".py" else Path()).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem if path.suffix == ".py" else place
    if path.suffix == ".py" and not path.is_file():
        raise UsageError(f"There is no file {place!r}.", hint="Name it from this directory.")
    if path.suffix != ".py" and not _exists(name):
        raise UsageError(
            f"There is no module {place!r}.",
            hint="Give module:name or path/to/file.py:name, from the project's root.",
        )
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise  # the template's own error says more than this one
    except Exception as error:
        raise ConfigError(
            f"{place!r} cannot be imported: {type(error).__name__}: {error}",
            hint="Import it with Python first.",
        ) from error


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent is missing, or the name is none
        return False


def _named(module: ModuleType, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        try:
            # the servers of `ModelServers` have names
            value = value[part] if isinstance(value, ModelServers) else getattr(value, part)
        except (AttributeError, KeyError):
            raise UsageError(f"{module.__name__} has no {name!r}.", hint=_choices(module)) from None
    return value


def _only_one(module: ModuleType) -> Any:
    names = _described(module)
    if len(names) != 1:
        count = "no template" if not names else f"{len(names)} templates and tasks"
        raise UsageError(f"{module.__name__} has {count}.", hint=_choices(module))
    return getattr(module, names[0])


def _described(module: ModuleType) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and described_by(value) is not None
    )


def _choices(module: ModuleType) -> str:
    names = _described(module)
    return f"It has {', '.join(names)}." if names else "It has no template and no task with one."
