"""HTTP and HTTPS, through requests: proxies and certificates from the environment, redirects, streamed bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InvalidSourceError, SourceUnavailableError
from .stores import Block, Source, SourceChangedError, body_blocks, error_for_status, mask

if TYPE_CHECKING:
    from collections.abc import Iterator


class HttpStore:
    """Files of web servers.

    Args:
        connections: Connections that may be open at once.
        stall_seconds: How long a connection may bring no byte.
    """

    def __init__(self, *, connections: int, stall_seconds: float) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._session = requests.Session()
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, HTTPAdapter(pool_connections=connections, pool_maxsize=connections))
        # Bytes as they are stored: what is compressed on the way has no lengths and no ranges.
        self._session.headers["Accept-Encoding"] = "identity"
        self._timeout = (min(10.0, stall_seconds), stall_seconds)

    def stat(self, uri: str, head_bytes: int = 0) -> Source:
        """See `Store.stat`.

        Asks for the first bytes: HEAD is forbidden where an address is signed for GET, and not all servers know it.
        """
        response = self._get(uri, {"Range": f"bytes=0-{max(head_bytes - 1, 0)}"})
        with response:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            version = _version(response)
            if response.status_code == 206 and total.isdecimal():
                head = b"".join(bytes(block) for block in _blocks(response, uri)) if version else b""
                return Source(uri=uri, size=int(total), version=version, ranges=version != "", head=head)
            if response.status_code == 416 and total == "0":
                return Source(uri=uri, size=0, version=version, ranges=False)
            if response.status_code >= 400:
                raise error_for_status(response.status_code, uri, response.reason or "")
            length = response.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() and response.status_code == 200 else None
            return Source(uri=uri, size=size, version=version, ranges=False)

    def find(self, uri: str) -> list[tuple[str, Source]]:
        """See `Store.find`: the links of index pages, as fsspec reads them."""
        from .store_fsspec import FsspecStore

        names = FsspecStore("http", {}, stall_seconds=self._timeout[1]).names(uri)
        return [(name, self.stat(address)) for name, address in names]

    def read(self, source: Source, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if source.ranges else {}
        response = self._get(source.uri, headers)
        with response:
            if response.status_code >= 400 and not (response.status_code == 416 and source.size == 0):
                raise error_for_status(response.status_code, source.uri, response.reason or "")
            if _version(response) != source.version:
                raise SourceChangedError(f"{mask(source.uri)} was replaced while it was read.")
            if headers and response.status_code != 206:
                raise SourceUnavailableError(f"The server of {mask(source.uri)} sent more than was asked for.")
            yield from _blocks(response, source.uri)

    def _get(self, uri: str, headers: dict[str, str]) -> Any:
        from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema, RequestException

        try:
            return self._session.get(uri, headers=headers, stream=True, timeout=self._timeout)
        except (InvalidSchema, InvalidURL, MissingSchema, UnicodeError) as error:
            raise InvalidSourceError(f"{mask(uri)} is not an address that can be asked for.") from error
        except RequestException as error:
            raise _lost(uri, error) from error


def _blocks(response: Any, uri: str) -> Iterator[Block]:
    from http.client import HTTPException

    from urllib3.exceptions import HTTPError

    try:
        yield from body_blocks(response.raw)
    except (HTTPError, HTTPException, OSError) as error:
        raise _lost(uri, error) from error


def _version(response: Any) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


def _lost(uri: str, error: Exception) -> SourceUnavailableError:
    # Only the kind of error: the texts of HTTP libraries repeat addresses.
    return SourceUnavailableError(f"The connection for {mask(uri)} was lost ({type(error).__name__}).")
