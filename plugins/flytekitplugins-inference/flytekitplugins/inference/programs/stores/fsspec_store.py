"""Stores with an fsspec implementation, such as Google Cloud Storage, Azure and FTP."""

from __future__ import annotations

import asyncio
import base64
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from ...errors import (
    ConfigError,
    MissingDependencyError,
    SourceNotFoundError,
    SourceUnavailableError,
    UnsupportedError,
)
from ...facts.address import mask
from .store import Block, SourceChangedError, StoredFile, error_for_status

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BYTES = 2 * 1024 * 1024
"""Size of one request. fsspec returns a whole answer at once, so this bounds the memory and the
cost of a stall."""
_FOREIGN_ERRORS = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
_STATUSES = ("status", "status_code", "code")
"""Attributes in which these errors carry the HTTP status."""
_VERSIONS = (
    "generation",
    "etag",
    "ETag",
    "md5Hash",
    "content_md5",
    "last_modified",
    "LastModified",
    "updated",
    "mtime",
)


class FsspecStore:
    """Files of one protocol.

    Args:
        protocol: The scheme of the addresses.
        options: Options of the fsspec implementation.
        stall_seconds: How long one request may take.

    Raises:
        MissingDependencyError: The implementation's package is not installed.
        UnsupportedError: fsspec does not know the protocol.
    """

    def __init__(self, protocol: str, options: Mapping[str, Any], *, stall_seconds: float) -> None:
        import fsspec
        from fsspec.registry import known_implementations

        self._protocol = protocol
        self._options = options
        self._stall_seconds = stall_seconds
        self._lock = threading.Lock()
        self._opened: dict[str, tuple[Any, ThreadPoolExecutor]] = {}
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            package = known_implementations.get(protocol, {}).get("err", str(error))
            raise MissingDependencyError(
                f"Addresses of {protocol}:// cannot be read here: {package}.",
                # a package that is there may lack a library of the image
                hint=f"The import failed with: {error.__cause__ or error}.",
            ) from error
        except ValueError as error:
            raise UnsupportedError(
                f"No store is known for {protocol}:// addresses.",
                hint="Install a package that provides an fsspec implementation of it.",
            ) from error

    def stat(self, uri: str, head_bytes: int = 0) -> StoredFile:
        """See `Store.stat`."""
        info = self._call("info", uri, uri)
        if info.get("type") == "directory":
            raise SourceNotFoundError(f"{mask(uri)} is a directory, not a file.")
        return _source(uri, info)

    def find(self, uri: str) -> list[tuple[str, StoredFile]]:
        """See `Store.find`."""
        root, base = self._root(uri), uri.rstrip("/")
        names = {
            name[len(root) :].lstrip("/"): info
            for name, info in self._call("find", uri, uri, detail=True).items()
            if name.startswith(f"{root}/") and not name.endswith("/")
        }
        if not names:
            raise SourceNotFoundError(f"There is nothing below {mask(uri)}.")
        return [(name, _source(f"{base}/{name}", info)) for name, info in names.items()]

    def names(self, uri: str) -> list[tuple[str, str]]:
        """Return relative name and address of every file below `uri`."""
        root = self._root(uri)
        addresses = [str(address) for address in self._call("find", uri, uri)]
        return [(address[len(root) :].lstrip("/"), address) for address in addresses]

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        if end is None:
            end = source.size
        while end is None or start < end:
            stop = None if end is None else min(end, start + READ_BYTES)
            block = self._call("cat_file", source.uri, source.uri, start=start, end=stop)
            if block:
                yield block
            if stop is None or len(block) != stop - start:
                return  # the caller counts the bytes
            start = stop
        # fsspec's reads carry no version; a file of one request cannot mix two versions
        if (source.size or 0) > READ_BYTES and self.stat(source.uri).version != source.version:
            raise SourceChangedError(f"{mask(source.uri)} was replaced while it was read.")

    def _root(self, uri: str) -> str:
        return str(self._open(uri)[0]._strip_protocol(uri)).rstrip("/")

    def _open(self, uri: str) -> tuple[Any, ThreadPoolExecutor]:
        """Return the filesystem for `uri`, and the thread for its calls unless it uses asyncio.

        One thread is enough: FTP, for example, has a single connection.
        """
        import fsspec

        options = {
            **fsspec.get_filesystem_class(self._protocol)._get_kwargs_from_urls(uri),
            **self._options,
        }
        key = repr(options)
        with self._lock:
            if key not in self._opened:
                try:
                    # no caches: a listing hides replaced files, an instance keeps a hung connection
                    filesystem = fsspec.filesystem(
                        self._protocol,
                        **options,
                        use_listings_cache=False,
                        skip_instance_cache=True,
                    )
                # the error's own text may repeat an option, such as a key
                except (TypeError, ValueError) as error:
                    raise ConfigError(
                        f"The store of {mask(uri)} is not configured ({type(error).__name__}).",
                        hint="Set the variables of this store: FLYTE_AZURE_STORAGE_ACCOUNT_NAME "
                        "and the like for abfs, "
                        "FSSPEC_<PROTOCOL>_<OPTION> for others.",
                    ) from error
                self._opened[key] = filesystem, ThreadPoolExecutor(1)
            return self._opened[key]

    def _call(self, method: str, address: str, *args: Any, **kwargs: Any) -> Any:
        try:
            filesystem, thread = self._open(address)
            if filesystem.async_impl:
                from fsspec.asyn import sync

                return sync(
                    filesystem.loop,
                    self._bounded,
                    getattr(filesystem, f"_{method}"),
                    *args,
                    **kwargs,
                )
            return thread.submit(getattr(filesystem, method), *args, **kwargs).result(
                self._stall_seconds
            )
        except (asyncio.TimeoutError, FutureTimeoutError, TimeoutError) as error:
            # a call that hangs keeps its thread and its connection, so the next one opens new ones
            with self._lock:
                self._opened.clear()
            raise SourceUnavailableError(
                f"{mask(address)} delivered nothing for {self._stall_seconds:g} s."
            ) from error
        except _errors() as error:
            raise _translated(error, address) from error

    async def _bounded(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.wait_for(function(*args, **kwargs), self._stall_seconds)


def _source(uri: str, info: Mapping[str, Any]) -> StoredFile:
    size = info.get("size")
    facts = [str(info[key]) for key in _VERSIONS if info.get(key) is not None]
    if md5 := (info.get("content_settings") or {}).get("content_md5"):  # Azure's, as bytes
        facts.append(base64.b64encode(md5).decode())
    version = " ".join(facts)
    return StoredFile(
        uri=uri, size=None if size is None else int(size), version=version, ranges=size is not None
    )


def _errors() -> tuple[type[BaseException], ...]:
    """Return the errors of implementations whose libraries are loaded.

    A library that is not loaded cannot have raised one.
    """
    loaded = ((sys.modules.get(module), name) for module, name in _FOREIGN_ERRORS)
    return (
        OSError,
        EOFError,
        ImportError,
        *(getattr(module, name) for module, name in loaded if module),
    )


def _translated(error: BaseException, uri: str) -> Exception:
    status = next(
        (s for s in (getattr(error, name, None) for name in _STATUSES) if isinstance(s, int)), 0
    )
    if isinstance(error, FileNotFoundError):
        status = 404
    elif isinstance(error, PermissionError) or type(error).__module__.startswith("google.auth"):
        status = 403
    if 400 <= status < 600:
        return error_for_status(status, uri, type(error).__name__, retry_after=_retry_after(error))
    if isinstance(error, ImportError):
        return MissingDependencyError(f"{mask(uri)} cannot be read here: {error}.")
    return SourceUnavailableError(
        f"The connection for {mask(uri)} was lost ({type(error).__name__})."
    )


def _retry_after(error: BaseException) -> str | None:
    """Return the `Retry-After` header of a failed request."""
    # aiohttp's errors have the headers, azure's have the response
    response = getattr(error, "response", None)
    headers = getattr(error, "headers", None) or getattr(response, "headers", None)
    return headers.get("Retry-After") if isinstance(headers, Mapping) else None
