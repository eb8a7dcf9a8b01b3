"""Complete versions of models on a volume, perhaps one that many pods share.

    <cache>/<model>/<revision>/files/…          the version's files, and nothing else
    <cache>/<model>/<revision>/manifest.json    written last: the version is complete
    <cache>/<model>/<revision>/synced           the bytes have reached the disk
    <cache>/<model>/<revision>/leases/<holder>  who uses it; see `model_lease`
    <cache>/<model>/<revision>.lease            who writes it
    <cache>/<model>/refs/<name>                 the revision that a branch, tag or alias had last

A version is never changed: it becomes complete, and one day it is removed as a whole. When it was
used last is the modification time of its manifest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import IntegrityError
from ..disk import make_root, write_json, writing
from ..kernel import boot_id
from ..local_names import safe_name
from ..protocol import VERSION
from ..transfer.transfers import INCOMING
from .digest import file_digest, in_parallel
from .lease import USE_EXPIRY_SECONDS, Heartbeat, Lock, is_live, now

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MANIFEST = "manifest.json"
FILES = "files"
LEASES = "leases"
SYNCED = "synced"
REFS = "refs"
_TRASH = ".trash-"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of a complete version, as its manifest names it."""

    path: str
    size: int
    digest: str
    """`<algorithm>:<hexadecimal>`."""


def read_json(path: Path) -> Any:
    """Return what the file says; None where it is absent or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class Version:
    """One revision of one model, in the cache or on its way there.

    Args:
        path: Its directory.
        revision: Its name in the source.
    """

    def __init__(self, path: Path, revision: str) -> None:
        self.path, self.revision = path, revision

    @property
    def files(self) -> Path:
        """The directory that is published."""
        return self.path / FILES

    @property
    def lease(self) -> Path:
        """The lease of who writes it."""
        return self.path.with_name(f"{self.path.name}.lease")

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a complete version; None of any other.

        Complete means that each file is there with the size that the manifest says.
        """
        manifest = read_json(self.path / MANIFEST)
        try:
            if all(
                (self.files / file["path"]).stat().st_size == file["size"]
                for file in manifest["files"]
            ):
                return dict(manifest)
        except (OSError, TypeError, KeyError):
            pass
        return None

    def entries(self) -> list[FileEntry]:
        """Return the files that the manifest names."""
        return [
            FileEntry(**file)
            for file in (read_json(self.path / MANIFEST) or {"files": []})["files"]
        ]

    def is_durable(self) -> bool:
        """Whether a crash of a machine cannot have taken bytes that the manifest names."""
        manifest = read_json(self.path / MANIFEST) or {}
        return (self.path / SYNCED).exists() or manifest.get("boot") == boot_id() != "unknown"

    def complete(self, entries: Sequence[FileEntry], **facts: Any) -> None:
        """Write the manifest, which makes the version complete."""
        fields = {"version": VERSION, "revision": self.revision, **facts, "boot": boot_id()}
        files = [
            {"path": entry.path, "size": entry.size, "digest": entry.digest} for entry in entries
        ]
        write_json(self.path / MANIFEST, {**fields, "files": files})

    def sync(self) -> None:
        """Write its bytes through to the disk. Only then may another boot trust the manifest."""
        if (self.path / SYNCED).exists():
            return
        # a volume may be read-only, a version removed meanwhile; the next start checks it again
        with contextlib.suppress(OSError):
            for entry in self.entries():
                with (self.files / entry.path).open("rb") as file:
                    os.fsync(file.fileno())
            (self.path / SYNCED).touch(mode=0o644)

    def verify(self) -> None:
        """Read all files again.

        Raises:
            IntegrityError: One is not what the manifest says; the version is not complete any more.
        """

        def is_good(entry: FileEntry) -> bool:
            return (
                str(file_digest(self.files / entry.path, entry.digest.partition(":")[0]))
                == entry.digest
            )

        entries = self.entries()
        bad = [
            e.path
            for e, good in zip(entries, in_parallel(is_good, entries), strict=True)
            if not good
        ]
        if bad:
            with writing(self.path):
                (self.path / MANIFEST).unlink()
                shutil.rmtree(self.files)
            raise IntegrityError(
                f"{', '.join(bad[:5])} in {self.path} was damaged since it was downloaded."
            )

    def lease_of(self, holder: str) -> Path:
        """Return the lease of one who uses it."""
        return self.path / LEASES / safe_name(holder)

    def use(self, holder: str, heartbeat: Heartbeat) -> Path | None:
        """Keep the version from being removed.

        Returns:
            The lease; None where the cache cannot be written.
        """
        lease = self.lease_of(holder)
        with contextlib.suppress(OSError):
            lease.parent.mkdir(exist_ok=True)
            lease.parent.chmod(0o755)
            lease.touch(mode=0o644)
            os.utime(self.path / MANIFEST)
            heartbeat.add(lease)
            return lease
        return None


