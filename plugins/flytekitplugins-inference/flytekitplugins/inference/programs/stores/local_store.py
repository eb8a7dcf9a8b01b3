"""Files of this machine: `file://` addresses and plain paths. They are copied, never linked."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InvalidSourceError, SourceForbiddenError, SourceNotFoundError
from .store import BLOCK_BYTES, Block, SourceChangedError, StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalStore:
    """Regular files. Symbolic links are followed, so the copies contain no links."""

    def stat(self, uri: str, head_bytes: int = 0) -> StoredFile:
        """See `Store.stat`."""
        return _source(uri, _status(uri))

    def find(self, uri: str) -> list[tuple[str, StoredFile]]:
        """See `Store.find`."""
        root = _path(uri)
        if not stat.S_ISDIR(_status(uri).st_mode):
            raise SourceNotFoundError(f"{root} is not a directory.")
        return list(_walk(root, "", ()))

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        file = os.open(_path(source.uri), os.O_RDONLY | os.O_CLOEXEC)
        try:
            end = source.size or 0 if end is None else end
            while start < end and (block := os.pread(file, min(BLOCK_BYTES, end - start), start)):
                start += len(block)
                yield block
            # of the open file, so a file that took its place since `stat` shows by its inode
            if _version(os.fstat(file)) != source.version:
                raise SourceChangedError(f"{source.uri} was written to while it was read.")
        finally:
            os.close(file)


def _walk(
    directory: str, relative: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, StoredFile]]:
    """Yield the files below `directory`.

    Raises:
        InvalidSourceError: A link points to a directory that contains it, which would be a loop.
    """
    status = _status(directory)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise InvalidSourceError(f"{directory!r} is a link to a directory that contains it.")
    try:
        entries = sorted(Path(directory).iterdir())
    except PermissionError as error:
        raise SourceForbiddenError(f"The directory {directory!r} may not be read.") from error
    for entry in entries:
        path, below = str(entry), f"{relative}{entry.name}"
        status = _status(path)
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, f"{below}/", (*above, identity))
        else:
            yield below, _source(path, status)


def _path(uri: str) -> str:
    return uri[len("file://") :] if uri[:7].lower() == "file://" else uri


def _status(uri: str) -> os.stat_result:
    path = _path(uri)
    try:
        return Path(path).stat()
    except PermissionError as error:
        raise SourceForbiddenError(f"{path!r} may not be read by user {os.getuid()}.") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFoundError(f"There is nothing at {path!r}.") from error
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long or holds NUL
        raise InvalidSourceError(f"{path!r} is not a path that can be read: {error}.") from error


def _source(uri: str, status: os.stat_result) -> StoredFile:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        raise InvalidSourceError(f"{_path(uri)!r} is {kind}, not a file.")
    if not os.access(_path(uri), os.R_OK):
        raise SourceForbiddenError(f"{_path(uri)!r} may not be read by user {os.getuid()}.")
    return StoredFile(uri=uri, size=status.st_size, version=_version(status))


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
