"""`MLServer`: Seldon's server for scikit-learn, XGBoost, MLflow and similar models.

Facts: SeldonIO/MLServer 1.7.1: `mlserver/settings.py`, `mlserver/repository/`,
`mlserver/handlers/`, `Dockerfile`, `hack/activate-env.sh`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote

from ..errors import ConfigError
from ..facts.metric_names import FAMILIES
from ..facts.readiness import STARTUP_FAILURE_THRESHOLD
from ..pod.images import ServerImage
from ..pod.model import HuggingFaceModel, RegisteredModel
from ..pod.named_models import model_name_problems, port_problems, update_options
from ..pod.names import path_problem
from ..pod.parts import EnvVar, Probe, Probes, Volume
from ..pod.server import Server
from ..sidecar_template import ModelInferenceTemplate

__all__ = ["MLServer"]

IMAGE = "seldonio/mlserver:1.7.1"
"""The image with all runtimes; `1.7.1-slim` has none."""
PUBLISHED = (
    ServerImage(
        reference=IMAGE,
        hardware="CPUs and NVIDIA GPUs",
        source="github.com/SeldonIO/MLServer, releases",
        date="2026-11",
    ),
)
USER = 1000
"""The image's user."""
CACHE = "/opt/mlserver/.cache"
"""The image's own directory for caches. It also holds metrics and environments of models: their
default, the working directory, is not writable with a read-only root file system."""
MLFLOW_RUNTIME = "mlserver_mlflow.MLflowRuntime"
_START = """\
if [ -n "${CONDA_PATH-}" ]; then
  . "$CONDA_PATH/etc/profile.d/conda.sh"
  . "$MLSERVER_PATH/hack/activate-env.sh" "$MLSERVER_ENV_TARBALL"
fi
exec mlserver start "${1:-${MLSERVER_MODELS_DIR:-/mnt/models}}"
"""
"""The image's own start command (`CMD` of its Dockerfile), which activates conda and the
environment that was packed with the model, if there is one. The `exec` is ours: SIGTERM then
reaches the server. Other images have neither conda nor such an environment."""


