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
from .model_servers import ModelServers
from .nim.serve import NIM, NIMSecrets
from .pod.model import HuggingFaceModel, ObjectStoreModel, RegisteredModel, TaskInputModel, VolumeModel
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
from .vllm.serve import VLLM, HFSecret

__all__ = [
    "NIM",
    "VLLM",
    "ConfigError",
    "FetchError",
    "HFSecret",
    "HuggingFaceModel",
    "InferenceError",
    "InferenceWarning",
    "MissingDependencyError",
    "ModelInferenceTemplate",
    "ModelServers",
    "NIMSecrets",
    "ObjectStoreModel",
    "PodDescription",
    "Probe",
    "Probes",
    "QuantityError",
    "RegisteredModel",
    "Server",
    "ServerError",
    "ServerExitedError",
    "ServerNotReadyError",
    "Setup",
    "SpecConflictError",
    "TaskInputModel",
    "UnsupportedError",
    "Volume",
    "VolumeModel",
    "installed_servers",
]
