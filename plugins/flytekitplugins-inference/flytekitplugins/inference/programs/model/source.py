"""What a source of models is: which files it holds now, and how they are read."""

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
    """What a source holds at one moment."""

    revision: str
    files: tuple[SnapshotFile, ...]
    store: Store
    slow_down: Callable[[int], None] = lambda _: None
    """Tells the store how many connections are left, where it has some of its own."""
    staging_bytes: int = 0
    """Bytes that somebody else's client has still to bring to the cache's volume; until then
    `store` has none."""

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

    def select(self, files: Iterable[SnapshotFile], label: str) -> tuple[SnapshotFile, ...]:
        """Return the wanted ones, by name.

        Raises:
            SourceNotFoundError: Something was asked for and is not there, or nothing is left.
        """
        by_path = {file.path: file for file in files}
        if self.optional:
            spare = [name for name in self.either if name in by_path][1:]
            return tuple(
                by_path[name] for name in self.optional if name in by_path and name not in spare
            )
        missing = [name for name in self.include if not any(map(_matcher(name), by_path))]
        wanted = [
            by_path[path]
            for path in sorted(by_path)
            if (not self.include or any(_matcher(pattern)(path) for pattern in self.include))
            and not any(_matcher(pattern)(path) for pattern in self.exclude)
        ]
        exact = [name for name in missing if not re.search(r"[*?\[]|/$", name)]
        if exact or not wanted:
            what = (
                ", ".join(map(repr, exact or missing))
                if exact or missing
                else "any file that is not excluded"
            )
            names = ", ".join(sorted(by_path)[:10]) or "nothing"
            raise SourceNotFoundError(f"{label} does not have {what}.", hint=f"It has {names}.")
        return tuple(wanted)


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a predicate; a pattern that ends in `/` means all below, as huggingface_hub has it."""
    compiled = re.compile(fnmatch.translate(f"{pattern}*" if pattern.endswith("/") else pattern))
    return lambda path: compiled.match(path) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAccess:
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
        return (
            scheme_of(uri) == "file" and Path(uri.removeprefix("file://")).exists()
        ) or self.stores().is_readable(uri)


class ModelSource(Protocol):
    """A model somewhere."""

    label: str
    """What logs and errors call it, without secrets."""
    name: str
    """What the model is called: the repository, the registered model, the last part of a path."""
    identity: str
    """Tells it from every other source, and may hold a secret: it is hashed, and never shown."""
    ref: str
    """What was asked for: a branch, tag, commit, version, alias or stage; empty for whatever is
    there."""
    is_pinned: bool
    """Whether `ref` means the same content for ever, so that a cached version needs no look at the
    source."""

    def resolve(self) -> Snapshot:
        """Return what the source holds. Raises the `FetchError` family."""
