"""Clients of the Open Inference Protocol ("V2": Triton, MLServer, KServe), with NumPy arrays.

Imported when a client is created.

`tritonclient` encodes and decodes the tensors (its public `generate_request_body` and
`parse_response_body`). The requests go through this package's own transport, because tritonclient's
blocking client must stay in one thread (triton-inference-server/server#6650) and its asynchronous
client is a separate implementation, in beta. Thus both clients here behave the same, and both wait
for a server that went away.

The inputs are checked against the model's metadata before they are sent: a server's "unexpected
shape for input" names neither the actual nor the expected shape.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import InferenceError, ServerError
from ..facts.wording import excerpt
from . import http
from .models import only_model_of, request_of
from .tensors import Metadata, Tensor, decode, encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import ArrayLike

    from .attempts import Limits
    from .server_address import ServerAddress

__all__ = ["AsyncV2Client", "Metadata", "V2Client"]

BINARY = "binary_tensor_data"
"""Triton's name of the extension for tensors as bytes behind the JSON (`GET /v2`, `extensions`).
MLServer has none (SeldonIO/MLServer#324)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """One request to a server."""

    method: str
    path: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class _Base:
    """The base of both clients."""

    def __init__(self, endpoint: ServerAddress) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._metadata: dict[str, Metadata] = {}

    def _name(self, model: str) -> None:
        """Keep the name of the server's only model, so that it is requested only once."""
        self._endpoint = replace(self._endpoint, model=model)

    def _cached(self, model: str) -> Metadata | None:
        with self._lock:
            return self._metadata.get(model)

    def _learn(self, model: str, server: Any, answer: Any) -> Metadata:
        """Keep and return a server's description of a model."""
        try:
            metadata = Metadata(
                model=str(answer["name"]),
                versions=tuple(str(version) for version in answer.get("versions") or ()),
                platform=str(answer.get("platform") or ""),
                inputs=tuple(Tensor.parse(tensor) for tensor in answer.get("inputs") or ()),
                outputs=tuple(Tensor.parse(tensor) for tensor in answer.get("outputs") or ()),
                has_binary=BINARY in (server.get("extensions") or ()),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServerError(
                f"What {self._endpoint.url} says of the model {model!r} is not metadata of the "
                f"Open Inference Protocol: {excerpt(str(answer))}."
            ) from error
        with self._lock:
            self._metadata[model] = metadata
        return metadata

    def _forget(self, model: str) -> None:
        with self._lock:
            self._metadata.pop(model, None)

    def _infer_call(
        self, model: str, metadata: Metadata, arguments: tuple[Any, Any, Any], version: str
    ) -> _Call:
        inputs, outputs, parameters = arguments
        content, header_size = encode(metadata, inputs, outputs, parameters)
        headers = {"Content-Type": "application/json"}
        if header_size is not None:
            headers = {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(header_size),
            }
        return _Call(
            method="POST", path=f"{_path(model, version)}/infer", content=content, headers=headers
        )

    def _result(self, call: _Call, response: Any) -> dict[str, np.ndarray[Any, Any]]:
        self._refuse(call, response)
        try:
            return decode(response.content, response.headers.get("inference-header-content-length"))
        except Exception as error:  # whatever the codec raises for an answer that is malformed
            raise ServerError(
                f"{self._asked(call)} was answered {response.status_code} with something that is "
                "not a result of the Open Inference Protocol ("
                f"{type(error).__name__}: {error}): "
                f"{excerpt(response.content)}."
            ) from error

    def _json(self, call: _Call, response: Any) -> Any:
        self._refuse(call, response)
        try:
            value = response.json()
        except ValueError as error:
            raise ServerError(
                f"{self._asked(call)} was answered {response.status_code}, not with JSON: "
                f"{excerpt(response.content)}."
            ) from error
        return value

    def _refuse(self, call: _Call, response: Any) -> None:
        """Raise the error that explains a server's refusal."""
        status = response.status_code
        if response.is_success:
            return
        try:
            text = excerpt(str(response.json()["error"]))
        except (ValueError, KeyError, TypeError):
            text = excerpt(response.content)
        hint = {
            400: "The inputs do not match the model; metadata() lists what it takes.",
            401: "Give the key of the server: template.at(url, api_key=…).",
            403: "Give the key of the server: template.at(url, api_key=…).",
            404: "Check the model's name and version; `POST /v2/repository/index` lists what the "
            "server has.",
        }.get(status, "See the log of the model server.")
        raise ServerError(f"{self._asked(call)} was answered {status}: {text}.", hint=hint)

    def _asked(self, call: _Call) -> str:
        return f"{call.method} {self._endpoint.url}{call.path}"


class V2Client(_Base):
    """A blocking client, for any number of threads.

    Args:
        endpoint: The server; `endpoint.model` is the model of requests that name none.
        limits: For how long a request is tried.

    Example:
        ```python
        with template.client() as client:
            scores = client.infer({"x": np.zeros((8, 4), np.float32)})["y"]
        ```
    """

    def __init__(self, endpoint: ServerAddress, limits: Limits) -> None:
        super().__init__(endpoint)
        self._client = http.client(endpoint, limits, http=http.library())

    def infer(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        model: str = "",
        version: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return the outputs of a model.

        Args:
            inputs: Arrays, or lists of numbers or texts, by the names of the model's inputs.
            outputs: The outputs to return; by default all.
            model: The model; by default the endpoint's, or the only one of the server.
            version: Its version; by default the server chooses one.
            parameters: Parameters of the request, such as `sequence_id`, `priority` and `timeout`
                (microseconds) of Triton.

        Returns:
            The outputs by name. Texts are arrays of `bytes` objects.

        Raises:
            ConfigError: The inputs do not match the model; lists every problem, and nothing was
                sent.
            ServerError: The server refuses the request, does not answer, or answers something
                else.
        """
        model = self._model(model)
        try:
            call = self._infer_call(
                model, self.metadata(model), (inputs, outputs, parameters), version
            )
            return self._result(call, self._send(call))
        except InferenceError:
            # the model may have been replaced by one with other inputs
            self._forget(model)
            raise

    def metadata(self, model: str = "") -> Metadata:
        """Return the server's description of a model, which is cached until a request fails.

        Raises:
            ServerError: The server has no such model or does not answer.
        """
        model = self._model(model)
        metadata = self._cached(model)
        if metadata is not None:
            return metadata
        about_server = _Call(method="GET", path="/v2")
        about_model = _Call(method="GET", path=_path(model))
        # only the server's own description lists extensions; a model's does not
        server = self._json(about_server, self._send(about_server))
        return self._learn(model, server, self._json(about_model, self._send(about_model)))

    def ready(self, model: str = "") -> bool:
        """Return whether a model is ready to answer."""
        path = f"{_path(self._model(model))}/ready"
        return bool(self._send(_Call(method="GET", path=path)).status_code == 200)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def __enter__(self) -> V2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _model(self, model: str) -> str:
        if not model and not self._endpoint.model:
            response = self._client.request(**request_of(self._endpoint))
            self._name(only_model_of(self._endpoint, response))
        return model or self._endpoint.model

    def _send(self, call: _Call) -> Any:
        return self._client.request(
            call.method, call.path, content=call.content, headers=call.headers
        )


class AsyncV2Client(_Base):
    """Like `V2Client`, for asyncio."""

    def __init__(self, endpoint: ServerAddress, limits: Limits) -> None:
        super().__init__(endpoint)
        self._client = http.async_client(endpoint, limits, http=http.library())

    async def infer(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        model: str = "",
        version: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Like `V2Client.infer`."""
        model = await self._model(model)
        try:
            call = self._infer_call(
                model, await self.metadata(model), (inputs, outputs, parameters), version
            )
            return self._result(call, await self._send(call))
        except InferenceError:
            self._forget(model)
            raise

    async def metadata(self, model: str = "") -> Metadata:
        """Like `V2Client.metadata`."""
        model = await self._model(model)
        metadata = self._cached(model)
        if metadata is not None:
            return metadata
        about_server = _Call(method="GET", path="/v2")
        about_model = _Call(method="GET", path=_path(model))
        server = self._json(about_server, await self._send(about_server))
        return self._learn(model, server, self._json(about_model, await self._send(about_model)))

    async def ready(self, model: str = "") -> bool:
        """Like `V2Client.ready`."""
        path = f"{_path(await self._model(model))}/ready"
        return bool((await self._send(_Call(method="GET", path=path))).status_code == 200)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncV2Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _model(self, model: str) -> str:
        if not model and not self._endpoint.model:
            response = await self._client.request(**request_of(self._endpoint))
            self._name(only_model_of(self._endpoint, response))
        return model or self._endpoint.model

    async def _send(self, call: _Call) -> Any:
        return await self._client.request(
            call.method, call.path, content=call.content, headers=call.headers
        )


def _path(model: str, version: str = "") -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path
