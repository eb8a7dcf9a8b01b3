"""All stores of Flyte's users behind one interface, read with Flyte's own credentials.

`Stores` picks the store for an address and configures it with the `FLYTE_*` variables that the
platform adds to every container. S3 goes through botocore, HTTP through requests, everything else
through its fsspec implementation: importing s3fs alone takes longer than a whole small download.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import FetchError, SourceForbiddenError
from ...facts.address import scheme_of
from .store import Block, Store, StoredFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_T = TypeVar("_T")


_KNOWN = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "http", "https"})


_MAY_BE_PUBLIC = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss"})


def storage_options(
    protocol: str, environ: Mapping[str, str], *, anonymous: bool = False
) -> dict[str, Any]:
    """Return the fsspec options that flytekit would use for `protocol` with these variables.

    Source: `get_fsspec_storage_options`, `flytekit/core/data_persistence.py`, flytekit 1.16; the
    names of the variables are `FLYTE_<SECTION>_<OPTION>` of `flytekit/configuration/internal.py`.
    Any addressing style means `virtual` there.

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
        values = {
            option: environ.get(f"FLYTE_AZURE_{name}", "") for option, name in variables.items()
        }
        return {**{option: value for option, value in values.items() if value}, "anon": anonymous}
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
    """All stores behind one interface.

    A forbidden address is tried once more without credentials, as flytekit does: it may be public.

    Args:
        environ: Environment variables with Flyte's configuration.
        connections: Maximum number of open connections to one store.
        stall_seconds: How long a connection may deliver no byte.
    """

    def __init__(
        self, environ: Mapping[str, str], *, connections: int, stall_seconds: float
    ) -> None:
        self._environ = environ
        self._connections = connections
        self._stall_seconds = stall_seconds
        self._stores: dict[tuple[str, bool], Store] = {}
        self._public: set[str] = set()
        self._lock = threading.Lock()

    def stat(self, uri: str, head_bytes: int = 0) -> StoredFile:
        """See `Store.stat`."""
        return self._first_allowed(
            uri, lambda store: store.stat(uri, head_bytes), lambda source: [source.uri]
        )

    def find(self, uri: str) -> list[tuple[str, StoredFile]]:
        """See `Store.find`."""
        return self._first_allowed(
            uri, lambda store: store.find(uri), lambda files: [file.uri for _, file in files]
        )

    def read(self, source: StoredFile, start: int, end: int | None) -> Iterator[Block]:
        """See `Store.read`."""
        return self._store(source.uri, anonymous=source.uri in self._public).read(
            source, start, end
        )

    def is_readable(self, text: str) -> bool:
        """Whether a text in a user's data is an address in a store that can be read from here.

        Plain paths are not: they are readable without a store, and `{"path": "/"}` may be anything.
        """
        if "://" not in text:
            return False
        protocol = scheme_of(text)
        if protocol == "file":
            return "\0" not in text and os.path.lexists(text[len("file://") :])
        return protocol in _KNOWN or _is_known_to_fsspec(protocol)

    def _first_allowed(
        self, uri: str, look: Callable[[Store], _T], addresses: Callable[[_T], list[str]]
    ) -> _T:
        try:
            return look(self._store(uri))
        except SourceForbiddenError as error:
            if scheme_of(uri) not in _MAY_BE_PUBLIC:
                raise
            refusal = error
        try:
            answer = look(self._store(uri, anonymous=True))
        except FetchError:
            # the first error is the useful one: it is about the user's own credentials
            raise refusal from None
        # `read` then takes the anonymous store directly, without one refusal per block
        self._public.update(addresses(answer))
        return answer

    def _store(self, uri: str, *, anonymous: bool = False) -> Store:
        protocol = scheme_of(uri)
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
            from .local_store import LocalStore

            return LocalStore()
        if protocol in ("http", "https"):
            from .http_store import HttpStore

            return HttpStore(connections=self._connections, stall_seconds=self._stall_seconds)
        if protocol in ("s3", "s3a"):
            from .s3_store import S3Store

            return S3Store(
                options, connections=self._connections, stall_seconds=self._stall_seconds
            )
        from .fsspec_store import FsspecStore

        return FsspecStore(protocol, options, stall_seconds=self._stall_seconds)


def _fsspec_options(protocol: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the options in fsspec's own variables, such as `FSSPEC_S3_ENDPOINT_URL`.

    flytekit honours them too.
    """
    # checked first, because the import is expensive
    if not any(name.startswith("FSSPEC_") for name in environ):
        return {}
    from fsspec.config import conf

    return dict(conf.get(protocol, {}))


def _is_known_to_fsspec(protocol: str) -> bool:
    from fsspec.registry import known_implementations, registry

    return protocol in known_implementations or protocol in registry
