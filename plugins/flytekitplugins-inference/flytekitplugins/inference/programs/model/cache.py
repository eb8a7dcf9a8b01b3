"""Complete versions of models on a volume, which many pods may share.

    <cache>/<model>/<revision>/files/…          the version's files, and nothing else
    <cache>/<model>/<revision>/manifest.json    written last: the version is complete
    <cache>/<model>/<revision>/synced           the bytes have reached the disk
    <cache>/<model>/<revision>/leases/<holder>  who uses it; see `lease`
    <cache>/<model>/<revision>.lease            who writes it
    <cache>/<model>/refs/<name>                 the last known revision of a branch, tag or alias

A version never changes after it is complete, and is removed only as a whole. The modification time
of its manifest is the time of its last use.
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
    """One file of a complete version, as in its manifest."""

    path: str
    size: int
    digest: str
    """`<algorithm>:<hexadecimal>`."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if it is absent or invalid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class Version:
    """One revision of one model, which the cache holds or is about to hold.

    Args:
        path: Its directory.
        revision: Its name in the source.
    """

    def __init__(self, path: Path, revision: str) -> None:
        self.path = path
        self.revision = revision

    @property
    def files(self) -> Path:
        """The directory that is published."""
        return self.path / FILES

    @property
    def lease(self) -> Path:
        """The lease of the process that writes it."""
        return self.path.with_name(f"{self.path.name}.lease")

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a complete version, or None.

        A version is complete if every file exists with the size in the manifest.
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
        """Return the files of the manifest."""
        return [
            FileEntry(**file)
            for file in (read_json(self.path / MANIFEST) or {"files": []})["files"]
        ]

    def is_durable(self) -> bool:
        """Whether all bytes survived every crash of the machine since the download."""
        manifest = read_json(self.path / MANIFEST) or {}
        # written in this boot: the bytes are on the disk or still in the kernel's cache
        return (self.path / SYNCED).exists() or manifest.get("boot") == boot_id() != "unknown"

    def complete(self, entries: Sequence[FileEntry], **facts: Any) -> None:
        """Write the manifest, which makes the version complete."""
        fields = {"version": VERSION, "revision": self.revision, **facts, "boot": boot_id()}
        files = [
            {"path": entry.path, "size": entry.size, "digest": entry.digest} for entry in entries
        ]
        write_json(self.path / MANIFEST, {**fields, "files": files})

    def sync(self) -> None:
        """Flush the files to the disk; after a reboot, only then is the manifest trusted."""
        if (self.path / SYNCED).exists():
            return
        # the volume may be read-only, or the version removed meanwhile; the next start checks again
        with contextlib.suppress(OSError):
            for entry in self.entries():
                with (self.files / entry.path).open("rb") as file:
                    os.fsync(file.fileno())
            (self.path / SYNCED).touch(mode=0o644)

    def verify(self) -> None:
        """Read all files again.

        Raises:
            IntegrityError: A file differs from the manifest; the version is then incomplete.
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
            # the manifest first, so no other process takes the version for complete
            with writing(self.path):
                (self.path / MANIFEST).unlink()
                shutil.rmtree(self.files)
            raise IntegrityError(
                f"{', '.join(bad[:5])} in {self.path} was damaged since it was downloaded."
            )

    def lease_of(self, holder: str) -> Path:
        """Return the path of a user's lease."""
        return self.path / LEASES / safe_name(holder)

    def use(self, holder: str, heartbeat: Heartbeat) -> Path | None:
        """Protect the version from removal.

        Returns:
            The lease, or None if the cache is read-only.
        """
        lease = self.lease_of(holder)
        with contextlib.suppress(OSError):
            lease.parent.mkdir(exist_ok=True)
            lease.parent.chmod(0o755)
            lease.touch(mode=0o644)
            # the time by which `prune` chooses
            os.utime(self.path / MANIFEST)
            heartbeat.add(lease)
            return lease
        return None


class ModelCache:
    """All versions below `root`.

    Args:
        root: A directory; created if it does not exist.
        heartbeat: Renews the leases of this process.
        limit: Maximum total size of the versions in bytes; None for no limit.
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
        """Return the revision that the last lookup of `ref` found."""
        revision = read_json(self._root / model / REFS / safe_name(ref))
        return revision if isinstance(revision, str) else None

    def remember(self, model: str, ref: str, revision: str) -> None:
        """Store the revision of `ref`, for times when the source does not answer."""
        directory = self._root / model / REFS
        if self.last(model, ref) != revision:
            with writing(directory):
                make_root(directory)
            write_json(directory / safe_name(ref), revision)

    def lock(self, version: Version) -> Lock:
        """Return the lock for writing `version`, and create its parent directory."""
        with writing(version.path):
            make_root(version.path.parent)
        return Lock(version.lease, self._heartbeat)

    def prune(self, incoming: int = 0, keep: Version | None = None) -> list[str]:
        """Remove the least recently used versions until `incoming` more bytes fit the limit.

        Versions that a process uses or writes stay, even if the cache then exceeds the limit.

        Returns:
            The removed versions.
        """
        if self._limit is None:
            return []
        # a kill may have interrupted an earlier removal
        for trash in self._root.glob(f"*/{_TRASH}*"):
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
        """Return the bytes that `prune` would free if no version were in use."""
        if self._limit is None:
            return 0
        sizes = [size for _, size, _ in sorted(self._versions(), key=lambda item: item[0])]
        excess, freed = sum(sizes) + incoming - self._limit, 0
        for size in sizes:
            freed += size if freed < excess else 0
        return freed

    def remove(self, version: Version) -> bool:
        """Remove `version` unless a process uses or writes it; return whether it is removed."""
        # renamed before its leases are read, so no process can take a lease between the two
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
        """Yield the last use, size and version of everything in the cache."""
        for path in self._root.glob("*/[!.]*/"):
            version = Version(path, path.name)
            with contextlib.suppress(OSError):  # removed meanwhile
                if (path / MANIFEST).exists():
                    yield (
                        (path / MANIFEST).stat().st_mtime,
                        sum(entry.size for entry in version.entries()),
                        version,
                    )
                # an abandoned download, unless another process holds its lease
                elif (path / INCOMING).exists():
                    # in blocks: a partial file has its full size from the start, with holes
                    blocks = sum(file.stat().st_blocks for file in path.rglob("*"))
                    yield (path.stat().st_mtime, blocks * 512, version)


def _is_used(version: Path) -> bool:
    moment = now(version.parent)
    return any(is_live(lease, moment, USE_EXPIRY_SECONDS) for lease in (version / LEASES).glob("*"))