class ModelCache:
    """All versions below `root`.

    Args:
        root: A directory; made where it is missing.
        heartbeat: Renews the leases of this process.
        limit: Bytes that versions may take together; None for no limit.
    """

    def __init__(self, root: Path, heartbeat: Heartbeat, limit: int | None = None) -> None:
        self._root = root
        self._heartbeat = heartbeat
        self._limit = limit

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing is removed for lack of space."""
        return self._limit is None

    def version(self, model: str, revision: str) -> Version:
        """Return a version, complete or not."""
        return Version(self._root / model / safe_name(revision), revision)

    def last(self, model: str, ref: str) -> str | None:
        """Return the revision that `ref` had when it was looked up last."""
        revision = read_json(self._root / model / REFS / safe_name(ref))
        return revision if isinstance(revision, str) else None

    def remember(self, model: str, ref: str, revision: str) -> None:
        """Note the revision of `ref`; it serves when the source does not answer."""
        directory = self._root / model / REFS
        if self.last(model, ref) != revision:
            with writing(directory):
                make_root(directory)
            write_json(directory / safe_name(ref), revision)

    def lock(self, version: Version) -> Lock:
        """Return the right to write `version`; makes the directory that it will be in."""
        with writing(version.path):
            make_root(version.path.parent)
        return Lock(version.lease, self._heartbeat)

    def prune(self, incoming: int = 0, keep: Version | None = None) -> list[str]:
        """Remove the least recently used versions until `incoming` more bytes fit the limit.

        Versions that somebody uses or writes stay, also when the limit is not kept by that.

        Returns:
            What was removed.
        """
        if self._limit is None:
            return []
        for trash in self._root.glob(f"*/{_TRASH}*"):  # what an earlier removal left
            if not _is_used(trash):
                shutil.rmtree(trash, ignore_errors=True)
        versions = sorted(self._versions(), key=lambda item: item[0])
        total = sum(size for _, size, _ in versions) + incoming
        removed = []
        for _, size, version in versions:
            if total <= self._limit:
                break
            if (keep is None or version.path != keep.path) and self.remove(version):
                removed.append(f"{version.path.parent.name}/{version.path.name}")
                total -= size
        return removed

    def prunable_bytes(self, incoming: int) -> int:
        """Return what `prune` would free if nobody used it; changes nothing."""
        if self._limit is None:
            return 0
        sizes = [size for _, size, _ in sorted(self._versions(), key=lambda item: item[0])]
        excess, freed = sum(sizes) + incoming - self._limit, 0
        for size in sizes:
            freed += size if freed < excess else 0
        return freed

    def remove(self, version: Version) -> bool:
        """Remove `version`; return whether it is gone. It stays when somebody uses or writes it.

        It is moved away before its leases are read: whoever takes a lease afterwards finds no
        version.
        """
        with self.lock(version).held() as free:
            if not free:
                return False
            aside = version.path.with_name(f"{_TRASH}{uuid.uuid4().hex}")
            try:
                version.path.rename(aside)
            except FileNotFoundError:
                return True
            except OSError:
                return False
            if _is_used(aside):
                aside.rename(version.path)
                return False
            shutil.rmtree(aside, ignore_errors=True)
            return True

    def _versions(self) -> Iterator[tuple[float, int, Version]]:
        """Yield last use, bytes and version of everything."""
        for path in self._root.glob("*/[!.]*/"):
            version = Version(path, path.name)
            with contextlib.suppress(OSError):  # removed meanwhile
                if (path / MANIFEST).exists():
                    yield (
                        (path / MANIFEST).stat().st_mtime,
                        sum(entry.size for entry in version.entries()),
                        version,
                    )
                # a download that was given up, unless its lease is held
                elif (path / INCOMING).exists():
                    # in blocks: a partial file has its full size from the start, and holes in it
                    blocks = sum(file.stat().st_blocks for file in path.rglob("*"))
                    yield (path.stat().st_mtime, blocks * 512, version)


def _is_used(version: Path) -> bool:
    moment = now(version.parent)
    return any(is_live(lease, moment, USE_EXPIRY_SECONDS) for lease in (version / LEASES).glob("*"))
