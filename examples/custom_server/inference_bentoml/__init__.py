"""`BentoML`: a Bento as the model server beside a Flyte task.

Facts: BentoML 1.4.39, `bentoml serve --help`,
`_internal/container/frontend/dockerfile/templates/base_v2.j2`, `_internal/server/base_app.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from flytekitplugins.inference.extension import (
    EnvVar,
    ModelInferenceTemplate,
    Probe,
    Probes,
    Server,
    Volume,
)

__all__ = ["BentoML"]

USER = 1034
"""User and group of every image that `bentoml containerize` builds (`generate.py`,
BENTO_UID_GID)."""
BENTO = "/home/bentoml/bento"
"""Where such an image holds its Bento (BENTO_PATH)."""
CACHE = "/home/bentoml/.cache"


@dataclass(frozen=True, kw_only=True)
class BentoML(ModelInferenceTemplate):
    """A BentoML server beside a task.

    A model that is given with `model=` lies at the path which the variable `MODEL_PATH` names; the
    service reads it there.

    Raises:
        ConfigError: If the description is wrong.

    Example:
        ```python
        BentoML(image="registry.example.com/fraud:3", model="s3://models/fraud", gpu=0)
        ```
    """

    service: str = BENTO
    """What `bentoml serve` is to serve: the image's Bento, or `module:Service`."""
    working_dir: str | None = None
    """Directory in which `module:Service` is looked for."""
    port: int = 3000
    health_endpoint: str | None = "/readyz"

    template_variables = MappingProxyType({"PORT": "give port= instead"})

    def server(self) -> Server:
        """Return what BentoML needs."""
        directory = ("--working-dir", self.working_dir) if self.working_dir else ()
        return Server(
            command=("bentoml", "serve"),
            args=(self.service, "--host", self.host, "--port", str(self.port), *directory),
            env=(
                EnvVar(name="BENTOML_DO_NOT_TRACK", value="True"),
                EnvVar(name="HF_HOME", value=f"{CACHE}/huggingface"),
                *((EnvVar(name="MODEL_PATH", value=self.model_path),) if self.model_path else ()),
            ),
            volumes=(Volume(name="inference-cache", mount_path=CACHE),),
            probes=Probes(liveness=Probe(path="/livez")),
            metrics_path="/metrics",
            security_context={"runAsUser": USER, "runAsNonRoot": True},
            fs_group=USER,
        )

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields."""
        yield from super().problems()
        if not isinstance(self.service, str) or not self.service:
            yield f"service={self.service!r} must be a Bento's path or tag, or 'module:Service'"