@dataclass(frozen=True, kw_only=True)
class MLServer(ModelInferenceTemplate[Literal["v2"]]):
    """An MLServer beside a task.

    It serves folders with a `model-settings.json` each, or the bare files of one model.

    Raises:
        ConfigError: If the description is wrong.

    Example:
        ```python
        MLServer(model="models:/fraud/3", mem="4Gi")
        ```
    """

    implementation: str | None = None
    """The runtime for a model without `model-settings.json`, such as
    `"mlserver_sklearn.SKLearnModel"`; for a model of an MLflow registry `None` is MLflow's."""
    model_names: Sequence[str] = ()
    """The models that must answer before the task starts, by the names in their
    `model-settings.json`. A bare model gets its name here; by default it has the name of its
    source."""
    model_repository: str | None = None
    """A directory of the image or of a volume, instead of `model=`; `None` is the image's own."""
    grpc_port: int = 8081
    """The port for gRPC."""
    metrics_port: int = 8082
    """The port for metrics."""

    health_endpoint: str | None = "/v2/health/ready"
    """HTTP path of the startup probe. It also answers 200 if there is no model at all; so the
    models that are named are probed too."""
    port: int = 8080
    """The port the server listens on."""
    gpu: int = 0
    """Number of GPUs; most runtimes use none."""
    mem: str = "4Gi"
    """Memory; requests and limits. The server and each of its workers (`MLSERVER_PARALLEL_WORKERS`,
    1) load the model's libraries."""

    template_variables = MappingProxyType(
        {
            "MLSERVER_GRPC_PORT": "give grpc_port= instead",
            "MLSERVER_METRICS_PORT": "give metrics_port= instead",
        }
    )

    published_images = PUBLISHED

    @property
    def default_image(self) -> str:
        """Seldon's image, which holds CUDA's libraries too."""
        return IMAGE

    def server(self) -> Server:
        """Return what MLServer needs."""
        names, directory = self._names(), self._directory()
        # /v2/health/ready answers 200 without any model; a probe has one path, so it can only
        # check a single model (the gate checks each)
        path = f"/v2/models/{quote(names[0], safe='')}/ready" if len(names) == 1 else None
        return Server(
            command=("bash", "-c", _START, "mlserver"),
            args=(directory,) if directory else (),
            port_variables=("MLSERVER_HTTP_PORT",),
            env=(
                # for gRPC and metrics too (`mlserver/{grpc,metrics}/server.py`)
                EnvVar(name="MLSERVER_HOST", value=self.host),
                EnvVar(name="MLSERVER_GRPC_PORT", value=str(self.grpc_port)),
                EnvVar(name="MLSERVER_METRICS_PORT", value=str(self.metrics_port)),
                EnvVar(name="MLSERVER_METRICS_DIR", value=f"{CACHE}/metrics"),
                EnvVar(name="MLSERVER_ENVIRONMENTS_DIR", value=f"{CACHE}/environments"),
                EnvVar(name="HF_HOME", value=f"{CACHE}/huggingface"),
                *self._model_variables(directory, names),
            ),
            more_ports=(self.grpc_port, self.metrics_port),
            probes=Probes(
                startup=Probe(path=path, failure_threshold=STARTUP_FAILURE_THRESHOLD),
                liveness=Probe(path="/v2/health/live"),
            ),
            model_api="v2",
            served_model_name=names[0] if names else "",
            more_models=names[1:],
            metrics_path="/metrics",
            metrics_port=self.metrics_port,
            metric_names=FAMILIES["mlserver"],
            update_options=update_options("mlserver", self.port, names),
            volumes=(Volume(name="inference-cache", mount_path=CACHE),),
            security_context={"runAsUser": USER, "runAsNonRoot": True},
            fs_group=USER,
        )

    def _directory(self) -> str:
        return self.model_path or self.model_repository or ""

    def _runtime(self) -> str | None:
        is_registered = isinstance(self.model_source, RegisteredModel)
        return self.implementation or (MLFLOW_RUNTIME if is_registered else None)

    def _names(self) -> tuple[str, ...]:
        if self.model_names or not self._runtime() or self.model_source is None:
            return tuple(self.model_names)
        return (self.model_source.name.rpartition("/")[2],)

    def _model_variables(self, directory: str, names: tuple[str, ...]) -> Iterator[EnvVar]:
        """Yield the variables that define a model without a `model-settings.json`.

        Source: `mlserver/repository/repository.py`.
        """
        if directory:
            yield EnvVar(name="MLSERVER_ENV_TARBALL", value=f"{directory}/environment.tar.gz")
        if runtime := self._runtime():
            yield EnvVar(name="MLSERVER_MODEL_IMPLEMENTATION", value=runtime)
            # without the slash, MLflow (3.17) refuses the link "current" as a path that leads out
            # of "/models"
            yield EnvVar(name="MLSERVER_MODEL_URI", value=f"{directory}/")
            yield EnvVar(name="MLSERVER_MODEL_NAME", value=names[0])

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from super().problems()
        yield from port_problems(
            {"port": self.port, "grpc_port": self.grpc_port, "metrics_port": self.metrics_port}
        )
        if self.model_repository is not None and (problem := path_problem(self.model_repository)):
            yield f"model_repository: {problem}"
        elif self.model_repository is not None and self.model is not None:
            yield (
                "MLServer has one repository: give model= or "
                f"model_repository={self.model_repository!r}, not both"
            )
        if self.args and self.command is None:
            yield (
                f"args={list(self.args)!r}: MLServer takes no options, only variables "
                "(MLSERVER_…); give env="
            )
        yield from (name_problems := list(model_name_problems(self.model_names)))
        if self.implementation is not None and not _is_import_path(self.implementation):
            yield (
                f"implementation={self.implementation!r} is not a class; expected one such as "
                f"{MLFLOW_RUNTIME!r}"
            )
        elif not name_problems:
            yield from self._bare_model_problems()

    def _bare_model_problems(self) -> Iterator[str]:
        if self.implementation is not None and not (self.model or self.model_repository):
            yield (
                "implementation is for the files of a model: give model= or model_repository= "
                "as well"
            )
        elif self.implementation is not None and len(self.model_names) > 1:
            yield f"implementation is for one model, but model_names has {len(self.model_names)}"
        elif self.implementation is not None and not (self.model or self.model_names):
            yield (
                "model_names is missing: the model of model_repository= and implementation= "
                "needs a name"
            )
        if self.update_interval is not None and not (
            self.model_names or self.implementation or self._is_registered()
        ):
            yield ("update_interval needs model_names= with the names of the models to reload")

    def _is_registered(self) -> bool:
        try:
            return isinstance(self.model_source, RegisteredModel)
        except ConfigError:  # `super().problems()` has reported it
            return False

    def cautions(self) -> Iterator[str]:
        """Yield warnings: what is valid but may not do what its author expects."""
        yield from super().cautions()
        if not self._names():
            yield (
                "MLServer reports ready even if it finds no model; name the models that must "
                "answer in model_names="
            )
        if isinstance(self.model_source, HuggingFaceModel) and not (
            self._runtime() or self.model_names
        ):
            yield (
                f"model={self.model_source.repo!r} must contain a model-settings.json; else give "
                "implementation=, such as 'mlserver_huggingface.HuggingFaceRuntime'"
            )


def _is_import_path(text: object) -> bool:
    return (
        isinstance(text, str)
        and "." in text
        and all(part.isidentifier() for part in text.split("."))
    )
