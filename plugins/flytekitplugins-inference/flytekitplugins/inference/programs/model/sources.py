"""Where models come from: for each kind of source, what it holds now and how that is read.

`open_source` turns what a person writes (`facts.model_reference`) into one of the classes. Each
tells by `resolve()` which revision the source has and which files with which sizes and digests; the
bytes then come through a `stores.Store`, whatever the source.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from pathlib import Path

from ...errors import ConfigError, InvalidSourceError, SourceNotFoundError, UsageError
from ...facts.address import mask, scheme_of
from ...facts.model_reference import (
    HubReference,
    InputReference,
    RegistryReference,
    WebReference,
    parse_model_reference,
)
from ..local_names import safe_name
from ..protocol import INPUTS_FILE, INPUTS_VARIABLE
from ..stores.flyte_stores import Stores
from ..stores.store import StoredFile
from .digest import MD5, Digest
from .source import ModelSource, Selection, Snapshot, SnapshotFile, SourceAccess

_MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')
_MD5_BASE64 = re.compile(r"[A-Za-z0-9+/]{22}==")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_key(source: ModelSource, selection: Selection) -> str:
    """Return the name of the model's directory in the cache.

    Another selection of files is another model.
    """
    name = re.sub(r"^\w+:/*", "", source.label).replace("/", "--")
    digest = hashlib.sha256(repr((source.identity, selection)).encode()).hexdigest()[:12]
    return f"{safe_name(name)[-150:].lstrip('.-')}~{digest}"


class StoreModel:
    """Everything below a prefix of a store or a directory, or a single file.

    Such a place has no revisions: its revision is a digest of all names, sizes and versions below
    it.

    Args:
        uri: The place; a path, or an address with a scheme.
        access: How it is read.
        label: What logs call it; `uri` without what may be secret when empty.
        revision: The only revision that will do; any when empty.
    """

    def __init__(
        self, uri: str, *, access: SourceAccess, label: str = "", revision: str = ""
    ) -> None:
        self._uri, self._access = uri, access
        self.label = label or mask(uri)
        self.name = _file_name(uri)
        # a query may tell two models apart (`?id=1`, `?versionId=…`), so it counts, unlike in a log
        self.identity = uri
        self.ref = revision
        self.is_pinned = revision != ""

    def resolve(self) -> Snapshot:
        """See `ModelSource`."""
        stores = self._access.stores()
        files = tuple(
            SnapshotFile(path=path, source=stored, digest=_digest(stored))
            for path, stored in self._list(stores)
        )
        facts = sorted((file.path, file.source.size, file.source.version) for file in files)
        revision = hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
        if self.ref and self.ref != revision:
            raise SourceNotFoundError(
                f"{self.label} is at revision {revision}, not {self.ref}.",
                hint="A store keeps one revision, and it has been replaced. Leave out the "
                "revision to load the present one.",
            )
        return Snapshot(revision=revision, files=files, store=stores)

    def _list(self, stores: Stores) -> list[tuple[str, StoredFile]]:
        try:
            return stores.find(self._uri)
        except (SourceNotFoundError, InvalidSourceError) as error:
            try:
                stored = stores.stat(self._uri.rstrip("/"))
            except (SourceNotFoundError, InvalidSourceError):
                raise error from None
            return [(self.name, stored)]


class WebFileModel(StoreModel):
    """One file of a web server.

    It is never asked for an index: that would read all of a large file, to look for links in it.
    """

    def _list(self, stores: Stores) -> list[tuple[str, StoredFile]]:
        return [(self.name, stores.stat(self._uri))]


def _file_name(uri: str) -> str:
    """Return what the file at `uri` is called: as the templates call it, where they can read `uri`.

    An address from a task's input or a registry may be of a kind that nobody writes as `model=`.
    """
    try:
        return parse_model_reference(uri).name
    except ConfigError:
        return uri.rstrip("/").rpartition("/")[2]


def _digest(stored: StoredFile) -> Digest:
    """Return what a store says of the content: an ETag or checksum that is or looks like an md5."""
    if scheme_of(stored.uri) in ("s3", "s3a") and (etag := _MD5_ETAG.fullmatch(stored.version)):
        # not certain: with KMS the ETag looks the same and is no md5
        return Digest(algorithm=MD5, value=etag[1], is_certain=False)
    if scheme_of(stored.uri) in ("gs", "gcs", "abfs", "abfss"):
        # a set, since an ETag may repeat the checksum
        sums = {word for word in stored.version.split() if _MD5_BASE64.fullmatch(word)}
        if len(sums) == 1:
            is_certain = scheme_of(stored.uri) in (
                "gs",
                "gcs",
            )  # Azure keeps what the uploader said
            value = base64.b64decode(sums.pop()).hex()
            return Digest(algorithm=MD5, value=value, is_certain=is_certain)
    return Digest()


class RegistryModel:
    """A version of a model in an MLflow registry.

    The registry says where the files are; `stores` fetches them when it knows that place, and
    MLflow's client does when only it can (`mlflow-artifacts:`, `dbfs:`).

    Args:
        reference: Which model, and which version of it.
        access: How it is read.
        staging: A directory for what only MLflow's own client can fetch.
    """

    def __init__(
        self, reference: RegistryReference, *, access: SourceAccess, staging: Path
    ) -> None:
        self._reference = reference
        self._access = access
        self._staging = staging
        self.label = self.identity = reference.label
        self.name = reference.name
        self.ref = reference.selector
        self.is_pinned = reference.version is not None

    def resolve(self) -> Snapshot:
        """See `ModelSource`."""
        from .registry import listing, lookup

        version, uri = lookup(self._reference, self._staging, self._access)
        if not self._access.is_readable(uri):
            listed = listing(uri, f"{self.label}, version {version}", self._access)
            files = tuple(
                SnapshotFile(path=stored.uri, source=stored, digest=Digest()) for stored in listed
            )
            size = sum(file.source.size or 0 for file in files)
            return Snapshot(
                revision=version, files=files, store=self._access.stores(), staging_bytes=size
            )
        snapshot = StoreModel(uri, access=self._access).resolve()
        # the number alone does not show that the version's files were replaced in their store
        revision = f"{version}-{snapshot.revision}"
        return Snapshot(revision=revision, files=snapshot.files, store=snapshot.store)


class InputModel:
    """A task's input: the path that the input downloader has written for it."""

    ref, is_pinned = "", False

    def __init__(self, reference: InputReference, *, access: SourceAccess) -> None:
        self._access = access
        self.label = self.identity = reference.label
        self.name = reference.name

    def resolve(self) -> Snapshot:
        """See `ModelSource`. Waits for the inputs, which another container brings."""
        path = Path(self._access.environ.get(INPUTS_VARIABLE) or INPUTS_FILE)
        while not path.exists():
            time.sleep(0.2)
        inputs = json.loads(path.read_text(encoding="utf-8"))
        value = inputs.get(self.name) if isinstance(inputs, dict) else None
        if not isinstance(value, str):
            names = ", ".join(map(repr, inputs)) if isinstance(inputs, dict) else "no names"
            raise SourceNotFoundError(
                f"The task's inputs have no file or directory {self.name!r}.",
                hint=f"They have {names}.",
            )
        return StoreModel(value, access=self._access).resolve()


