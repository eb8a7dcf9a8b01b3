"""Files of a Hugging Face hub: over HTTP, or through xet for the files that the hub stores there.

huggingface_hub lists the files, but does not download them: its HTTP download writes to a file with
a random name and removes it on failure, so it never resumes across processes; it also uses one
connection per file and verifies no digest (`_download_to_tmp_and_move`, huggingface_hub 2.4.0).
`HttpStore` has ranges, a journal and a stall watch. Files in xet arrive through `hf_xet`, the
library that huggingface_hub uses for them, as streams of ranges, with the same resume, retry and
verification. (`huggingface_hub.file_download.xet_get` writes whole files only.)
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from ...errors import (
    FetchError,
    GatedModelError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from ...facts.address import mask
from ..kernel import memory_limit_bytes
from .http_store import HttpStore
from .store import Block, StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GATED_HINT = (
    "Accept the conditions on the model's page with the account of the token, and give "
    "the pod that HF_TOKEN."
)
_MIB = 1024 * 1024


def xet_buffers(limit: int | None) -> dict[str, str]:
    """Return the variables that keep hf_xet's buffers within a container of `limit` bytes.

    By default it takes 1.5 GB and 0.4 GB per file, whatever the container's limit is. An eighth of
    the limit leaves room for the interpreter and the page cache of the written files.

    Source: `HF_XET_RECONSTRUCTION_*`, github.com/huggingface/xet-core
    `xet_runtime/src/config/groups/`, hf_xet 1.8.
    """
    base = min(max((limit or 2048 * _MIB) // 8, 32 * _MIB), 1024 * _MIB)
    prefix = "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER"
    return {
        f"{prefix}_SIZE": str(base),
        f"{prefix}_PERFILE_SIZE": str(base // 4),
        f"{prefix}_LIMIT": str(base * 2),
    }


def has_xet() -> bool:
    """Whether hf_xet is installed, and new enough to return streams; also sets its buffers."""
    # before the import: hf_xet reads these variables only once, when it is imported
    for name, value in xet_buffers(memory_limit_bytes()).items():
        os.environ.setdefault(name, value)
    try:
        from hf_xet import XetConfig, XetSession
    except ImportError:
        return False
    return hasattr(XetSession, "new_download_stream_group") and hasattr(XetConfig, "with_config")


class HubStore(HttpStore):
    """Files of one repository at one commit.

    Args:
        connections: Maximum number of open connections.
        stall_seconds: How long a connection may deliver no byte.
        headers: Headers of every request, including the token.
        xet: The xet hash of each address that is read through hf_xet.
        xet_token_url: Where hf_xet gets its own short-lived tokens.
    """

    def __init__(
        self,
        *,
        connections: int,
        stall_seconds: float,
        headers: Mapping[str, str],
        xet: Mapping[str, str],
        xet_token_url: str,
    ) -> None:
        super().__init__(connections=connections, stall_seconds=stall_seconds, headers=headers)
        self._headers = dict(headers)
        self._xet, self._xet_token_url = xet, xet_token_url
        self._streams: Any = None
        self._concurrency = connections
        self._lock = threading.Lock()

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        if source.uri not in self._xet:
            return super().read(source, start, end)
        return self._read_xet(source, start, end)

    def _refused(self, response: Any, uri: str) -> FetchError:
        # Source: `hf_raise_for_status`, huggingface_hub 2.4.0 `utils/_http.py`
        code = response.headers.get("X-Error-Code", "")
        if code == "GatedRepo":
            return GatedModelError(
                f"{mask(uri)} is gated, and this account may not read it.", hint=GATED_HINT
            )
        if code == "EntryNotFound":
            return SourceNotFoundError(f"The repository has no file {mask(uri)}.")
        return super()._refused(response, uri)

    def _is_same(self, response: Any, source: StoredFile) -> bool:
        return True  # the address names a commit, and the loader verifies a digest

    def _read_xet(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        from hf_xet import XetFileInfo

        try:
            info = XetFileInfo(self._xet[source.uri], source.size)
            stream = self._group().download_stream(info, start=start, end=end)
            with contextlib.ExitStack() as stack:
                stack.callback(stream.cancel)
                yield from stream
        except FetchError:
            raise
        except PermissionError as error:  # XetAuthenticationError is one
            raise SourceForbiddenError(f"The xet store refused {mask(source.uri)}.") from error
        except (OSError, RuntimeError, ValueError) as error:  # hf_xet's own have no common base
            raise SourceUnavailableError(
                f"{mask(source.uri)} was lost ({type(error).__name__})."
            ) from error

    def _check_access(self) -> None:
        """Request a xet token before hf_xet does, which would hide the reason for a refusal."""
        with self._get(self._xet_token_url, {}) as response:
            if response.status_code >= 400:
                raise self._refused(response, self._xet_token_url)

    def slow_down(self, connections: int) -> None:
        """Start a new xet session with this number of connections; see `ThrottledStore`."""
        # hf_xet opens its own connections, up to 64, and takes their number per session only
        with self._lock:
            self._concurrency, self._streams = connections, None

    def _group(self) -> Any:
        with self._lock:
            if self._streams is None:
                self._check_access()
                from hf_xet import XetConfig, XetSession

                config = XetConfig().with_config(
                    "client.ac_max_download_concurrency", self._concurrency
                )
                self._streams = XetSession(config).new_download_stream_group(
                    token_refresh_url=self._xet_token_url, token_refresh_headers=self._headers
                )
            return self._streams
