"""The HTTP layer below every client: it sends, waits, retries what is safe, and keeps the record.

Works with `httpx` and with its successor `httpx2`: the library is a parameter (`http`), because the
official OpenAI client is built on one or the other, depending on its version. The stream of an
answer must be an instance of the library's own type, so the two stream classes are created for it.

`attempts.Attempts` decides about each request; one whose answer has begun is never sent again.
"""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ServerError
from .attempts import Attempts, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .outage import OutageWatch
    from .record import PendingRequest, Record

__all__ = ["AsyncTransport", "Transport"]

STREAMED = ("text/event-stream", "application/x-ndjson", "application/jsonl")
"""Types of streamed answers, whose time to the first byte is worth measuring."""

_T = TypeVar("_T", bound="_Layer")


class _Layer:
    """The base of both transports.

    Args:
        inner: The library's own transport.
        http: The library.
        limits: For how long a request is tried.
        watch: Knows whether the server answers.
        record: Keeps count of requests and outages.
        convert: Turns an error of ours into one that users of the client also catch.
    """

    def __init__(
        self,
        inner: Any,
        *,
        http: Any,
        limits: Limits,
        watch: OutageWatch,
        record: Record,
        convert: Callable[[ServerError, Any], Exception] = lambda error, request: error,
    ) -> None:
        self._inner = inner
        self._http = http
        self._limits = limits
        self._watch = watch
        self._record = record
        self._convert = convert

    def _begin(self, request: Any) -> tuple[Attempts, PendingRequest]:
        attempts = Attempts(
            request, limits=self._limits, watch=self._watch, record=self._record, http=self._http
        )
        return attempts, self._record.begin(f"{request.method} {request.url.path}")

    def _accept(
        self,
        response: Any,
        request: Any,
        attempts: Attempts,
        seen: PendingRequest,
        stream_type: Any,
    ) -> Any:
        """Return the answer, with a body that records its own end."""
        seen.status = response.status_code
        body_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A sign-in page of a proxy answers 200; the client above would fail later, with a message
        # about JSON that does not name the cause.
        if (
            body_type == "text/html"
            and response.is_success
            and "json" in request.headers.get("accept", "")
        ):
            raise attempts.not_json(body_type)
        if place := _other_host(request, response):
            raise attempts.redirected(response.status_code, place)
        response.stream = stream_type(
            _Body(
                response.stream,
                self,
                request,
                attempts=attempts,
                seen=seen,
                is_streamed=body_type in STREAMED,
            )
        )
        return response

    def _fail(self, error: BaseException, request: Any, seen: PendingRequest) -> BaseException:
        """Record a failure and return the exception to raise."""
        self._record.end(seen, error)
        return self._convert(error, request) if isinstance(error, ServerError) else error


def _other_host(request: Any, response: Any) -> str:
    """Return where a redirect leads if that is another host, which would get the request's body."""
    place = response.headers.get("location", "")
    if not place or not 300 <= response.status_code < 400 or request.method in ("GET", "HEAD"):
        return ""
    url = request.url.join(place)
    is_same = (url.host, url.port) == (request.url.host, request.url.port)
    return "" if is_same else f"{url.scheme}://{url.netloc.decode()}{url.path}"


