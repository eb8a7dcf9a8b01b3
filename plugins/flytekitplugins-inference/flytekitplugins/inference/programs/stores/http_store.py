"""HTTP and HTTPS, through requests: proxies and certificates from the environment, redirects, streamed bodies."""

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
        connections: Connections that may be open at once.
        stall_seconds: How long a connection may bring no byte.
        headers: Sent with every request; credentials among them are not sent to another host by a
            redirect.
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
        # Bytes as they are stored: what is compressed on the way has no lengths and no ranges.
        self._session.headers.update({**(headers or {}), "Accept-Encoding": "identity"})
        self._timeout = (min(10.0, stall_seconds), stall_seconds)

    def stat(self, uri: str, head_bytes: int = 0) -> StoredFile:
        """See `Store.stat`.

        Asks for the first bytes: HEAD is forbidden where an address is signed for GET, and not all
        servers know it.
        """
        asked = max(head_bytes, 1)
        response = self._get(uri, {"Range": f"bytes=0-{asked - 1}"})
        with response:
            content_range = response.headers.get("Content-Range", "")
            total = content_range.rpartition("/")[2]
            version = _version(response)
            if _encodings(response):  # its lengths and ranges are those of the compressed bytes
                return StoredFile(uri=uri, size=None, version=version, ranges=False)
            if response.status_code == 206 and total.isdecimal() and begins_at(0, content_range):
                head = first_bytes(_blocks(response, uri), asked) if version else b""
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
            SourceNotFoundError: There are none; `uri` may be a file.
        """
        from .fsspec_store import FsspecStore

        names = FsspecStore("http", {}, stall_seconds=self._timeout[1]).names(uri)
        if not any(name for name, _ in names):
            self.stat(uri)  # fsspec takes what does not answer for empty
            raise SourceNotFoundError(f"{mask(uri)} has no links to anything below it.")
        return [(name, self.stat(address)) for name, address in names if name]

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        headers = (
            {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if source.ranges else {}
        )
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
        """Whether `response` comes from the file that was looked at."""
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
        except OSError as error:  # what requests says of a REQUESTS_CA_BUNDLE that is not there
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
    """Return how a server that does not heed `Accept-Encoding` has encoded an answer.

    Raises:
        InvalidSourceError: It cannot be decoded here.
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
