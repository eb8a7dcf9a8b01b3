"""Model servers beside Flyte tasks: describe them once, run them in a pod or on one machine.

Everything public is re-exported here, and imported on first access (docs/decisions/0011): Python
imports this module before every program of ours, which handles SIGTERM only once it has begun.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .distribution import __version__, foreign_files

if TYPE_CHECKING:
    from .errors import (
        ConfigError,
        FetchError,
        InferenceError,
        MissingDependencyError,
        QuantityError,
        ServerError,
        ServerExitedError,
        ServerNotReadyError,
        SpecConflictError,
        UnsupportedError,
    )
    from .installed import installed_servers
    from .llamacpp.serve import LlamaCpp
    from .mlserver.serve import MLServer
    from .model_servers import ModelServers
    from .nim.serve import NIM, NIMSecrets
    from .ollama.serve import Ollama, OllamaModel
    from .pod.exporter import MetricsExporter
    from .pod.model import (
        HuggingFaceModel,
        ObjectStoreModel,
        RegisteredModel,
        TaskInputModel,
        VolumeModel,
    )
    from .pod.secrets import APIKeySecret, HFSecret
    from .sglang.serve import SGLang
    from .sidecar_template import (
        InferenceWarning,
        ModelInferenceTemplate,
        PodDescription,
        Probe,
        Probes,
        Server,
        Setup,
        Volume,
    )
    from .tei.serve import TEI
    from .triton.serve import Triton
    from .vllm.serve import VLLM

__all__ = [
    "NIM",
    "TEI",
    "VLLM",
    "APIKeySecret",
    "ConfigError",
    "FetchError",
    "HFSecret",
    "HuggingFaceModel",
    "InferenceError",
    "InferenceWarning",
    "LlamaCpp",
    "MLServer",
    "MetricsExporter",
    "MissingDependencyError",
    "ModelInferenceTemplate",
    "ModelServers",
    "NIMSecrets",
    "ObjectStoreModel",
    "Ollama",
    "OllamaModel",
    "PodDescription",
    "Probe",
    "Probes",
    "QuantityError",
    "RegisteredModel",
    "SGLang",
    "Server",
    "ServerError",
    "ServerExitedError",
    "ServerNotReadyError",
    "Setup",
    "SpecConflictError",
    "TaskInputModel",
    "Triton",
    "UnsupportedError",
    "Volume",
    "VolumeModel",
    "__version__",
    "installed_servers",
]

_NAMES = {
    "errors": (
        "ConfigError",
        "FetchError",
        "InferenceError",
        "MissingDependencyError",
        "QuantityError",
        "ServerError",
        "ServerExitedError",
        "ServerNotReadyError",
        "SpecConflictError",
        "UnsupportedError",
    ),
    "installed": ("installed_servers",),
    "llamacpp.serve": ("LlamaCpp",),
    "mlserver.serve": ("MLServer",),
    "model_servers": ("ModelServers",),
    "nim.serve": ("NIM", "NIMSecrets"),
    "ollama.serve": ("Ollama", "OllamaModel"),
    "pod.exporter": ("MetricsExporter",),
    "pod.model": (
        "HuggingFaceModel",
        "ObjectStoreModel",
        "RegisteredModel",
        "TaskInputModel",
        "VolumeModel",
    ),
    "pod.secrets": ("APIKeySecret", "HFSecret"),
    "sglang.serve": ("SGLang",),
    "sidecar_template": (
        "InferenceWarning",
        "ModelInferenceTemplate",
        "PodDescription",
        "Probe",
        "Probes",
        "Server",
        "Setup",
        "Volume",
    ),
    "tei.serve": ("TEI",),
    "triton.serve": ("Triton",),
    "vllm.serve": ("VLLM",),
}
"""Module → the names of `__all__` that it defines."""
_ROOMS = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # documents of version 0 import Ollama's model by this name
    if name == "Model":
        from warnings import warn

        warn(
            f"{__name__}.Model is Ollama's model; import it as OllamaModel.",
            DeprecationWarning,
            stacklevel=2,
        )
        return __getattr__("OllamaModel")
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    except Exception as error:
        # flytekit's own plugin has modules of these names, which break ours in any way
        if message := foreign_files():
            raise ImportError(message) from error
        raise
    globals()[name] = value  # so that the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
