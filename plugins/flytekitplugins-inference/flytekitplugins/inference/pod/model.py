"""Where a model comes from: one small type for each kind of source.

Each type knows how the model loader is told about it (`source`), or, for a volume that already
holds the model, that there is nothing to load. The texts that stand for them are those of
`facts.model_reference`. What a server reads is the same for all: `MODEL_PATH`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args

from ..errors import ConfigError
from ..facts.model_reference import (
    FileReference,
    HubReference,
    InputReference,
    ModelReference,
    RegistryReference,
    StoreReference,
    WebReference,
    parse_model_reference,
)
from ..programs.protocol import MODEL_CACHE_DIRECTORY, MODEL_PATH, MODELS_DIRECTORY
from ..public_dataclass import PublicDataclass
from .check import check_quantity
from .names import path_problem
from .parts import (
    LORA_DOWNLOADER,
    METRICS_EXPORTER,
    MODEL_GATE,
    MODEL_LOADER,
    MODEL_SERVER,
    PREFLIGHT,
    SERVER_GATE,
    SERVER_SETUP,
    Helper,
    Volume,
)
from .quantity import format_quantity, parse_quantity
from .secrets import HFSecret
from .whole_numbers import read_whole_numbers

__all__ = [
    "HuggingFaceModel",
    "Model",
    "ObjectStoreModel",
    "RegisteredModel",
    "TaskInputModel",
    "VolumeModel",
    "bytes_of",
    "local_model_path",
    "model_problems",
    "parse_model",
    "path_of",
    "refuse_bare_adapters",
    "refuse_bare_helper",
    "startup_budget",
    "volumes_of",
]

START_SECONDS = 1800
"""The budget of a start whose model's size is unknown."""
SLOW_BYTES_PER_SECOND = 100 * 2**20
"""A slow but working path: a tenth of a network volume's 1 GiB/s."""
VOLUME, CACHE_VOLUME = "inference-models", "inference-model-cache"


@dataclass(frozen=True, kw_only=True)
class HuggingFaceModel(PublicDataclass):
    """A repository of a Hugging Face hub."""

    repo: str
    """`owner/name`, or only `name` for the few repositories without an owner."""
    revision: str | None = None
    """Branch, tag or commit; `None` is the default branch. A commit starts from the cache without a
    network."""
    include: tuple[str, ...] = ()
    """Patterns of the files to load, such as `*.safetensors`; all when empty."""
    exclude: tuple[str, ...] = ()
    """Patterns of the files to leave out."""
    secret: HFSecret | None = None
    """The token for a gated or private repository; `VLLM` and `NIM` bring their own."""
    size: str | None = None
    """What it takes on disk, such as `"15Gi"`, if known: for the budget of the start."""

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.repo

    @property
    def source(self) -> tuple[str, ...]:
        """The loader's arguments."""
        revision = ("--revision", self.revision) if self.revision else ()
        return (f"hf://{self.repo}", *revision, *_patterns(self.include, self.exclude))

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        revision = f"@{self.revision}" if self.revision is not None else ""
        yield from _text_problems(f"hf://{self.repo}{revision}", HubReference)
        if self.secret is not None and not isinstance(self.secret, HFSecret):
            yield (
                "model: secret must be an HFSecret(hf_token_key=…), not a "
                f"{type(self.secret).__name__}"
            )
        elif self.secret is not None:
            yield from (f"model: {problem}" for problem in self.secret.reference().problems())


@dataclass(frozen=True, kw_only=True)
class ObjectStoreModel(PublicDataclass):
    """All files below a prefix of an object store, or one file of a store or web server."""

    uri: str
    """`s3://`, `gs://` or `abfs://`, read with the credentials of the task; `https://` of one file,
    read without any; `file://`, a path where the loader runs."""
    include: tuple[str, ...] = ()
    """Patterns of the files to load, such as `*.safetensors`; all when empty."""
    exclude: tuple[str, ...] = ()
    """Patterns of the files to leave out."""
    size: str | None = None
    """As for a repository of the hub."""

    @property
    def name(self) -> str:
        """What the model is called: the last part of the address, without a query."""
        try:
            return parse_model_reference(str(self.uri)).name
        except ConfigError:  # told by `problems`
            return ""

    @property
    def source(self) -> tuple[str, ...]:
        """The loader's arguments."""
        return (parse_model_reference(self.uri).text, *_patterns(self.include, self.exclude))

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        yield from _text_problems(self.uri, StoreReference, WebReference, FileReference)
        own = (MODELS_DIRECTORY, MODEL_CACHE_DIRECTORY)
        path = self.uri.removeprefix("file://") if isinstance(self.uri, str) else ""
        if f"{path}/".startswith(tuple(f"{directory}/" for directory in own)):
            yield (
                f"model: {path!r} lies below {own[0]} or {own[1]}, which hold only what the loader "
                "brings; a model that is on a volume already is a VolumeModel(volume=…, path=…)"
            )


