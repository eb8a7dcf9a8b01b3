"""Reading from any store that Flyte's users have, through one small interface.

`Stores` finds the store for an address and reads it with Flyte's own credentials (the `FLYTE_*` variables that the
platform adds to every container). S3 goes through botocore, HTTP through requests, everything else through its fsspec
implementation: importing s3fs alone takes longer than all of a small download. Nothing here knows about literals.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import (
    FetchError,
    IntegrityError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_T = TypeVar("_T")

BLOCK_BYTES = 1024 * 1024
"""What is read and written at a time; memory is about twice this for every transfer under way."""
_KNOWN = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "http", "https"})
_MAY_BE_PUBLIC = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss"})
_BUSY = frozenset({408, 425, 429})
_CREDENTIALS = re.compile(r"://[^/]*@")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file of a store as it was when it was looked at."""

    uri: str
    size: int | None
    """Bytes; None where the store does not say before the end."""
    version: str
    """Changes when the content changes (ETag, generation, modification time); empty where the store has none."""
    ranges: bool = True
    """Whether parts can be read."""
    head: bytes = field(default=b"", compare=False, repr=False)
    """Its first bytes, if they came along; all of them for a small file, which saves its second request."""


Block = bytes | memoryview
"""Some bytes of a file; valid until the next block is asked for."""


class Store(Protocol):
    """What every store can do. All methods raise the `FetchError` family and may be called from any thread."""

    def stat(self, uri: str, head_bytes: int = 0) -> Source:
        """Look at one file, and bring up to `head_bytes` of it along where that costs no further request."""

    def find(self, uri: str) -> list[tuple[str, Source]]:
        """Return every file below a directory with its name relative to it."""

    def read(self, source: Source, start: int, end: int | None) -> Iterator[Block]:
        """Yield the bytes `start` to `end` (exclusive; None: to the end) in blocks.

        May yield fewer bytes than asked for when the connection ends early: the caller counts.

        Raises:
            SourceChangedError: The file is no longer the one that `source` describes.
        """


class SourceChangedError(IntegrityError):
    """A file was replaced between looking at it and reading it."""


def error_for_status(status: int, uri: str, reason: str) -> FetchError:
    """Return the error that an HTTP status means.

    Args:
        status: 400 or more.
        uri: What was asked for; masked in the message.
        reason: The store's own code or phrase, without addresses.
    """
    where = f"{mask(uri)} ({status} {reason})"
    if status in (404, 410):
        return SourceNotFoundError(f"There is nothing at {where}.")
    if status in (401, 403, 407):
        return SourceForbiddenError(
            f"Reading {where} is forbidden.",
            hint="Check this pod's credentials. Stores also answer so for what is missing but may not be listed.",
        )
    if status in (412, 416):
        return SourceChangedError(f"{where} was replaced while it was read.")
    if status in _BUSY or (status >= 500 and status not in (501, 505)):
        return SourceUnavailableError(f"The store of {where} is not available.")
    return FetchError(f"The store refused to hand out {where}.")


