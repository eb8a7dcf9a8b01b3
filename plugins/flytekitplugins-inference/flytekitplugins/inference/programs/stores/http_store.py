"""HTTP and HTTPS stores, through requests.

requests takes proxies and certificates from the environment, follows redirects and streams bodies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...dependencies import requires
from ...errors import (
    ConfigError,
    FetchError,
    InvalidSourceError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from ...facts.address import mask
from .store import (
    BLOCK_BYTES,
    Block,
    SourceChangedError,
    StoredFile,
    begins_at,
    body_blocks,
    byte_range,
    error_for_status,
    first_bytes,
    lost_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ...errors import FetchError


class HttpStore:
    """Files of web servers.

    Args:
        connections: Maximum number of open connections.
        stall_seconds: How long a connection may deliver no byte.
        headers: Headers of every request; a redirect to another host drops the credentials.
    """

    def __init__(
        self, *, connections: int, stall_seconds: float, headers: Mapping[str, str] | None = None
    ) -> None:
        with requires("requests", "Reading https:// addresses", hint="pip install requests"):
            import requests
            from requests.adapters import HTTPAdapter

        self._session = requests.Session()
        for prefix in ("http://", "https://"):
            self._session.mount(
                prefix, HTTPAdapter(pool_connections=connections, pool_maxsize=connections)
            )
        # bytes as they are stored: a body that is compressed on the way has no length and no ranges
        self._session.headers.update({**(headers or {}), "Accept-Encoding": "identity"})
        self._timeout = (min(10.0, stall_seconds), stall_seconds)

    def stat(self, uri: str, head_bytes: int = 0) -> StoredFile:
        """See `Store.stat`.

        Requests the first bytes instead of HEAD, which a URL signed for GET forbids, and which not
        all servers support.
        """
        size_of_head = max(head_bytes, 1)
        response = self._get(uri, {"Range": f"bytes=0-{size_of_head - 1}"})
        with response:
            content_range = response.headers.get("Content-Range", "")
            total = content_range.rpartition("/")[2]
            version = _version(response)
            # the lengths and ranges of an encoded answer are those of the compressed bytes
            if _encodings(response):
                return StoredFile(uri=uri, size=None, version=version, ranges=False)
            if response.status_code == 206 and total.isdecimal() and begins_at(0, content_range):
                # without a version nothing shows that later parts belong to the same file
                head = first_bytes(_blocks(response, uri), size_of_head) if version else b""
                return StoredFile(
                    uri=uri, size=int(total), version=version, ranges=version != "", head=head
                )
            if response.status_code == 416 and total == "0":
                return StoredFile(uri=uri, size=0, version=version, ranges=False)
            if response.status_code >= 400:
                raise self._refused(response, uri)
            length = response.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() and response.status_code == 200 else None
            return StoredFile(uri=uri, size=size, version=version, ranges=False)

    def find(self, uri: str) -> list[tuple[str, StoredFile]]:
        """See `Store.find`: the links of index pages, as fsspec reads them.

        Raises:
            SourceNotFoundError: The page has no links; `uri` may be a file.
        """
        from .fsspec_store import FsspecStore

        names = FsspecStore("http", {}, stall_seconds=self._timeout[1]).names(uri)
        if not any(name for name, _ in names):
            # fsspec reports an unreachable page as empty; `stat` raises the actual error
            self.stat(uri)
            raise SourceNotFoundError(f"{mask(uri)} has no links to anything below it.")
        return [(name, self.stat(address)) for name, address in names if name]

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        headers = {"Range": byte_range(start, end)} if source.ranges else {}
        response = self._get(source.uri, headers)
        with response:
            if response.status_code >= 400 and not (
                response.status_code == 416 and source.size == 0
            ):
                raise self._refused(response, source.uri)
            if not self._is_same(response, source):
                raise SourceChangedError(f"{mask(source.uri)} was replaced while it was read.")
            if (response.status_code == 206) != bool(headers) or (
                headers and not begins_at(start, response.headers.get("Content-Range", ""))
            ):
                raise SourceUnavailableError(
                    f"The server of {mask(source.uri)} sent other bytes than it was asked for."
                )
            yield from _blocks(response, source.uri)

    def _refused(self, response: Any, uri: str) -> FetchError:
        retry_after = response.headers.get("Retry-After")
        return error_for_status(
            response.status_code, uri, response.reason or "", retry_after=retry_after
        )

    def _is_same(self, response: Any, source: StoredFile) -> bool:
        """Whether `response` comes from the same version of the file as `source`."""
        return _version(response) == source.version

    def _get(self, uri: str, headers: dict[str, str]) -> Any:
        from requests.exceptions import (
            InvalidSchema,
            InvalidURL,
            MissingSchema,
            RequestException,
            TooManyRedirects,
        )

        try:
            return self._session.get(uri, headers=headers, stream=True, timeout=self._timeout)
        except (InvalidSchema, InvalidURL, MissingSchema, UnicodeError) as error:
            raise InvalidSourceError(
                f"{mask(uri)} is not an address that can be asked for."
            ) from error
        except TooManyRedirects as error:
            raise FetchError(f"{mask(uri)} is redirected again and again.") from error
        except RequestException as error:
            raise lost_error(uri, error) from error
        # requests raises a plain OSError if REQUESTS_CA_BUNDLE names a missing file
        except OSError as error:
            raise ConfigError(f"{mask(uri)} cannot be asked for: {error}.") from error


def _blocks(response: Any, uri: str) -> Iterator[Block]:
    from http.client import HTTPException

    from urllib3.exceptions import HTTPError

    try:
        if _encodings(response):
            yield from response.raw.stream(BLOCK_BYTES, decode_content=True)
        else:
            yield from body_blocks(response.raw)
    except (HTTPError, HTTPException, OSError) as error:
        raise lost_error(uri, error) from error


def _version(response: Any) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


def _encodings(response: Any) -> list[str]:
    """Return the encodings of an answer, which some servers apply despite `Accept-Encoding`.

    Raises:
        InvalidSourceError: This machine cannot decode one of them.
    """
    from urllib3.response import HTTPResponse

    names = [
        name.strip().lower() for name in response.headers.get("Content-Encoding", "").split(",")
    ]
    encodings = [name for name in names if name not in ("", "identity")]
    if response.status_code < 400 and not set(encodings) <= set(HTTPResponse.CONTENT_DECODERS):
        raise InvalidSourceError(
            f"{mask(response.url)} is sent as {', '.join(encodings)}, which is not known here."
        )
    return encodings if response.status_code < 400 else []
