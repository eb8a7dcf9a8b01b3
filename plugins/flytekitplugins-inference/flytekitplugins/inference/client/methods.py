"""`ClientMethods`: the clients and batches that templates and endpoints have in common.

This module imports none of them, nor their libraries: creating a client or a batch does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from .protocols import Protocol_co

if TYPE_CHECKING:
    import httpx
    from openai import AsyncOpenAI, OpenAI
    from typing_extensions import Unpack

    from .batch import AsyncBatch, BatchResult
    from .batch.batch_options import BatchOptions
    from .client_options import ClientOptions
    from .v2 import AsyncV2Client, V2Client

__all__ = ["ClientMethods"]


class ClientMethods(Generic[Protocol_co]):
    """Clients and batches of one model server, by the protocol that it speaks.

    The protocol is a type parameter, so that type checkers and editors know the client's type.
    """

    def _endpoint(self) -> Any:
        """Return the `Endpoint`, whose module is built on this one."""
        raise NotImplementedError

    @overload
    def client(
        self: ClientMethods[Literal["openai"]], **options: Unpack[ClientOptions]
    ) -> OpenAI: ...
    @overload
    def client(
        self: ClientMethods[Literal["v2"]], **options: Unpack[ClientOptions]
    ) -> V2Client: ...
    @overload
    def client(
        self: ClientMethods[Literal["none"]], **options: Unpack[ClientOptions]
    ) -> httpx.Client: ...
    @overload  # a protocol that is known at run time only
    def client(self, **options: Unpack[ClientOptions]) -> Any: ...
    def client(self, **options: Unpack[ClientOptions]) -> Any:
        """Return a client of the server, for any number of threads; close it when you are done.

        Args:
            **options: `timeout`, the seconds from sending a request to the first byte of its answer
                and between two parts of it (default 120; a request that takes longer is not
                retried); `outage_seconds`, how long a request waits for a server that went away or
                is busy (default 300); `retry_busy`, whether a request is retried after a 429, 502
                or 503 of a server that is ready (default `True`; `False` hands that answer to the
                caller, who can send less).

        Returns:
            `openai.OpenAI` for a server with OpenAI's API, `V2Client` for Triton and MLServer,
            otherwise the `Client` of httpx2 or httpx, whose interface is the same.

        Raises:
            ArgumentError: If an option does not exist.
            ConfigError: If the value of an option is wrong.
            MissingDependencyError: If the client's library is not installed.
        """
        from .client_options import limits_of

        limits = limits_of(options)
        endpoint = self._endpoint()
        if endpoint.protocol == "openai":
            from .chat import openai_client

            return openai_client(endpoint, limits)
        if endpoint.protocol == "v2":
            from .v2 import V2Client

            return V2Client(endpoint, limits)
        from . import http

        return http.client(endpoint, limits, http=http.library())

    @overload
    def async_client(
        self: ClientMethods[Literal["openai"]], **options: Unpack[ClientOptions]
    ) -> AsyncOpenAI: ...
    @overload
    def async_client(
        self: ClientMethods[Literal["v2"]], **options: Unpack[ClientOptions]
    ) -> AsyncV2Client: ...
    @overload
    def async_client(
        self: ClientMethods[Literal["none"]], **options: Unpack[ClientOptions]
    ) -> httpx.AsyncClient: ...
    @overload  # a protocol that is known at run time only
    def async_client(self, **options: Unpack[ClientOptions]) -> Any: ...
    def async_client(self, **options: Unpack[ClientOptions]) -> Any:
        """As `client`, for asyncio.

        Returns:
            `openai.AsyncOpenAI`, `AsyncV2Client`, or the `AsyncClient` of httpx2 or httpx.
        """
        from .client_options import limits_of

        limits = limits_of(options)
        endpoint = self._endpoint()
        if endpoint.protocol == "openai":
            from .chat import async_openai_client

            return async_openai_client(endpoint, limits)
        if endpoint.protocol == "v2":
            from .v2 import AsyncV2Client

            return AsyncV2Client(endpoint, limits)
        from . import http

        return http.async_client(endpoint, limits, http=http.library())

    def batch(self, rows: Any, **options: Unpack[BatchOptions]) -> BatchResult:
        """Send a request for every row, with the concurrency that gives the best throughput.

        `client.batch.batch` has the details.

        Args:
            rows: Any iterable, a table or one of its columns, or the path of a `.jsonl` or
                `.parquet` file.
            **options: `work`, which is required: `chat(…)`, `completion(…)`, `embeddings(…)`,
                `structured(…)`, or an `async def f(client, row)` that returns the row's output;
                `output`, the `.jsonl` or `.parquet` file of the result; `id`, the column with each
                row's id; `max_concurrency` (default 512), `deadline` (seconds of one request,
                default 60), `max_retries` (default 5), `max_failures` (default any number),
                `allow_all_failed` (default `False`), `outage_seconds` (default 300), `resume` and
                `progress` (both default `True`).
                `client.batch.batch_options.BatchOptions` describes each of them.

        Raises:
            ArgumentError: If an option does not exist, or `work` is missing.
            ConfigError: If the value of an option is wrong.
        """
        from .batch import batch
        from .batch.batch_options import check_names

        check_names(options)
        return batch(self._endpoint(), rows, **options)

    def abatch(self, rows: Any, **options: Unpack[BatchOptions]) -> AsyncBatch:
        """As `batch`, for asyncio: await it for the result, or iterate over it for the records."""
        from .batch import abatch
        from .batch.batch_options import check_names

        check_names(options)
        return abatch(self._endpoint(), rows, **options)
