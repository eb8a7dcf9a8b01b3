"""Model servers beside Flyte tasks: described once, run in the task's pod or on one machine.

Everything public is re-exported here. Importing this package imports nothing outside the standard library.
"""

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
from .ollama.serve import Model, Ollama
from .pod.model import HuggingFaceModel, ObjectStoreModel, RegisteredModel, TaskInputModel, VolumeModel
from .pod.secrets import APIKeySecret
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
from .vllm.serve import VLLM, HFSecret

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
    "Model",
    "ModelInferenceTemplate",
    "ModelServers",
    "NIMSecrets",
    "ObjectStoreModel",
    "Ollama",
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
    "installed_servers",
]