@dataclass(frozen=True, kw_only=True)
class RegisteredModel(PublicDataclass):
    """A model of an MLflow registry, by exactly one of version, alias and stage."""

    name: str
    """The model's name in the registry."""
    version: int | None = None
    """Its version, from 1 on; either this or `alias`."""
    alias: str | None = None
    """Such as `champion`."""
    stage: str | None = None
    """Such as `Production`, or `latest` for the newest version. MLflow has deprecated stages in
    favour of aliases."""

    def __post_init__(self) -> None:
        read_whole_numbers(self)

    @property
    def source(self) -> tuple[str, ...]:
        """The loader's arguments."""
        reference = RegistryReference(
            model=self.name, version=self.version, alias=self.alias or "", stage=self.stage or ""
        )
        return (reference.text,)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        given = [value for value in (self.version, self.alias, self.stage) if value is not None]
        if len(given) != 1:
            yield (
                f"model: the registered model {self.name!r} needs exactly one of version, alias "
                "and stage"
            )
        elif self.version is not None and (type(self.version) is not int or self.version < 1):
            yield (
                f"model: version={self.version!r} of {self.name!r} must be a whole number, 1 or "
                "greater"
            )
        else:
            yield from _text_problems(self.source[0], RegistryReference)


@dataclass(frozen=True, kw_only=True)
class TaskInputModel(PublicDataclass):
    """A `FlyteFile` or `FlyteDirectory` among the task's inputs; needs `download_inputs=True`."""

    input: str
    """The input's name."""

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.input

    @property
    def source(self) -> tuple[str, ...]:
        """The loader's arguments."""
        return (f"input:{self.input}",)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        yield from _text_problems(f"input:{self.input}", InputReference)


@dataclass(frozen=True, kw_only=True)
class VolumeModel(PublicDataclass):
    """A model that is on a volume already: a claim, a directory of the node, an OCI image."""

    volume: Mapping[str, Any] = field(default_factory=dict)
    """The volume's source as Kubernetes writes it, e.g. `{"persistentVolumeClaim": {"claimName":
    "models"}}`."""
    path: str = ""
    """Where the model lies on it, relative to its root."""

    @property
    def name(self) -> str:
        """What the model is called: the last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2] or "model"

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        if not isinstance(self.volume, Mapping) or len(self.volume) != 1:
            like = {"persistentVolumeClaim": {"claimName": "models"}}
            yield (
                f"model: the volume must be a dictionary with one source, such as {like}, not "
                f"{self.volume!r}"
            )
        if self.path and path_problem(f"/{self.path}"):
            yield f"model: the path {self.path!r} must be relative to the volume and without '..'"


Model = Union[HuggingFaceModel, ObjectStoreModel, RegisteredModel, TaskInputModel, VolumeModel]  # noqa: UP007 - 3.10


def parse_model(text: str) -> Model:
    """Return the model that a plain text stands for.

    Raises:
        ConfigError: If it stands for none; names the forms there are.
    """
    reference = parse_model_reference(text)
    if isinstance(reference, HubReference):
        return HuggingFaceModel(repo=reference.repository, revision=reference.revision or None)
    if isinstance(reference, RegistryReference):
        return RegisteredModel(
            name=reference.model,
            version=reference.version,
            alias=reference.alias or None,
            stage=reference.stage or None,
        )
    if isinstance(reference, InputReference):
        return TaskInputModel(input=reference.input)
    return ObjectStoreModel(uri=reference.text)


def _text_problems(text: object, *kinds: type[ModelReference]) -> Iterator[str]:
    """Yield why the loader would refuse `text`, or take it for something else."""
    if not isinstance(text, str):
        yield f"model: the address must be a text, not a {type(text).__name__}"
        return
    try:
        reference = parse_model_reference(text)
    except ConfigError as error:
        yield f"model: {error}"
        return
    # `ObjectStoreModel(uri="owner/name")` would be loaded from the hub
    if not isinstance(reference, kinds):
        yield (
            f"model: {reference.label!r} is no address of a store; give model={reference.label!r} "
            "as a text, or the type for it"
        )


def _patterns(include: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[str, ...]:
    included = tuple(word for pattern in include for word in ("--include", pattern))
    return included + tuple(word for pattern in exclude for word in ("--exclude", pattern))


def model_problems(model: object, *, has_inputs: bool) -> Iterator[str]:
    """Yield what is wrong with what a user gave as a model.

    Args:
        model: A model's source, whatever it turned out to be.
        has_inputs: Whether the task's inputs are downloaded.
    """
    if not isinstance(model, get_args(Model)):
        yield f"model must be a text or a model's source, not a {type(model).__name__}"
        return
    yield from model.problems()
    if (size := getattr(model, "size", None)) is not None:
        yield from (f"model: {problem}" for problem in check_quantity("size", size, memory=True))
    if isinstance(model, TaskInputModel) and not has_inputs:
        yield f"model: {model.input!r} is an input of the task, which needs download_inputs=True"


def local_model_path(model: Model | None) -> str:
    """Return the path of a model on the loader's own machine; empty for every other source."""
    if not isinstance(model, ObjectStoreModel):
        return ""
    reference = parse_model_reference(model.uri)
    return reference.label if isinstance(reference, FileReference) else ""


