"""Where a model comes from: one small type per source, and the plain texts that stand for them.

Each type knows how the model loader is told about it (`source`), or, for a volume that already
holds the model, that there is nothing to load. What a server reads is the same for all:
`MODEL_PATH`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args

from ..errors import ConfigError
from ..programs.protocol import MODEL_CACHE_DIRECTORY, MODEL_PATH, MODELS_DIRECTORY
from ..public_dataclass import PublicDataclass
from .check import check_quantity
from .names import path_problem
from .parts import (
    LORA_DOWNLOADER,
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
    "model_problems",
    "parse_model",
    "path_of",
    "refuse_bare_helper",
    "startup_budget",
    "volumes_of",
]

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+\Z")
_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[\w.-]+))\Z")
_STORES = ("s3://", "gs://", "abfs://", "abfss://", "file://")
START_SECONDS = 1800
"""The budget of a start whose model's size is not known."""
SLOW_BYTES_PER_SECOND = 100 * 2**20
"""A slow but working path: a tenth of a network volume's 1 GiB/s."""
VOLUME, CACHE_VOLUME = "inference-models", "inference-model-cache"
FORMS = (
    "'owner/name', 's3://bucket/prefix', 'file:///path', 'models:/name/3', "
    "'models:/name@alias' or 'input:name'"
)


@dataclass(frozen=True, kw_only=True)
class HuggingFaceModel(PublicDataclass):
    """A repository of the Hugging Face hub."""

    repo: str
    """`owner/name`."""
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
    """What it takes on disk, such as `"15Gi"`, if known: for the budget of the start and the check
    of free space."""

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
        if not _REPOSITORY.match(self.repo):
            yield f"model: {self.repo!r} is not a Hugging Face repository; expected 'owner/name'"
        if self.secret is not None and not isinstance(self.secret, HFSecret):
            yield (
                "model: secret must be an HFSecret(hf_token_key=…), not a "
                f"{type(self.secret).__name__}"
            )
        elif self.secret is not None:
            yield from (f"model: {problem}" for problem in self.secret.reference().problems())


@dataclass(frozen=True, kw_only=True)
class ObjectStoreModel(PublicDataclass):
    """All files below a prefix of an object store."""

    uri: str
    """`s3://`, `gs://`, `abfs://` or `file://`; read with the credentials of the task."""
    include: tuple[str, ...] = ()
    """Patterns of the files to load, such as `*.safetensors`; all when empty."""
    exclude: tuple[str, ...] = ()
    """Patterns of the files to leave out."""
    size: str | None = None
    """As for a repository of the hub."""

    @property
    def name(self) -> str:
        """What the model is called: the last part of the prefix."""
        return self.uri.rstrip("/").rpartition("/")[2]

    @property
    def source(self) -> tuple[str, ...]:
        """The loader's arguments."""
        return (self.uri, *_patterns(self.include, self.exclude))

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        if not self.uri.startswith(_STORES) or not self.uri.partition("://")[2].strip("/"):
            yield (
                f"model: {self.uri!r} is not a prefix in a store; expected one such as "
                "'s3://bucket/prefix'"
            )


@dataclass(frozen=True, kw_only=True)
class RegisteredModel(PublicDataclass):
    """A model of an MLflow registry, by version or alias."""

    name: str
    """The model's name in the registry."""
    version: int | None = None
    """Its version, from 1 on; either this or `alias`."""
    alias: str | None = None
    """The alias of a version, such as `champion`."""

    def __post_init__(self) -> None:
        read_whole_numbers(self)

    @property
    def source(self) -> tuple[str, ...]:
        """The loader's arguments."""
        return (
            f"models:/{self.name}@{self.alias}"
            if self.alias
            else f"models:/{self.name}/{self.version}",
        )

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with it."""
        if (self.version is None) == (self.alias is None):
            yield f"model: the registered model {self.name!r} needs either a version or an alias"
        elif self.version is not None and (type(self.version) is not int or self.version < 1):
            yield (
                f"model: version={self.version!r} of {self.name!r} must be a whole number from 1 on"
            )


@dataclass(frozen=True, kw_only=True)
class TaskInputModel(PublicDataclass):
    """A `FlyteFile` or `FlyteDirectory` that is an input of the task; needs `download_inputs=True`."""

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
        if not self.input.isidentifier():
            yield f"model: {self.input!r} is not the name of a task's input"


@dataclass(frozen=True, kw_only=True)
class VolumeModel(PublicDataclass):
    """A model that lies on a volume already: a claim, a directory of the node, an OCI image volume."""

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
    if match := _REGISTERED.match(text):
        version = match["version"]
        return RegisteredModel(
            name=match["name"], version=int(version) if version else None, alias=match["alias"]
        )
    if text.startswith("input:"):
        return TaskInputModel(input=text.removeprefix("input:"))
    if text.startswith(_STORES):
        return ObjectStoreModel(uri=text)
    repo, _, revision = text.removeprefix("hf://").partition("@")
    if _REPOSITORY.match(repo):
        return HuggingFaceModel(repo=repo, revision=revision or None)
    is_path = text.startswith(("/", ".", "~"))
    path = "A path of this machine is written 'file:///absolute/path'. " if is_path else ""
    raise ConfigError(f"model={text!r} is not understood.", hint=f"{path}Expected {FORMS}.")


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
    """Return the volumes on which models lie: written by the containers that bring them, read-only for everybody else.

    Args:
        model: Where the model comes from.
        cache: The source of the volume that keeps complete versions; `None` is one of the pod's
            own.
        has_adapters: Whether LoRA adapters are brought.
    """
    readers = (MODEL_SERVER, SERVER_SETUP, PREFLIGHT, MODEL_GATE, SERVER_GATE)
    writers = ((LORA_DOWNLOADER,) if has_adapters else ()) + (
        (MODEL_LOADER,) if _is_loaded(model) else ()
    )
    found: list[Volume] = []
    if isinstance(model, VolumeModel):
        lent = Volume(
            name=VOLUME,
            source=model.volume,
            mount_path=MODELS_DIRECTORY,
            read_only=True,
            containers=readers,
        )
        found.append(lent)
    elif model is not None:
        found += _written(VOLUME, {"emptyDir": {}}, MODELS_DIRECTORY, (MODEL_LOADER,), readers)
    if writers:
        found += _written(
            CACHE_VOLUME, cache or {"emptyDir": {}}, MODEL_CACHE_DIRECTORY, writers, readers
        )
    return tuple(found)


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
    """Refuse an image that cannot bring `model`: flytekit's own reads stores, but has no client of hubs and registries.

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
