"""`Ollama`: models of Ollama's library, of a Modelfile, or from GGUF files.

Facts: ollama/ollama v0.33.3, `envconfig/config.go`, `server/routes.go`, `Dockerfile`,
`docs/docker.mdx`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from ..errors import ConfigError
from ..facts.model_reference import has_scheme
from ..facts.readiness import STARTUP_FAILURE_THRESHOLD
from ..pod import check
from ..pod import model as sources
from ..pod.flags import literally
from ..pod.images import ServerImage
from ..pod.parts import EnvVar, Probe, Probes, Volume
from ..pod.quantity import format_quantity
from ..pod.server import Server, Setup
from ..programs.ollama.modelfile import has_placeholders
from ..programs.ollama.recipe import (
    deprecated_parameters,
    listed_name,
    modelfile_problems,
    name_problem,
)
from ..programs.protocol import MODELFILE_VARIABLE, MODELS_DIRECTORY
from ..public_dataclass import PublicDataclass
from ..sidecar_template import ModelInferenceTemplate

__all__ = ["Model", "Ollama", "OllamaModel"]

IMAGE = "ollama/ollama:0.33.3"
"""The image for NVIDIA's GPUs and for CPUs. The newest release of the 0.33 line that package
repositories list (msys2/MINGW-packages#31414); the facts here come from its source."""
ROCM_IMAGE = f"{IMAGE}-rocm"
"""The image for AMD's GPUs (`.github/workflows/release.yaml`)."""
PUBLISHED = tuple(
    ServerImage(
        reference=reference,
        hardware=hardware,
        source="github.com/ollama/ollama, .github/workflows/release.yaml",
        date="2026-11",
    )
    for reference, hardware in ((IMAGE, "NVIDIA GPUs and CPUs"), (ROCM_IMAGE, "AMD GPUs"))
)
HOME = "/ollama"
"""The server's home directory, on a volume. It holds the server's key and models, as the image's
`/root/.ollama` does."""
MAX_MODELFILE_BYTES = 100_000
"""Linux limits one environment variable to 128 KiB (`MAX_ARG_STRLEN`)."""


@dataclass(frozen=True)
class OllamaModel(PublicDataclass):
    """A model of Ollama: its name, and the Modelfile or files that it is created from."""

    name: str
    """The model to pull from Ollama's library, such as `llama3.2:1b` or `hf.co/owner/name:Q4_K_M`;
    with a Modelfile or a source, the name of the new model."""
    mem: str = "500Mi"
    """Memory of the container that pulls or creates the model, not of the model itself."""
    cpu: int | float | str = 1
    """Cores of that container."""
    modelfile: str | None = None
    """A Modelfile. `{inputs.name}` stands for an input of the task, `{{inputs.name}}` for that
    literal text; all other braces are unchanged. A path that begins with `./` is relative to the
    files of `source`."""
    source: sources.Model | str | None = field(default=None, kw_only=True)
    """The origin of GGUF or safetensors files, for a model that is not in a library. A Modelfile
    without `FROM` is based on them."""


Model = OllamaModel
"""The name in documents of version 0."""


@dataclass(frozen=True, kw_only=True)
class Ollama(ModelInferenceTemplate[Literal["openai"]]):
    """An Ollama server beside a task; it is ready once its model is loaded.

    Raises:
        ConfigError: If the description or the Modelfile is wrong.

    Example:
        ```python
        Ollama(model="llama3.2:1b", gpu=0, mem="4Gi")
        ```
    """

    # the type is wider than that of the inherited field; other modules read `model_source` instead
    model: OllamaModel | sources.Model | str | None = None  # type: ignore[assignment]
    """Required: a name in Ollama's library, an `OllamaModel`, or the origin of files (a type of
    `pod.model`, or a text with a scheme such as `"hf://owner/name"`)."""
    models_volume: Mapping[str, Any] | None = None
    """The volume for Ollama's models, as a Kubernetes volume source such as a claim: other pods
    then do not pull them again. `None`: each pod has its own volume."""
    health_endpoint: str | None = "/api/version"
    """HTTP path of the startup probe. It answers as soon as the server listens; `server-setup`
    loads the model before the task starts."""
    port: int = 11434
    """The port the server listens on; Ollama's own default."""
    mem: str = "15Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""

    published_images = PUBLISHED
    image_vendors = frozenset({"nvidia.com", "gpu", "amd.com"})
    template_variables = MappingProxyType({"OLLAMA_HOST": "give port= instead"})

    def __post_init__(self) -> None:
        modelfile = self.model.modelfile if isinstance(self.model, OllamaModel) else None
        if isinstance(modelfile, str) and has_placeholders(modelfile):
            object.__setattr__(self, "download_inputs", True)  # the placeholders need the inputs
        super().__post_init__()

    @property
    def default_image(self) -> str:
        """The image for NVIDIA's GPUs and CPUs, or for AMD's GPUs."""
        return ROCM_IMAGE if self.gpu and str(self.gpu_resource).startswith("amd.com/") else IMAGE

    @property
    def recipe(self) -> OllamaModel | None:
        """The model as an `OllamaModel`, whatever the type of `model` is."""
        if isinstance(self.model, OllamaModel) or self.model is None:
            return self.model
        if isinstance(self.model, str) and not has_scheme(self.model):
            return OllamaModel(name=self.model)
        source = sources.parse_model(self.model) if isinstance(self.model, str) else self.model
        return OllamaModel(name=getattr(source, "name", ""), source=source)

    @property
    def model_source(self) -> sources.Model | None:
        """The origin of the model's files; `None` if the server pulls the model.

        Raises:
            ConfigError: If the text is not a model reference.
        """
        source = self.recipe.source if self.recipe else None
        return sources.parse_model(source) if isinstance(source, str) else source

    def server(self) -> Server:
        """Return what Ollama needs."""
        name = listed_name(self.recipe.name) if self.recipe else ""
        # At its start, the server deletes blobs without a manifest that are an hour old; on a
        # shared volume another pod may still be pulling them (`server/images.go`, PruneLayers).
        shared = {"OLLAMA_NOPRUNE": "1"} if self.models_volume else {}
        variables = {
            "OLLAMA_HOST": f"{self.host}:$(INFERENCE_PORT)",
            "HOME": HOME,
            "OLLAMA_MODELS": f"{HOME}/models",
            "OLLAMA_KEEP_ALIVE": "-1",  # the default unloads the model after five idle minutes
            "OLLAMA_NO_CLOUD": "1",  # the data of a task must not leave its pod
            **shared,
        }
        source = dict(self.models_volume or {"emptyDir": {}})
        return Server(
            command=("ollama", "serve"),
            env=tuple(EnvVar(name=name, value=value) for name, value in variables.items()),
            volumes=(Volume(name="inference-ollama", source=source, mount_path=HOME),),
            # the server listens within seconds, so the default period of ten would delay each start
            probes=Probes(
                startup=Probe(period_seconds=2, failure_threshold=STARTUP_FAILURE_THRESHOLD),
                liveness=Probe(path="/api/version"),
            ),
            model_api="openai",
            served_model_name=name,
            setup=self._setup() if self.recipe else None,
            # a Service named "ollama" would inject OLLAMA_PORT and similar variables
            enable_service_links=False,
        )

    def _setup(self) -> Setup:
        recipe = self.recipe or OllamaModel(name="")
        budget, source = self.startup_seconds, self.model_source
        is_loaded = source is not None and not isinstance(source, sources.VolumeModel)
        text = literally(recipe.modelfile or "")
        return Setup(
            program="create_model",
            args=(
                f"http://localhost:{self.port}",
                *("--name", recipe.name),
                *(("--source", self.model_path) if self.model_path else ()),
                *(("--models", MODELS_DIRECTORY) if is_loaded else ()),
                *(("--timeout", str(budget)) if budget else ()),
            ),
            env=(EnvVar(name=MODELFILE_VARIABLE, value=text),) if text else (),
            resources={"cpu": format_quantity(recipe.cpu), "memory": format_quantity(recipe.mem)},
        )

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from super().problems()
        if self.models_volume is not None:
            yield from (
                f"models_volume: {problem}"
                for problem in check.check_volume_source(self.models_volume)
            )
        try:
            recipe = self.recipe
        except ConfigError:  # `super().problems()` has reported it
            return
        if recipe is None:
            yield (
                "model is missing: name one of Ollama's library, such as model='llama3.2:1b', "
                "or give an OllamaModel(…)"
            )
            return
        yield from check.check_quantity("model: cpu", recipe.cpu)
        yield from check.check_quantity("model: mem", recipe.mem, memory=True)
        if not isinstance(recipe.name, str):
            yield f"model: the name must be a text, not {recipe.name!r}"
        elif problem := name_problem(recipe.name):
            yield f"model: {problem}" + (
                "; give OllamaModel(name, source=…)" if recipe.source is not None else ""
            )
        if recipe.modelfile is not None:
            has_source = recipe.source is not None
            for problem in self._modelfile_problems(recipe.modelfile, has_source=has_source):
                yield f"modelfile: {problem}"

    def _modelfile_problems(self, text: object, *, has_source: bool) -> Iterator[str]:
        if not isinstance(text, str):
            yield f"it must be a text, not a {type(text).__name__}"
            return
        if (size := len(text.encode())) > MAX_MODELFILE_BYTES:
            yield (f"it has {size} bytes; a pod's variable holds at most {MAX_MODELFILE_BYTES}")
        yield from modelfile_problems(text, has_source=has_source)

    def cautions(self) -> Iterator[str]:
        """Yield warnings: what is valid but may not do what its author expects."""
        yield from super().cautions()
        text = self.recipe.modelfile if self.recipe else None
        for place in deprecated_parameters(text or ""):
            yield f"modelfile: {place} is ignored: Ollama no longer has this parameter"