def bytes_of(model: Model | None) -> int | None:
    """Return the size of a model, if its author told it."""
    size = getattr(model, "size", None)
    return int(parse_quantity(format_quantity(size))) if size is not None else None


def startup_budget(model: Model | None) -> int:
    """Return the seconds that a start may take: `START_SECONDS`, or by the model's size.

    The formula: ten minutes for pulling the image and starting the engine, and the model's bytes
    twice, once from a hub or store and once from disk to the device, at `SLOW_BYTES_PER_SECOND`.
    """
    size = bytes_of(model)
    return START_SECONDS if size is None else 600 + math.ceil(2 * size / SLOW_BYTES_PER_SECOND)


def path_of(model: Model) -> str:
    """Return where the server finds the model."""
    return (
        f"{MODELS_DIRECTORY}/{model.path}".rstrip("/")
        if isinstance(model, VolumeModel)
        else MODEL_PATH
    )


def volumes_of(
    model: Model | None, cache: Mapping[str, Any] | None, *, has_adapters: bool
) -> tuple[Volume, ...]:
    """Return the volumes on which models lie.

    The containers that download models write there; all others mount them read-only.

    Args:
        model: Where the model comes from.
        cache: The source of the volume that keeps complete versions; `None` is one of the pod's
            own.
        has_adapters: Whether the pod downloads LoRA adapters.
    """
    # the gates read the loader's state there, and the preflight measures the free space
    readers = (
        *(MODEL_SERVER, SERVER_SETUP, PREFLIGHT, MODEL_GATE, SERVER_GATE),
        METRICS_EXPORTER,
    )
    writers = ((LORA_DOWNLOADER,) if has_adapters else ()) + (
        (MODEL_LOADER,) if _is_loaded(model) else ()
    )
    volumes: list[Volume] = []
    if isinstance(model, VolumeModel):
        claimed = Volume(
            name=VOLUME,
            source=model.volume,
            mount_path=MODELS_DIRECTORY,
            read_only=True,
            containers=readers,
        )
        volumes.append(claimed)
    elif model is not None:
        volumes += _written(VOLUME, {"emptyDir": {}}, MODELS_DIRECTORY, (MODEL_LOADER,), readers)
    if writers:
        volumes += _written(
            CACHE_VOLUME, cache or {"emptyDir": {}}, MODEL_CACHE_DIRECTORY, writers, readers
        )
    return tuple(volumes)


def _is_loaded(model: Model | None) -> bool:
    return model is not None and not isinstance(model, VolumeModel)


def _written(
    name: str,
    source: Mapping[str, Any],
    path: str,
    writers: tuple[str, ...],
    readers: tuple[str, ...],
) -> list[Volume]:
    return [
        Volume(
            name=name, source=source, mount_path=path, read_only=read_only, containers=containers
        )
        for read_only, containers in ((False, writers), (True, readers))
    ]


def refuse_bare_helper(model: Model, helper: Helper) -> None:
    """Refuse an image that cannot download `model`.

    flytekit's own image reads stores and web servers, but has no client of hubs and registries.

    Raises:
        ConfigError: If the helper's image lacks this package, and with it the client.
    """
    extras = {HuggingFaceModel: "huggingface", RegisteredModel: "mlflow"}
    if helper.bundled and type(model) in extras:
        raise ConfigError(
            f"model={model.name!r} needs a helper image with this package and its extra "
            f"{extras[type(model)]}.",
            hint=f"Give helper_image= (usually the task's own image; image_spec("
            f"{extras[type(model)]!r}, …) makes one), or attach by @task(task_config=…).",
        )


def refuse_bare_adapters(adapters: Mapping[str, str]) -> None:
    """Refuse adapters that a plain Python image, into which only a hub's client comes, cannot read.

    Raises:
        ConfigError: One is in an object store or a registry.
    """
    for name, source in adapters.items():
        reference = parse_model_reference(source)
        if isinstance(reference, StoreReference | RegistryReference):
            raise ConfigError(
                f"The adapter {name!r} ({reference.label}) needs a helper image with the client "
                "of its store.",
                hint="Give helper_image= (usually the task's own image), or attach by "
                "@task(task_config=…).",
            )
