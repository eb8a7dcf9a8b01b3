"""Where models come from: for each kind of source, what it holds now and how that is read.

`parse_source` turns what a person writes into one of the classes. Each tells by `resolve()` which
revision the source has and which files with which sizes and digests; the bytes then come through a
`stores.Store`, whatever the source.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from pathlib import Path

from ...errors import InvalidSourceError, SourceNotFoundError, UsageError
from ...facts.address import mask, scheme_of
from ..local_names import safe_name
from ..protocol import INPUTS_FILE, INPUTS_VARIABLE
from ..stores.flyte_stores import Stores
from ..stores.store import Source
from .digest import MD5, Digest
from .source import ModelFile, ModelSource, Reading, Selection, Snapshot

_MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')
_MD5_BASE64 = re.compile(r"[A-Za-z0-9+/]{22}==")
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_key(source: ModelSource, selection: Selection) -> str:
    """Return the name of the model's directory in the cache; another selection of files is another model."""
    name = re.sub(r"^\w+:/*", "", source.label).replace("/", "--")
    facts = repr((source.label, selection))
    return (
        f"{safe_name(name)[-150:].lstrip('.-')}~{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    )


class StoreModel:
    """Everything below a prefix of an object store, a directory, or a single file.

    Such a place has no revisions: its revision is a digest of all names, sizes and versions below
    it.
    """

    def __init__(self, uri: str, *, reading: Reading, revision: str = "") -> None:
        self._uri, self._reading = uri, reading
        self.label = mask(uri)
        self.ref = revision
        self.is_pinned = revision != ""

    def resolve(self) -> Snapshot:
        """See `ModelSource`."""
        stores = self._reading.stores()
        files = tuple(
            ModelFile(path=path, source=source, digest=_digest(source))
            for path, source in self._find(stores)
        )
        facts = sorted((file.path, file.source.size, file.source.version) for file in files)
        revision = hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
        if self.ref and self.ref != revision:
            raise SourceNotFoundError(
                f"{self.label} is at revision {revision}, not {self.ref}.",
                hint="An object store keeps one revision; it was replaced since. Leave the "
                "revision out to take it.",
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
    if scheme_of(source.uri) in ("s3", "s3a") and (etag := _MD5_ETAG.fullmatch(source.version)):
        return Digest(
            algorithm=MD5, value=etag[1], is_certain=False
        )  # with KMS it looks the same and is none
    if scheme_of(source.uri) in ("gs", "gcs", "abfs", "abfss"):
        sums = {
            word for word in source.version.split() if _MD5_BASE64.fullmatch(word)
        }  # an ETag may repeat it
        if len(sums) == 1:
            is_certain = scheme_of(source.uri) in (
                "gs",
                "gcs",
            )  # Azure keeps what the uploader said
            return Digest(
                algorithm=MD5, value=base64.b64decode(sums.pop()).hex(), is_certain=is_certain
            )
    return Digest()


class RegisteredModel:
    """A model of an MLflow registry: `models:/name/version` or `models:/name@alias`.

    The registry says where the files are; `stores` fetches them when it knows that place, and
    MLflow's client does when only it can (`mlflow-artifacts:`, `dbfs:`).
    """

    def __init__(self, uri: str, *, reading: Reading, staging: Path) -> None:
        name, version, alias = _registered(uri)
        self._name = name
        self._reading = reading
        self._staging = staging
        self.label = f"models:/{name}"
        self.ref = version or f"@{alias}"
        self._alias = alias
        self.is_pinned = version.isdecimal()

    def resolve(self) -> Snapshot:
        """See `ModelSource`."""
        from .registry import listing, lookup

        version, uri = lookup(
            self._name, self._alias or self.ref, bool(self._alias), self._staging, self._reading
        )
        if not self._reading.is_readable(uri):
            listed = listing(uri, f"models:/{self._name}, version {version}", self._reading)
            files = tuple(ModelFile(path=s.uri, source=s, digest=Digest()) for s in listed)
            size = sum(file.source.size or 0 for file in files)
            return Snapshot(
                revision=version, files=files, store=self._reading.stores(), staging_bytes=size
            )
        found = StoreModel(uri, reading=self._reading).resolve()
        return Snapshot(
            revision=f"{version}-{found.revision}", files=found.files, store=found.store
        )


def _registered(uri: str) -> tuple[str, str, str]:
    """Return name, version and alias; one of the last two is empty."""
    name, at, alias = uri.removeprefix("models:/").strip("/").partition("@")
    version = ""
    if not at:
        name, _, version = name.rpartition("/")
    if not name or not (version or alias):
        raise UsageError(
            f"{uri!r} names no model version.",
            hint="Write models:/name/version or models:/name@alias.",
        )
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
                f"The task's inputs have no file or directory {self._name!r}.",
                hint=f"They have {names}.",
            )
        return StoreModel(value, reading=self._reading).resolve()


def parse_source(text: str, *, reading: Reading, staging: Path, revision: str = "") -> ModelSource:
    """Return the source that `text` names; see the program's help for the forms.

    Args:
        text: What a person wrote.
        reading: How it is read.
        staging: A directory for what only MLflow's own client can fetch.
        revision: Branch, tag or commit of a hub's repository, or a revision that this program
            reported.

    Raises:
        UsageError: It is none of the forms.
    """
    from .hub_model import HubModel

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
            hint="Write owner/name[@revision], s3://bucket/prefix, models:/name/version, "
            "input:NAME or a path.",
        )
    ref = at or revision or "main"
    return HubModel(
        repository, ref=ref, is_pinned=_COMMIT.fullmatch(ref) is not None, reading=reading
    )
