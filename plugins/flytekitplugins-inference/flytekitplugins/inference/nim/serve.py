"""`NIM`: NVIDIA's inference microservices.

Facts: docs.nvidia.com/nim/large-language-models (1.x to 3.0.0), "Configuration" and "PEFT";
NVIDIA/k8s-nim-operator `api/apps/v1alpha1/nimservice_types.go`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from ..facts.metric_names import FAMILIES, united
from ..facts.model_reference import parse_model_reference
from ..pod import check
from ..pod.images import ServerImage
from ..pod.names import path_problem, subdomain_problem
from ..pod.parts import EnvVar, Probe, Probes, Volume
from ..pod.secrets import FLYTE_PREFIX, SecretReference
from ..pod.server import Adapters, Server
from ..public_dataclass import PublicDataclass
from ..sidecar_template import ModelInferenceTemplate

__all__ = ["NIM", "NIMSecrets"]

IMAGE = "nvcr.io/nim/meta/llama3-8b-instruct:1.0.0"
"""The documented default. Each model and version has its own image: name the one you need."""
PUBLISHED = (
    ServerImage(
        reference=IMAGE,
        hardware="NVIDIA GPUs",
        source="flytekit's documentation of NIM",
        date="2026-11",
    ),
)
CACHE = "/opt/nim/.cache"
USER = 1000
"""The image's user, who must be able to write to the cache (NVIDIA/nim-deploy#15)."""
PEFT_SOURCE = "NIM_PEFT_SOURCE"
METRIC_NAMES = united(*(FAMILIES[name] for name in ("nim", "vllm", "sglang")))
"""NIM 2.x and later report the metrics of their back end under its own names."""


@dataclass(frozen=True, kw_only=True)
class NIMSecrets(PublicDataclass):
    """The names of NIM's secrets."""

    ngc_secret_key: str
    """Key of the NGC API key."""
    secrets_prefix: str = FLYTE_PREFIX
    """The prefix that the platform gives the variables of secrets (`_FSEC_`, or `_UNION_`)."""
    ngc_image_secret: str | None = None
    """Name of the Kubernetes secret with the credentials for pulling from NGC;
    `imagePullSecrets[]`."""
    ngc_secret_group: str | None = None
    """Group of the NGC API key: in Flyte 1.x the name of the Kubernetes secret."""
    hf_token_group: str | None = None
    """Group of the Hugging Face token."""
    hf_token_key: str | None = None
    """Key of the Hugging Face token, for LoRA adapters of gated repositories."""

    def ngc(self) -> SecretReference:
        """Return the reference to the NGC API key."""
        return SecretReference(
            prefix=self.secrets_prefix, group=self.ngc_secret_group, key=self.ngc_secret_key
        )

    def hugging_face(self) -> SecretReference | None:
        """Return the reference to the Hugging Face token, if there is one."""
        if self.hf_token_key is None:
            return None
        return SecretReference(
            prefix=self.secrets_prefix, group=self.hf_token_group, key=self.hf_token_key
        )

    def references(self) -> tuple[SecretReference, ...]:
        """Return the references to all secrets."""
        token = self.hugging_face()
        return (self.ngc(), *((token,) if token else ()))