class Transport(_Layer):
    """For blocking clients, from any number of threads."""

    def handle_request(self, request: Any) -> Any:
        """Return the answer to a request, as the library's transports do.

        Raises:
            ServerError: There is none; `convert` determines its type.
        """
        attempts, seen = self._begin(request)
        try:
            response = self._send(request, attempts)
            try:
                return self._accept(response, request, attempts, seen, _blocking(self._http))
            except ServerError:
                response.close()
                raise
        except BaseException as error:
            raised = self._fail(error, request, seen)
            if raised is error:
                raise
            raise raised from error.__cause__

    def _send(self, request: Any, attempts: Attempts) -> Any:
        while True:
            response, wait = None, None
            try:
                response = self._inner.handle_request(request)
            except Exception as error:  # `after_error` re-raises what the server did not cause
                wait = attempts.after_error(error)
            else:
                wait = attempts.after_answer(response.status_code, response.headers)
                if wait is None:
                    return response
            try:
                if wait.for_server and not attempts.after_wait(self._watch.wait(attempts.left())):
                    # the caller gets this answer: `finally` must leave its connection open
                    kept, response = response, None
                    return kept
            finally:
                # an answer that nobody reads keeps its connection until it is closed
                if response is not None:
                    response.close()
            time.sleep(wait.pause_seconds)
            # only here is it certain that the request is sent again
            self._record.repeat(wait.reason)

    def close(self) -> None:
        """Close all connections."""
        self._inner.close()

    def __enter__(self: _T) -> _T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTransport(_Layer):
    """For clients of asyncio."""

    async def handle_async_request(self, request: Any) -> Any:
        """Return the answer to a request, as the library's transports do.

        Raises:
            ServerError: There is none; `convert` determines its type.
        """
        attempts, seen = self._begin(request)
        try:
            response = await self._send(request, attempts)
            try:
                return self._accept(response, request, attempts, seen, _asynchronous(self._http))
            except ServerError:
                await response.aclose()
                raise
        except BaseException as error:
            raised = self._fail(error, request, seen)
            if raised is error:
                raise
            raise raised from error.__cause__

    async def _send(self, request: Any, attempts: Attempts) -> Any:
        while True:
            response, wait = None, None
            try:
                response = await self._inner.handle_async_request(request)
            except Exception as error:  # `after_error` re-raises what the server did not cause
                wait = attempts.after_error(error)
            else:
                wait = attempts.after_answer(response.status_code, response.headers)
                if wait is None:
                    return response
            try:
                if wait.for_server and not attempts.after_wait(
                    await self._watch.wait_async(attempts.left())
                ):
                    # the caller gets this answer: `finally` must leave its connection open
                    kept, response = response, None
                    return kept
            finally:
                if response is not None:
                    await response.aclose()
            await asyncio.sleep(wait.pause_seconds)
            self._record.repeat(wait.reason)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def __aenter__(self: _T) -> _T:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Body:
    """The body of an answer: passed on part by part, and recorded when it ends."""

    def __init__(
        self,
        inner: Any,
        layer: _Layer,
        request: Any,
        *,
        attempts: Attempts,
        seen: PendingRequest,
        is_streamed: bool,
    ) -> None:
        self.inner = inner
        self._layer = layer
        self._request = request
        self._attempts = attempts
        self._seen, self._is_streamed = seen, is_streamed
        self._size = 0

    def note(self, part: bytes) -> None:
        self._size += len(part)
        if self._is_streamed:
            self._layer._record.first_byte(self._seen)

    def end(self) -> None:
        self._layer._record.end(self._seen)

    def failed(self, error: BaseException) -> BaseException:
        """Return the exception to raise in place of an error of the library."""
        http = self._layer._http
        if isinstance(error, http.TimeoutException):
            error = self._attempts.stalled(error, self._size)
        elif isinstance(error, http.TransportError):
            error = self._attempts.broken(error, self._size)
        return self._layer._fail(error, self._request, self._seen)


@cache
def _blocking(http: Any) -> Any:
    class WatchedStream(http.SyncByteStream):
        def __init__(self, body: _Body) -> None:
            self._body = body

        def __iter__(self) -> Iterator[bytes]:
            body = self._body
            try:
                for part in body.inner:
                    body.note(part)
                    yield part
            except Exception as error:
                # not of a caller that stops reading: `close` records its GeneratorExit as an end
                raise body.failed(error) from error
            body.end()

        def close(self) -> None:
            self._body.inner.close()
            self._body.end()  # closed early: the caller had enough

    return WatchedStream


@cache
def _asynchronous(http: Any) -> Any:
    class AsyncWatchedStream(http.AsyncByteStream):
        def __init__(self, body: _Body) -> None:
            self._body = body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            body = self._body
            try:
                async for part in body.inner:
                    body.note(part)
                    yield part
            except Exception as error:
                raise body.failed(error) from error
            body.end()

        async def aclose(self) -> None:
            await self._body.inner.aclose()
            self._body.end()

    return AsyncWatchedStream
