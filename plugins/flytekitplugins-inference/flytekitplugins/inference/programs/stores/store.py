"""The interface through which every store is read, and the functions its implementations share.

Nothing here knows about literals.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import (
    FetchError,
    IntegrityError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from ...facts.address import mask
from ...facts.retry_after import parse_retry_after
from ...facts.wording import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 1024 * 1024
"""Size of one read or write; each active transfer takes about twice this memory."""
_BUSY = frozenset({408, 425, 429})


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """One file of a store, as `stat` or `find` saw it."""

    uri: str
    size: int | None
    """Bytes; None where the store does not say before the end."""
    version: str
    """Changes when the content changes (ETag, generation, modification time); empty where the store
    has none."""
    ranges: bool = True
    """Whether parts can be read."""
    head: bytes = field(default=b"", compare=False, repr=False)
    """The first bytes, if the answer contained them. A small file then needs no second request."""


Block = bytes | memoryview
"""Some bytes of a file; valid until the next block is asked for."""


class Store(Protocol):
    """The operations of every store.

    All methods raise `FetchError` or one of its subclasses, and may be called from any thread.
    """

    def stat(self, uri: str, head_bytes: int = 0) -> StoredFile:
        """Return one file's description.

        Args:
            uri: The file's address.
            head_bytes: Maximum size of `StoredFile.head`, if it costs no further request.
        """

    def find(self, uri: str) -> list[tuple[str, StoredFile]]:
        """Return every file below a directory with its name relative to it."""

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """Yield the bytes `start` to `end` (exclusive; None: to the end) in blocks.

        May yield fewer bytes if the connection ends early: the caller counts them.

        Raises:
            SourceChangedError: The file is no longer the one that `source` describes.
        """


class SourceChangedError(IntegrityError):
    """A file was replaced after `stat` or `find` had described it."""


def error_for_status(
    status: int, uri: str, reason: str, *, retry_after: str | None = None
) -> FetchError:
    """Return the error that an HTTP status means.

    Args:
        status: 400 or more.
        uri: The requested address; masked in the message.
        reason: The store's own code or phrase, without addresses.
        retry_after: The answer's `Retry-After`, which matters for retryable errors only.
    """
    where = f"{mask(uri)} ({status} {reason})"
    if status in (404, 410):
        return SourceNotFoundError(f"There is nothing at {where}.")
    if status in (401, 403, 407):
        return SourceForbiddenError(
            f"Reading {where} is forbidden.",
            hint="Check this pod's credentials. Stores also answer so for what is missing but may "
            "not be listed.",
        )
    if status in (412, 416):
        return SourceChangedError(f"{where} was replaced while it was read.")
    if status in _BUSY or (status >= 500 and status not in (501, 505)):
        return _unavailable(where, parse_retry_after(retry_after))
    return FetchError(f"The store refused to hand out {where}.")


def _unavailable(where: str, seconds: float | None) -> SourceUnavailableError:
    wish = f" It wants to be left alone for {duration(seconds)}." if seconds else ""
    error = SourceUnavailableError(f"The store of {where} is not available.{wish}")
    error.retry_after_seconds = seconds or 0.0
    return error


def lost_error(uri: str, error: Exception) -> FetchError:
    """Return our error for a library's error about a connection."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return FetchError(
            f"The certificate of the server of {mask(uri)} is not trusted here.",
            hint="Name a file with the certificates to trust in REQUESTS_CA_BUNDLE.",
        )
    # only the kind of error: the texts of HTTP libraries repeat addresses, and a URL may hold a key
    return SourceUnavailableError(
        f"The connection for {mask(uri)} was lost ({type(error).__name__})."
    )


def byte_range(start: int, end: int | None) -> str:
    """Return the `Range` header for the bytes `start` to `end` (exclusive; None: to the end)."""
    last = "" if end is None else end - 1
    return f"bytes={start}-{last}"


def begins_at(start: int, content_range: str) -> bool:
    """Whether an answer with this `Content-Range` starts with the byte `start`."""
    return content_range.startswith(f"bytes {start}-")


def first_bytes(blocks: Iterator[Block], limit: int) -> bytes:
    """Return at most `limit` bytes of `blocks`; a store may send more than was requested."""
    head = bytearray()
    # reads to the end if possible: only then can the connection be used again
    for block in blocks:
        head += block
        if len(head) > limit:
            break
    return bytes(head[:limit])


def body_blocks(body: Any) -> Iterator[Block]:
    """Yield the body of a urllib3 response as it was sent.

    Reads with one buffer through the http.client response inside: urllib3 allocates each block
    anew, and the page faults cost as much as the reading (2.5 against 1.2 s of system time for 2
    GiB).
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
