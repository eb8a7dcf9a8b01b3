"""Model servers beside Flyte tasks: describe them once, run them in a pod or on one machine.

Everything public is re-exported here; a server's package is imported on first access
(docs/decisions/0011). Importing this package imports nothing outside the standard library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .distribution import __version__, foreign_files
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
from .pod.model import (
    HuggingFaceModel,
    ObjectStoreModel,
    RegisteredModel,
    TaskInputModel,
    VolumeModel,
)
from .pod.secrets import APIKeySecret, HFSecret

try:
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
except ImportError as error:  # flytekit's own plugin has a module of this name, with less in it
    raise ImportError(foreign_files() or str(error)) from error

if TYPE_CHECKING:
    from .installed import installed_servers
    from .llamacpp.serve import LlamaCpp
    from .mlserver.serve import MLServer
    from .model_servers import ModelServers
    from .nim.serve import NIM, NIMSecrets
    from .ollama.serve import Ollama, OllamaModel
    from .sglang.serve import SGLang
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

_ROOMS = {
    "installed_servers": "installed",
    "LlamaCpp": "llamacpp.serve",
    "MLServer": "mlserver.serve",
    "ModelServers": "model_servers",
    "NIM": "nim.serve",
    "NIMSecrets": "nim.serve",
    "Ollama": "ollama.serve",
    "OllamaModel": "ollama.serve",
    "SGLang": "sglang.serve",
    "TEI": "tei.serve",
    "Triton": "triton.serve",
    "VLLM": "vllm.serve",
}
"""Name → the module that defines it."""


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
    # kept, so that the next access does not come here
    value = globals()[name] = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