def open_source(
    text: str, *, access: SourceAccess, staging: Path, revision: str = ""
) -> ModelSource:
    """Return the source that `text` refers to.

    Args:
        text: What a person wrote.
        access: How it is read.
        staging: A directory for what only MLflow's own client can fetch.
        revision: Branch, tag or commit of a hub's repository, or a revision that this program
            reported.

    Raises:
        UsageError: It is none of the forms, or names another revision than `revision`.
    """
    from .hub_model import HubModel

    try:
        reference = parse_model_reference(text)
    except ConfigError as error:  # the same words as on a laptop, and a program's own exit code
        raise UsageError(error.message, hint=error.hint) from error
    if isinstance(reference, RegistryReference):
        return RegistryModel(reference, access=access, staging=staging)
    if isinstance(reference, InputReference):
        return InputModel(reference, access=access)
    if not isinstance(reference, HubReference):
        is_web_file = isinstance(reference, WebReference) and not reference.is_directory
        kind = WebFileModel if is_web_file else StoreModel
        return kind(reference.text, access=access, label=reference.label, revision=revision)
    if reference.revision and revision not in ("", reference.revision):
        raise UsageError(
            f"{text!r} names another revision than --revision {revision}.",
            hint="Give the revision once.",
        )
    ref = reference.revision or revision or "main"
    is_pinned = _COMMIT.fullmatch(ref) is not None
    return HubModel(reference.repository, ref=ref, is_pinned=is_pinned, access=access)