def lost_error(uri: str, error: Exception) -> FetchError:
    """Return the error that a library's error about a connection means."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return FetchError(
            f"The certificate of the server of {mask(uri)} is not trusted here.",
            hint="Name a file with the certificates to trust in REQUESTS_CA_BUNDLE.",
        )
    # Only the kind of error: the texts of HTTP libraries repeat addresses.
    return SourceUnavailableError(f"The connection for {mask(uri)} was lost ({type(error).__name__}).")


def begins_at(start: int, content_range: str) -> bool:
    """Whether an answer with this `Content-Range` has the bytes from `start` on."""
    return content_range.startswith(f"bytes {start}-")


def first_bytes(blocks: Iterator[Block], limit: int) -> bytes:
    """Return what `blocks` has, at most `limit` bytes: a store may send more than it was asked for."""
    head = bytearray()
    for block in blocks:  # to the end where that comes in time, so that the connection can be used again
        head += block
        if len(head) > limit:
            break
    return bytes(head[:limit])


def body_blocks(body: Any) -> Iterator[Block]:
    """Yield the body of a urllib3 response as it was sent.

    Reads with one buffer through the http.client response inside: urllib3 allocates each block anew, and the page
    faults cost as much as the reading (2.5 against 1.2 s of system time for 2 GiB).
    """
    from http.client import HTTPResponse

    inner = getattr(body, "_fp", None)
    if isinstance(inner, HTTPResponse):
        buffer = memoryview(bytearray(BLOCK_BYTES))
        while count := inner.readinto(buffer):
            yield buffer[:count]
        body.release_conn()
    else:
        while block := body.read(BLOCK_BYTES, decode_content=False):
            yield block


def scheme(uri: str) -> str:
    """Return the scheme of `uri` in lower case; `file` for a plain path."""
    head, separator, _ = uri.partition("://")
    return head.lower() if separator else "file"


def mask(uri: str) -> str:
    """Return `uri` without what may be secret: user, password and query."""
    if scheme(uri) == "file":
        return uri
    address, question, _ = without_credentials(uri).partition("?")
    return f"{address}?..." if question else address


def without_credentials(uri: str) -> str:
    """Return `uri` without user and password, also those of the addresses in a chain (`zip://a::https://u:p@host`)."""
    return uri if scheme(uri) == "file" else _CREDENTIALS.sub("://", uri)


def storage_options(protocol: str, environ: Mapping[str, str], *, anonymous: bool = False) -> dict[str, Any]:
    """Return the fsspec options for `protocol` that flytekit would use with these environment variables.

    Source: `get_fsspec_storage_options`, `flytekit/core/data_persistence.py`, flytekit 1.16; the names of the variables
    are `FLYTE_<SECTION>_<OPTION>` of `flytekit/configuration/internal.py`. Any addressing style means `virtual` there.

    Args:
        protocol: `s3`, `gs`, `abfs`, ...
        environ: The environment variables.
        anonymous: Leave out credentials, for public data.
    """
    if protocol in ("s3", "s3a"):
        return _s3_options(environ, anonymous)
    if protocol in ("gs", "gcs"):
        return {"token": "anon"} if anonymous else {}
    if protocol in ("abfs", "abfss"):
        variables = {
            "account_name": "STORAGE_ACCOUNT_NAME",
            "account_key": "STORAGE_ACCOUNT_KEY",
            "client_id": "CLIENT_ID",
            "client_secret": "CLIENT_SECRET",
            "tenant_id": "TENANT_ID",
        }
        found = {option: environ.get(f"FLYTE_AZURE_{name}", "") for option, name in variables.items()}
        return {**{option: value for option, value in found.items() if value}, "anon": anonymous}
    return {}


def _s3_options(environ: Mapping[str, str], anonymous: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"cache_regions": True}
    if key := environ.get("FLYTE_AWS_ACCESS_KEY_ID"):
        options["key"] = key
    if secret := environ.get("FLYTE_AWS_SECRET_ACCESS_KEY"):
        options["secret"] = secret
    if endpoint := environ.get("FLYTE_AWS_ENDPOINT"):
        options["client_kwargs"] = {"endpoint_url": endpoint}
    if environ.get("FLYTE_AWS_ADDRESSING_STYLE"):
        options["config_kwargs"] = {"s3": {"addressing_style": "virtual"}}
    if anonymous:
        options["anon"] = True
    return options


class Stores:
    """All stores as one.

    As flytekit does, what is forbidden is tried once more without credentials, since it may be public.

    Args:
        environ: Environment variables with Flyte's configuration.
        connections: Connections that may be open at once to one store.
        stall_seconds: How long a connection may bring no byte.
    """

    def __init__(self, environ: Mapping[str, str], *, connections: int, stall_seconds: float) -> None:
        self._environ = environ
        self._connections = connections
        self._stall_seconds = stall_seconds
        self._stores: dict[tuple[str, bool], Store] = {}
        self._public: set[str] = set()
        self._lock = threading.Lock()

    def stat(self, uri: str, head_bytes: int = 0) -> Source:
        """See `Store.stat`."""
        return self._first_allowed(uri, lambda store: store.stat(uri, head_bytes), lambda source: [source.uri])

    def find(self, uri: str) -> list[tuple[str, Source]]:
        """See `Store.find`."""
        return self._first_allowed(
            uri, lambda store: store.find(uri), lambda found: [source.uri for _, source in found]
        )

    def read(self, source: Source, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        return self._store(source.uri, anonymous=source.uri in self._public).read(source, start, end)

    def is_readable(self, text: str) -> bool:
        """Whether `text`, found in a user's data, is the address of something in a store that can be read from here.

        Plain paths are not: they are readable as they are, and `{"path": "/"}` may be anything.
        """
        if "://" not in text:
            return False
        protocol = scheme(text)
        if protocol == "file":
            return "\0" not in text and os.path.lexists(text[len("file://") :])
        return protocol in _KNOWN or _is_known_to_fsspec(protocol)

    def _first_allowed(self, uri: str, look: Callable[[Store], _T], addresses: Callable[[_T], list[str]]) -> _T:
        try:
            return look(self._store(uri))
        except SourceForbiddenError as error:
            if scheme(uri) not in _MAY_BE_PUBLIC:
                raise
            refused = error
        try:
            found = look(self._store(uri, anonymous=True))
        except FetchError:
            raise refused from None
        self._public.update(addresses(found))
        return found

    def _store(self, uri: str, *, anonymous: bool = False) -> Store:
        protocol = scheme(uri)
        with self._lock:
            if (protocol, anonymous) not in self._stores:
                self._stores[protocol, anonymous] = self._open(protocol, anonymous)
            return self._stores[protocol, anonymous]

    def _open(self, protocol: str, anonymous: bool) -> Store:
        options = {
            **_fsspec_options(protocol, self._environ),
            **storage_options(protocol, self._environ, anonymous=anonymous),
        }
        if protocol == "file":
            from .store_local import LocalStore

            return LocalStore()
        if protocol in ("http", "https"):
            from .store_http import HttpStore

            return HttpStore(connections=self._connections, stall_seconds=self._stall_seconds)
        if protocol in ("s3", "s3a"):
            from .store_s3 import S3Store

            return S3Store(options, connections=self._connections, stall_seconds=self._stall_seconds)
        from .store_fsspec import FsspecStore

        return FsspecStore(protocol, options, stall_seconds=self._stall_seconds)


def _fsspec_options(protocol: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what fsspec's own variables (`FSSPEC_S3_ENDPOINT_URL` and the like) say, which flytekit honours too."""
    if not any(name.startswith("FSSPEC_") for name in environ):
        return {}  # the import costs more than this
    from fsspec.config import conf

    return dict(conf.get(protocol, {}))


def _is_known_to_fsspec(protocol: str) -> bool:
    from fsspec.registry import known_implementations, registry

    return protocol in known_implementations or protocol in registry