@dataclass(frozen=True, kw_only=True)
class NIM(ModelInferenceTemplate[Literal["openai"]]):
    """A NIM server beside a task.

    Raises:
        ConfigError: If the description is wrong; LoRA adapters need `lora_adapter_mem` and
            `NIM_PEFT_SOURCE` in `env`.

    Example:
        ```python
        NIM(
            image="nvcr.io/nim/…:1.0.0",
            secrets=NIMSecrets(ngc_secret_key="ngc_api_key", ngc_secret_group="ngc"),
        )
        ```
    """

    secrets: NIMSecrets
    """The names of NIM's secrets; required."""
    health_endpoint: str | None = "v1/health/ready"
    """HTTP path that answers 200 once the model is loaded; becomes the startup probe."""
    mem: str = "20Gi"
    """Memory; requests and limits. Includes what the server keeps in `/dev/shm`."""
    ephemeral_storage: str | None = "20Gi"
    """Disk space for files outside volumes; requests and limits."""
    shm_size: str | None = "16Gi"
    """Size of `/dev/shm`, in memory; counts within `mem`."""
    hf_repo_ids: Sequence[str] | None = None
    """Hugging Face repositories of LoRA adapters, `owner/name` or `owner/name@revision`."""
    lora_adapter_mem: str | None = None
    """Memory of the container that downloads the adapters."""

    published_images = PUBLISHED

    @property
    def default_image(self) -> str:
        """The documented default."""
        return IMAGE

    def server(self) -> Server:
        """Return what NIM needs."""
        image_secret = self.secrets.ngc_image_secret
        return Server(
            # microservices that do not serve language models read the second one; source: the
            # operator NVIDIA/k8s-nim-operator
            port_variables=("NIM_SERVER_PORT", "NIM_HTTP_API_PORT"),
            env=(*self.secrets.ngc().env("NGC_API_KEY"), *self._model_variables()),
            probes=Probes(liveness=Probe(path="/v1/health/live")),
            model_api="openai",
            metrics_path="/v1/metrics",
            metric_names=METRIC_NAMES,
            served_model_name=self.model_source.name if self.model_source else "",
            secrets=self.secrets.references(),
            volumes=(Volume(name="inference-cache", mount_path=CACHE),),
            hub_token=self.secrets.hugging_face(),
            adapters=self._adapters(),
            security_context={"runAsUser": USER, "runAsNonRoot": True},
            fs_group=USER,
            image_pull_secrets=(image_secret,) if image_secret else (),
            # the back end is vLLM, which refuses the VLLM_PORT=tcp://… of a Service named "vllm"
            enable_service_links=False,
        )

    def _adapters(self) -> Adapters | None:
        if not self.hf_repo_ids:
            return None
        return Adapters(
            sources={_adapter_name(name): f"hf://{name}" for name in self.hf_repo_ids},
            directory=(self.env or {}).get(PEFT_SOURCE, ""),
            mem=self.lora_adapter_mem or "",
        )

    def _model_variables(self) -> tuple[EnvVar, ...]:
        """Return the variables that give NIM 2.x and later a model of the user's own.

        NIM 1.x has one image for each model, and no such variables.
        """
        if self.model_path is None or self.model_source is None:
            return ()
        return (
            EnvVar(name="NIM_MODEL_PATH", value=self.model_path),
            EnvVar(name="NIM_SERVED_MODEL_NAME", value=self.model_source.name),
        )

    def problems(self) -> Iterator[str]:
        """Yield the problems of the fields."""
        yield from super().problems()
        if not isinstance(self.secrets, NIMSecrets):
            # only its type is shown: a key given by mistake must not end up in a log
            yield (
                f"secrets must be NIMSecrets(ngc_secret_key=…), not a {type(self.secrets).__name__}"
            )
        else:
            yield from self._secret_problems()
        if self.lora_adapter_mem is not None:
            yield from check.check_quantity("lora_adapter_mem", self.lora_adapter_mem, memory=True)
        if self.hf_repo_ids:
            yield from self._adapter_problems()

    def _secret_problems(self) -> Iterator[str]:
        for secret in self.secrets.references():
            yield from (f"secrets: {problem}" for problem in secret.problems())
        if self.secrets.hf_token_group is not None and self.secrets.hf_token_key is None:
            yield (
                f"secrets: hf_token_group={self.secrets.hf_token_group!r} needs an hf_token_key "
                "beside it"
            )
        image_secret = self.secrets.ngc_image_secret
        if image_secret is not None and (problem := subdomain_problem(image_secret)):
            yield f"secrets: ngc_image_secret={problem}"

    def _adapter_problems(self) -> Iterator[str]:
        if isinstance(self.hf_repo_ids, str):
            yield (
                f"hf_repo_ids={self.hf_repo_ids!r} is one text; give a list: [{self.hf_repo_ids!r}]"
            )
            return
        if not isinstance(self.hf_repo_ids, (list, tuple)):
            yield (
                "hf_repo_ids must be a list of repositories, not a "
                f"{type(self.hf_repo_ids).__name__}"
            )
            return
        for repository in self.hf_repo_ids or ():
            yield from _repository_problems(repository)
        names = Counter(
            _adapter_name(repository)
            for repository in self.hf_repo_ids
            if isinstance(repository, str)
        )
        for name, count in names.items():
            if count > 1:
                yield (
                    f"hf_repo_ids has {count} revisions of one repository, for which NIM has only "
                    f"one name, {name!r}"
                )
        if self.lora_adapter_mem is None:
            yield (
                "lora_adapter_mem is missing: the download of hf_repo_ids needs memory, such as "
                "'2Gi'"
            )
        place = self.env.get(PEFT_SOURCE) if isinstance(self.env, Mapping) else None
        if place is None:
            yield (
                f"env[{PEFT_SOURCE!r}] is missing: hf_repo_ids needs the directory in which NIM "
                "looks for adapters"
            )
        elif problem := path_problem(place):
            yield f"env[{PEFT_SOURCE!r}]: {problem}"


def _adapter_name(repository: str) -> str:
    """Return an adapter's directory, which NIM uses as its name.

    It contains the owner, because two owners may use the same name.
    """
    return repository.partition("@")[0].replace("/", "--")


def _repository_problems(repository: object) -> Iterator[str]:
    if not isinstance(repository, str):
        yield f"hf_repo_ids: {repository!r} is not a text such as 'owner/name'"
        return
    try:
        parse_model_reference(f"hf://{repository}")
    except ConfigError as error:
        yield f"hf_repo_ids: {error}"
