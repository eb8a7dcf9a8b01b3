"""Where models come from: for each kind of source, what it holds now and how that is read.

`parse_source` turns what a person writes into one of the classes. Each tells by `resolve()` which revision the source
has and which files with which sizes and digests; the bytes then come through a `stores.Store`, whatever the source.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import InvalidSourceError, SourceNotFoundError, UsageError
from .local_names import safe_name
from .model_digest import MD5, Digest
from .protocol import INPUTS_FILE, INPUTS_VARIABLE
from .stores import Source, Store, Stores, mask, scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')
_MD5_BASE64 = re.compile(r"[A-Za-z0-9+/]{22}==")
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """One file of a model."""

    path: str
    """Its name in the source, relative."""
    source: Source
    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a source holds at one moment."""

    revision: str
    files: tuple[ModelFile, ...]
    store: Store
    slow_down: Callable[[int], None] = lambda _: None
    """Tells the store how many connections are left, where it has some of its own."""
    staging_bytes: int = 0
    """Bytes that somebody else's client has still to bring to the cache's volume; until then `store` has none."""

    @property
    def size(self) -> int:
        """Bytes of all files, as far as the source tells."""
        return sum(file.source.size or 0 for file in self.files)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which files of a model are wanted: shell patterns, matched against the whole path."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Instead of `include`: those of these names that are there."""
    either: tuple[str, ...] = ()
    """Of these names only the first that is there."""

    def select(self, files: Iterable[ModelFile], label: str) -> tuple[ModelFile, ...]:
        """Return the wanted ones, by name.

        Raises:
            SourceNotFoundError: Something was asked for and is not there, or nothing is left.
        """
        found = {file.path: file for file in files}
        if self.optional:
            spare = [name for name in self.either if name in found][1:]
            return tuple(found[name] for name in self.optional if name in found and name not in spare)
        missing = [name for name in self.include if not any(map(_matcher(name), found))]
        wanted = [
            found[path]
            for path in sorted(found)
            if (not self.include or any(_matcher(pattern)(path) for pattern in self.include))
            and not any(_matcher(pattern)(path) for pattern in self.exclude)
        ]
        exact = [name for name in missing if not re.search(r"[*?\[]|/$", name)]
        if exact or not wanted:
            what = ", ".join(map(repr, exact or missing)) if exact or missing else "any file that is not excluded"
            names = ", ".join(sorted(found)[:10]) or "nothing"
            raise SourceNotFoundError(f"{label} does not have {what}.", hint=f"It has {names}.")
        return tuple(wanted)


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a predicate; a pattern that ends in `/` means all below, as huggingface_hub has it."""
    compiled = re.compile(fnmatch.translate(f"{pattern}*" if pattern.endswith("/") else pattern))
    return lambda path: compiled.match(path) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How sources are read."""

    environ: Mapping[str, str]
    connections: int
    stall_seconds: float
    may_write: bool = True
    """Whether what only another client can read is fetched, and not only listed."""

    def stores(self) -> Stores:
        """Return all stores that are read with Flyte's credentials."""
        return Stores(self.environ, connections=self.connections, stall_seconds=self.stall_seconds)

    def is_readable(self, uri: str) -> bool:
        """Whether one of the stores can read `uri` from here."""
        return (scheme(uri) == "file" and Path(uri.removeprefix("file://")).exists()) or self.stores().is_readable(uri)


class ModelSource(Protocol):
    """A model somewhere."""

    label: str
    """What to call it, without secrets."""
    ref: str
    """What was asked for: a branch, tag, commit, version or alias; empty for whatever is there."""
    is_pinned: bool
    """Whether `ref` means the same content for ever, so that what is cached needs no look at the source."""

    def resolve(self) -> Snapshot:
        """Return what the source holds. Raises the `FetchError` family."""


def cache_key(source: ModelSource, selection: Selection) -> str:
    """Return the name of the model's directory in the cache; another selection of files is another model."""
    name = re.sub(r"^\w+:/*", "", source.label).replace("/", "--")
    facts = repr((source.label, selection))
    return f"{safe_name(name)[-150:].lstrip('.-')}~{hashlib.sha256(facts.encode()).hexdigest()[:12]}"


class StoreModel:
    """Everything below a prefix of an object store, a directory, or a single file.

    Such a place has no revisions: its revision is a digest of all names, sizes and versions below it.
    """

    def __init__(self, uri: str, *, reading: Reading, revision: str = "") -> None:
        self._uri, self._reading = uri, reading
        self.label, self.ref, self.is_pinned = mask(uri), revision, revision != ""

    def resolve(self) -> Snapshot:
        """See `ModelSource`."""
        stores = self._reading.stores()
        files = tuple(
            ModelFile(path=path, source=source, digest=_digest(source)) for path, source in self._find(stores)
        )
        facts = sorted((file.path, file.source.size, file.source.version) for file in files)
        revision = hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
        if self.ref and self.ref != revision:
            raise SourceNotFoundError(
                f"{self.label} is at revision {revision}, not {self.ref}.",
                hint="An object store keeps one revision; it was replaced since. Leave the revision out to take it.",
            )
        return Snapshot(revision=revision, files=files, store=stores)

    def _find(self, stores: Stores) -> list[tuple[str, Source]]:
        try:
            return stores.find(self._uri)
        except (SourceNotFoundError, InvalidSourceError) as error:
            try:
                source = stores.stat(self._uri.rstrip("/"))
            except (SourceNotFoundError, InvalidSourceError):
                raise error from None
            return [(self._uri.rstrip("/").rpartition("/")[2], source)]


