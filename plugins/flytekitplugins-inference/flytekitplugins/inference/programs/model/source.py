"""The interface of a source of models: its current files, and how to read them."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...errors import SourceNotFoundError
from ...facts.address import scheme_of
from ..stores.flyte_stores import Stores
from ..stores.store import Store, StoredFile
from .digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotFile:
    """One file of a model."""

    path: str
    """Its name in the source, relative."""
    source: StoredFile
    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The files of a source at one moment."""

    revision: str
    files: tuple[SnapshotFile, ...]
    store: Store
    slow_down: Callable[[int], None] = lambda _: None
    """Limits the connections that the store opens by itself."""
    staging_bytes: int = 0
    """Bytes that another library's client must first download to the cache's volume; until then
    `store` has none."""

    @property
    def size(self) -> int:
        """Bytes of all files whose size the source reports."""
        return sum(file.source.size or 0 for file in self.files)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Selects the files of a model by shell patterns, which must match the whole path."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Names that are selected if they exist; replaces `include`."""
    either: tuple[str, ...] = ()
    """Alternative names; only the first existing one is selected."""

    def select(self, files: Iterable[SnapshotFile], label: str) -> tuple[SnapshotFile, ...]:
        """Return the selected files, sorted by name.

        Raises:
            SourceNotFoundError: A file that `include` names does not exist, or no file is selected.
        """
        by_path = {file.path: file for file in files}
        if self.optional:
            spare = [name for name in self.either if name in by_path][1:]
            return tuple(
                by_path[name] for name in self.optional if name in by_path and name not in spare
            )
        missing = [name for name in self.include if not any(map(_matcher(name), by_path))]
        selected = [
            by_path[path]
            for path in sorted(by_path)
            if (not self.include or any(_matcher(pattern)(path) for pattern in self.include))
            and not any(_matcher(pattern)(path) for pattern in self.exclude)
        ]
        exact = [name for name in missing if not re.search(r"[*?\[]|/$", name)]
        if exact or not selected:
            what = (
                ", ".join(map(repr, exact or missing))
                if exact or missing
                else "any file that is not excluded"
            )
            names = ", ".join(sorted(by_path)[:10]) or "nothing"
            raise SourceNotFoundError(f"{label} does not have {what}.", hint=f"It has {names}.")
        return tuple(selected)


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a predicate; a pattern that ends in `/` means all below, as huggingface_hub has it."""
    compiled = re.compile(fnmatch.translate(f"{pattern}*" if pattern.endswith("/") else pattern))
    return lambda path: compiled.match(path) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAccess:
    """The configuration of access to sources."""

    environ: Mapping[str, str]
    connections: int
    stall_seconds: float
    may_write: bool = True
    """Whether a client that only writes files may download, instead of only listing."""

    def stores(self) -> Stores:
        """Return all stores that are read with Flyte's credentials."""
        return Stores(self.environ, connections=self.connections, stall_seconds=self.stall_seconds)

    def is_readable(self, uri: str) -> bool:
        """Whether one of the stores can read `uri` from here."""
        return (
            scheme_of(uri) == "file" and Path(uri.removeprefix("file://")).exists()
        ) or self.stores().is_readable(uri)


class ModelSource(Protocol):
    """A source of one model."""

    label: str
    """The name in logs and errors, without secrets."""
    name: str
    """The model's name: the repository, the registered model, or the last part of a path."""
    identity: str
    """Unique for each source. It may contain a secret, so it is hashed and never shown."""
    ref: str
    """The requested branch, tag, commit, version, alias or stage; empty for the default."""
    is_pinned: bool
    """Whether the content of `ref` never changes, so a cached version needs no request to the
    source."""

    def resolve(self) -> Snapshot:
        """Return the current files. Raises `FetchError` or one of its subclasses."""