def _digest(source: Source) -> Digest:
    """Return what a store says of the content: an ETag or checksum that is an md5 (or looks like one)."""
    if scheme(source.uri) in ("s3", "s3a") and (etag := _MD5_ETAG.fullmatch(source.version)):
        return Digest(algorithm=MD5, value=etag[1], is_certain=False)  # with KMS it looks the same and is none
    if scheme(source.uri) in ("gs", "gcs", "abfs", "abfss"):
        sums = {word for word in source.version.split() if _MD5_BASE64.fullmatch(word)}  # an ETag may repeat it
        if len(sums) == 1:
            is_certain = scheme(source.uri) in ("gs", "gcs")  # Azure keeps what the uploader said
            return Digest(algorithm=MD5, value=base64.b64decode(sums.pop()).hex(), is_certain=is_certain)
    return Digest()


class RegisteredModel:
    """A model of an MLflow registry: `models:/name/version` or `models:/name@alias`.

    The registry says where the files are; `stores` fetches them when it knows that place, and MLflow's client does when
    only it can (`mlflow-artifacts:`, `dbfs:`).
    """

    def __init__(self, uri: str, *, reading: Reading, staging: Path) -> None:
        name, version, alias = _registered(uri)
        self._name, self._reading, self._staging = name, reading, staging
        self.label, self.ref, self._alias = f"models:/{name}", version or f"@{alias}", alias
        self.is_pinned = version.isdecimal()

    def resolve(self) -> Snapshot:
        """See `ModelSource`."""
        from .model_registry import listing, lookup

        version, uri = lookup(self._name, self._alias or self.ref, bool(self._alias), self._staging, self._reading)
        if not self._reading.is_readable(uri):
            listed = listing(uri, f"models:/{self._name}, version {version}", self._reading)
            files = tuple(ModelFile(path=s.uri, source=s, digest=Digest()) for s in listed)
            size = sum(file.source.size or 0 for file in files)
            return Snapshot(revision=version, files=files, store=self._reading.stores(), staging_bytes=size)
        found = StoreModel(uri, reading=self._reading).resolve()
        return Snapshot(revision=f"{version}-{found.revision}", files=found.files, store=found.store)


def _registered(uri: str) -> tuple[str, str, str]:
    """Return name, version and alias; one of the last two is empty."""
    name, at, alias = uri.removeprefix("models:/").strip("/").partition("@")
    version = ""
    if not at:
        name, _, version = name.rpartition("/")
    if not name or not (version or alias):
        raise UsageError(f"{uri!r} names no model version.", hint="Write models:/name/version or models:/name@alias.")
    return name, version, alias


class InputModel:
    """A task's input: the path that the input downloader has written for it."""

    ref, is_pinned = "", False

    def __init__(self, name: str, *, reading: Reading) -> None:
        self._name, self._reading = name, reading
        self.label = f"input:{name}"

    def resolve(self) -> Snapshot:
        """See `ModelSource`. Waits for the inputs, which another container brings."""
        path = Path(self._reading.environ.get(INPUTS_VARIABLE) or INPUTS_FILE)
        while not path.exists():
            time.sleep(0.2)
        inputs = json.loads(path.read_text(encoding="utf-8"))
        value = inputs.get(self._name) if isinstance(inputs, dict) else None
        if not isinstance(value, str):
            names = ", ".join(map(repr, inputs)) if isinstance(inputs, dict) else "no names"
            raise SourceNotFoundError(
                f"The task's inputs have no file or directory {self._name!r}.", hint=f"They have {names}."
            )
        return StoreModel(value, reading=self._reading).resolve()


def parse_source(text: str, *, reading: Reading, staging: Path, revision: str = "") -> ModelSource:
    """Return the source that `text` names; see the program's help for the forms.

    Args:
        text: What a person wrote.
        reading: How it is read.
        staging: A directory for what only MLflow's own client can fetch.
        revision: Branch, tag or commit of a hub's repository, or a revision that this program reported.

    Raises:
        UsageError: It is none of the forms.
    """
    from .model_hub import HubModel

    if text.startswith("models:/"):
        return RegisteredModel(text, reading=reading, staging=staging)
    if text.startswith("input:"):
        return InputModel(text.removeprefix("input:"), reading=reading)
    if text.startswith("/") or ("://" in text and not text.startswith("hf://")):
        return StoreModel(text, reading=reading, revision=revision)
    repository, _, at = text.removeprefix("hf://").partition("@")
    if not _REPOSITORY.fullmatch(repository) or (at and revision and at != revision):
        raise UsageError(
            f"{text!r} is not a model source.",
            hint="Write owner/name[@revision], s3://bucket/prefix, models:/name/version, input:NAME or a path.",
        )
    ref = at or revision or "main"
    return HubModel(repository, ref=ref, is_pinned=_COMMIT.fullmatch(ref) is not None, reading=reading)
