"""The client of the Open Inference Protocol, with tensors as bytes and as JSON.

The server below speaks as much of the protocol as the client uses, written from its specification
(github.com/kserve/open-inference-protocol, and Triton's `extension_binary_data.md`); it can be told
to answer anything.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from client.stub import Behaviour, Handler, Stub, crash, half, hang, send
from flytekitplugins.inference.client.endpoint import Endpoint
from flytekitplugins.inference.client.tensors import Tensor
from flytekitplugins.inference.client.v2 import AsyncV2Client, Metadata, V2Client
from flytekitplugins.inference.errors import (
    ConfigError,
    ServerError,
    ServerExitedError,
    ServerNotReadyError,
)

TYPES = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
Infer = Callable[..., dict[str, np.ndarray[Any, Any]]]


def describe(
    stub: Stub, *inputs: tuple[str, str, list[int]], binary: bool = True, name: str = "m"
) -> None:
    """Give the server a model that answers with its inputs, each as an output `<name>_out`."""
    extensions = ["binary_tensor_data", "classification"] if binary else ["model_repository"]
    stub.pages["/v2"] = send(200, {"name": "stub", "version": "1", "extensions": extensions})
    tensors = [
        {"name": one, "datatype": datatype, "shape": shape} for one, datatype, shape in inputs
    ]
    outputs = [{**tensor, "name": f"{tensor['name']}_out"} for tensor in tensors]
    value = {
        "name": name,
        "versions": ["1"],
        "platform": "stub",
        "inputs": tensors,
        "outputs": outputs,
    }
    stub.pages[f"/v2/models/{name}"] = send(200, value)
    stub.pages[f"/v2/models/{name}/ready"] = send(200, b"")
    stub.pages["/v2/health/ready"] = send(200, b"")
    stub.default = echo


def echo(handler: Handler) -> None:
    """Answer with the inputs: as bytes where the request wants it, otherwise as JSON."""
    size = handler.headers.get("Inference-Header-Content-Length")
    header, rest = (
        json.loads(handler.body[: int(size) if size else None]),
        handler.body[int(size) :] if size else b"",
    )
    wanted = {
        output["name"]: output["parameters"]["binary_data"] for output in header.get("outputs", [])
    }
    outputs, blobs = [], []
    for tensor in header["inputs"]:
        name = f"{tensor['name']}_out"
        output = {"name": name, "datatype": tensor["datatype"], "shape": tensor["shape"]}
        length = tensor.get("parameters", {}).get("binary_data_size")
        blob, rest = rest[: length or 0], rest[length or 0 :]
        if wanted and name not in wanted:
            continue
        if length is None:
            output["data"] = tensor["data"]
        else:
            assert wanted[name] is True
            output["parameters"] = {"binary_data_size": length}
            blobs.append(blob)
        outputs.append(output)
    assert rest == b""
    text = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))} if blobs else None
    kind = "application/octet-stream" if blobs else "application/json"
    send(200, text + b"".join(blobs), kind=kind, headers=headers)(handler)


def endpoint_of(stub: Stub, model: str = "m") -> Endpoint:
    return Endpoint(
        url=stub.url, protocol="v2", model=model, health_url=f"{stub.url}/v2/health/ready"
    )


def infer_blocking(endpoint: Endpoint, inputs: Any, *, limits: Any = None, **options: Any) -> Any:
    with endpoint.client(**(limits or {})) as client:
        assert isinstance(client, V2Client)
        return client.infer(inputs, **options)


def infer_async(endpoint: Endpoint, inputs: Any, *, limits: Any = None, **options: Any) -> Any:
    async def infer() -> Any:
        async with endpoint.async_client(**(limits or {})) as client:
            assert isinstance(client, AsyncV2Client)
            return await client.infer(inputs, **options)

    return asyncio.run(infer())


@pytest.fixture(params=[infer_blocking, infer_async], ids=["blocking", "asyncio"])
def infer(request: pytest.FixtureRequest) -> Infer:
    asking: Infer = request.param
    return asking


def header_of(stub: Stub) -> dict[str, Any]:
    _, headers, body = stub.posts[-1]
    size = headers.get("inference-header-content-length")
    value: dict[str, Any] = json.loads(body[: int(size) if size else None])
    return value


# There and back


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("datatype", "dtype"), TYPES.items())
def test_arrays_of_every_type_come_back(
    stub: Stub, infer: Infer, datatype: str, dtype: Any, binary: bool
) -> None:
    describe(stub, ("x", datatype, [-1, 3]), ("z", "INT64", [2]), binary=binary)
    x = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    z = np.array([7, -7])
    result = infer(endpoint_of(stub), {"x": x, "z": z})
    assert set(result) == {"x_out", "z_out"}
    assert result["x_out"].dtype == dtype
    np.testing.assert_array_equal(result["x_out"], x)
    np.testing.assert_array_equal(result["z_out"], z)
    assert ("inference-header-content-length" in stub.posts[0][1]) is binary


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "texts",
    [
        ["a", "ä€", ""],
        [b"a", "ä€".encode(), b""],
        np.array(["a", "ä€", ""]),
        np.array([b"a", "ä€".encode(), b""], dtype=object),
    ],
)
def test_texts_come_back_as_bytes(stub: Stub, infer: Infer, texts: Any, binary: bool) -> None:
    describe(stub, ("x", "BYTES", [-1]), binary=binary)
    assert infer(endpoint_of(stub), {"x": texts})["x_out"].tolist() == [b"a", "ä€".encode(), b""]


def test_bytes_keep_the_zeros_at_their_end(stub: Stub, infer: Infer) -> None:
    describe(stub, ("x", "BYTES", [1]))
    assert infer(endpoint_of(stub), {"x": [b"\xff\0\0"]})["x_out"].tolist() == [b"\xff\0\0"]
    assert stub.posts[0][2].endswith(struct.pack("<I", 3) + b"\xff\0\0")


@pytest.mark.parametrize("binary", [True, False])
def test_empty_arrays_and_scalars_of_a_list_come_back(
    stub: Stub, infer: Infer, binary: bool
) -> None:
    describe(stub, ("x", "FP32", [-1, 4]), ("y", "FP32", [1]), binary=binary)
    result = infer(endpoint_of(stub), {"x": np.zeros((0, 4), np.float32), "y": [1]})
    assert result["x_out"].shape == (0, 4)
    assert result["y_out"].tolist() == [1.0]


def test_only_the_wanted_outputs_come(stub: Stub, infer: Infer) -> None:
    describe(stub, ("x", "FP32", [1]), ("y", "FP32", [1]))
    assert set(infer(endpoint_of(stub), {"x": [1], "y": [2]}, outputs=["y_out"])) == {"y_out"}


def test_parameters_and_the_version_are_sent(stub: Stub, infer: Infer) -> None:
    describe(stub, ("x", "FP32", [1]))
    infer(
        endpoint_of(stub),
        {"x": [1]},
        version="3",
        parameters={"timeout": 100, "priority": 2, "own": "a"},
    )
    assert stub.posts[0][0] == "/v2/models/m/versions/3/infer"
    assert header_of(stub)["parameters"] == {"timeout": 100, "priority": 2, "own": "a"}


def test_a_reserved_parameter_is_refused(stub: Stub, infer: Infer) -> None:
    describe(stub, ("x", "FP32", [1]))
    with pytest.raises(ConfigError, match=r"parameters=.* cannot be sent: .*reserved"):
        infer(endpoint_of(stub), {"x": [1]}, parameters={"triton_x": 1})


def test_without_metadata_the_arrays_types_are_sent(stub: Stub, infer: Infer) -> None:
    """As MLServer with a runtime that declares nothing."""
    describe(stub, binary=False)
    x = np.array([[1.5]], np.float32)
    result = infer(endpoint_of(stub), {"x": x, "t": np.array(["a"])})
    np.testing.assert_array_equal(result["x_out"], x)
    assert [tensor["datatype"] for tensor in header_of(stub)["inputs"]] == ["FP32", "BYTES"]


# What does not suit the model


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            np.zeros((2, 3)),
            "'x' has the type float64, expected FP32 (float32): that cast may lose something",
        ),
        (np.zeros((2, 3), np.int64), "'x' has the type int64, expected FP32"),
        (np.zeros((2, 4), np.float32), "'x' has the shape [2, 4], expected [-1, 3]"),
        (np.zeros(3, np.float32), "'x' has the shape [3], expected [-1, 3]"),
        (1.0, "'x' has the shape [], expected [-1, 3]"),
        ([[1, 2, 3], [4]], "'x' is not an array"),
        ([["a", "b", "c"]], "'x' has the type <U1, expected FP32"),
        ("abc", "'x' is a single str; give a list"),
        ([[1e300, 0, 0]], "'x' holds 1e+300, which is out of the range of FP32"),
        (None, "'x' has the type object, expected FP32"),
    ],
)
def test_an_input_that_does_not_suit_is_told_before_anything_is_sent(
    stub: Stub, infer: Infer, value: Any, problem: str
) -> None:
    describe(stub, ("x", "FP32", [-1, 3]))
    with pytest.raises(ConfigError) as caught:
        infer(endpoint_of(stub), {"x": value})
    assert problem in str(caught.value)
    assert "does not suit the model 'm'; it takes x: FP32 [-1, 3]" in str(caught.value)
    assert stub.posts == []


@pytest.mark.parametrize("value", [[[300]], [[-1]], [[1.5]]])
def test_numbers_that_a_type_cannot_hold_are_refused(stub: Stub, infer: Infer, value: Any) -> None:
    describe(stub, ("x", "UINT8", [1, 1]))
    with pytest.raises(ConfigError, match=r"out of the range of UINT8|expected UINT8"):
        infer(endpoint_of(stub), {"x": value})


def test_lists_take_the_models_type_and_arrays_only_safe_casts(stub: Stub, infer: Infer) -> None:
    describe(stub, ("a", "FP32", [2]), ("b", "UINT8", [1]), ("c", "FP64", [1]), ("d", "INT64", [1]))
    inputs = {
        "a": [1, 2.5],
        "b": [255],
        "c": np.array([1], np.float32),
        "d": np.array([7], np.int32),
    }
    result = infer(endpoint_of(stub), inputs)
    assert {name: array.dtype.name for name, array in result.items()} == {
        "a_out": "float32",
        "b_out": "uint8",
        "c_out": "float64",
        "d_out": "int64",
    }


def test_every_problem_is_told_at_once(stub: Stub, infer: Infer) -> None:
    describe(stub, ("x", "FP32", [1]), ("y", "INT64", [2]))
    with pytest.raises(ConfigError) as caught:
        infer(endpoint_of(stub), {"x": [[1]], "y": [1.5, 2], "w": [1]}, outputs=["q"])
    assert len(caught.value.problems) == 4
    assert "'w' is not an input of the model" in caught.value.problems[0]
    assert "'q' is not an output of the model: it has x_out, y_out" in caught.value.problems[1]


@pytest.mark.parametrize(
    ("inputs", "outputs", "problem"), [({}, None, "empty"), ({"x": [1]}, "x_out", "is a text")]
)
def test_arguments_of_another_kind_are_refused(
    stub: Stub, infer: Infer, inputs: Any, outputs: Any, problem: str
) -> None:
    describe(stub, ("x", "FP32", [1]))
    with pytest.raises(ConfigError, match=problem):
        infer(endpoint_of(stub), inputs, outputs=outputs)


@pytest.mark.parametrize(
    ("datatype", "value", "what"),
    [
        ("FP32", [np.nan], "NaN or infinity"),
        ("FP64", [np.inf], "NaN or"),
        ("BYTES", [b"\xff"], "bytes that are not"),
    ],
)
def test_what_json_cannot_hold_is_refused_where_there_is_only_json(
    stub: Stub, infer: Infer, datatype: str, value: Any, what: str
) -> None:
    describe(stub, ("x", datatype, [1]), binary=False)
    with pytest.raises(ConfigError, match=f"'x' contains {what}.*accepts tensors only as JSON"):
        infer(endpoint_of(stub), {"x": value})
    describe(stub, ("x", datatype, [1]))
    assert len(infer(endpoint_of(stub), {"x": value})["x_out"]) == 1


# What the server refuses


@pytest.mark.parametrize(
    ("status", "value", "text"),
    [
        (
            400,
            {"error": "unexpected shape"},
            "answered 400: 'unexpected shape'. Hint: The inputs do not match",
        ),
        (
            404,
            {"error": "unknown model"},
            "answered 404: 'unknown model'. Hint: Check the model's name",
        ),
        (401, b"no key", "answered 401: 'no key'. Hint: Give the key"),
        (500, {"detail": "oops"}, 'answered 500: \'{"detail": "oops"}\''),
    ],
)
def test_a_refusal_is_told(stub: Stub, infer: Infer, status: int, value: Any, text: str) -> None:
    describe(stub, ("x", "FP32", [1]))
    stub.default = send(status, value)
    with pytest.raises(ServerError) as caught:
        infer(endpoint_of(stub), {"x": [1]})
    assert f"POST {stub.url}/v2/models/m/infer was {text}" in str(caught.value)


@pytest.mark.parametrize(
    "behaviour",
    [
        send(200, b"<html>Welcome</html>", kind="text/html"),
        send(200, {"outputs": None}),
        send(200, {"outputs": [{"name": "x_out", "datatype": "FP32", "shape": [9], "data": [1]}]}),
        send(200, b"{}", headers={"Inference-Header-Content-Length": "many"}),
        send(200, [1]),
    ],
)
def test_an_answer_that_is_no_result_is_told(
    stub: Stub, infer: Infer, behaviour: Behaviour
) -> None:
    describe(stub, ("x", "FP32", [1]))
    stub.default = behaviour
    with pytest.raises(
        ServerError, match="answered 200 with something that is not a result of the Open Inference"
    ):
        infer(endpoint_of(stub), {"x": [1]})


@pytest.mark.parametrize("value", [{"name": "m", "inputs": [{"name": "x"}]}, [1], {"inputs": []}])
def test_metadata_that_is_none_is_told(stub: Stub, infer: Infer, value: Any) -> None:
    describe(stub, ("x", "FP32", [1]))
    stub.pages["/v2/models/m"] = send(200, value)
    with pytest.raises(ServerError, match="is not metadata of the Open Inference Protocol"):
        infer(endpoint_of(stub), {"x": [1]})


def test_an_unknown_model_is_told(stub: Stub, infer: Infer) -> None:
    describe(stub, ("x", "FP32", [1]))
    with pytest.raises(ServerError, match=r"GET http://\S+/v2/models/other was answered 404"):
        infer(endpoint_of(stub), {"x": [1]}, model="other")


def test_an_outage_is_waited_for_and_told(stub: Stub, infer: Infer) -> None:
    describe(stub, ("x", "FP32", [1]))
    stub.script = [crash(return_in=0.2)]
    assert infer(endpoint_of(stub), {"x": [1]})["x_out"].tolist() == [1.0]
    stub.default = crash()
    with pytest.raises(ServerNotReadyError, match="went away twice and came back once"):
        infer(endpoint_of(stub), {"x": [1]}, limits={"outage_seconds": 0.5})


@pytest.mark.parametrize(
    ("behaviour", "kind"), [(half, ServerExitedError), (hang, ServerNotReadyError)]
)
def test_an_answer_that_breaks_off_or_never_comes_is_told(
    stub: Stub, infer: Infer, behaviour: Behaviour, kind: type[ServerError]
) -> None:
    describe(stub, ("x", "FP32", [1]))
    stub.default = behaviour
    with pytest.raises(kind):
        infer(endpoint_of(stub), {"x": [1]}, limits={"timeout": 0.3})
    assert len(stub.posts) == 1


# Metadata


def test_metadata_is_asked_for_once_and_again_after_a_refusal(stub: Stub) -> None:
    describe(stub, ("x", "FP32", [1]))
    with endpoint_of(stub).client() as client:
        for _ in range(3):
            client.infer({"x": [1]})
        assert stub.asked("/v2/models/m") == 1
        describe(stub, ("x", "FP32", [2]))  # another version of the model was loaded
        with pytest.raises(ConfigError, match=r"shape \[2\], expected \[1\]"):
            client.infer({"x": [1, 2]})
        assert client.infer({"x": [1, 2]})["x_out"].tolist() == [1, 2]
    assert stub.asked("/v2/models/m") == 2


def test_metadata_and_readiness_are_told(stub: Stub) -> None:
    describe(stub, ("x", "FP32", [-1, 2]), name="team/m")
    stub.pages["/v2/models/team%2Fm"] = stub.pages["/v2/models/team/m"]
    stub.pages["/v2/models/team%2Fm/ready"] = send(200, b"")
    expected = Metadata(
        model="team/m",
        versions=("1",),
        platform="stub",
        inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 2)),),
        outputs=(Tensor(name="x_out", datatype="FP32", shape=(-1, 2)),),
        has_binary=True,
    )
    with endpoint_of(stub, "team/m").client() as client:
        assert client.metadata() == expected
        assert client.ready()
        assert not client.ready("other")

    async def ask() -> Any:
        async with endpoint_of(stub, "team/m").async_client() as client:
            return await client.metadata(), await client.ready(), await client.ready("other")

    assert asyncio.run(ask()) == (expected, True, False)


def test_the_only_model_of_a_server_needs_no_name(stub: Stub, infer: Infer) -> None:
    describe(stub, ("x", "FP32", [1]))
    stub.script = [send(200, [{"name": "m", "version": "1", "state": "READY"}])]
    assert infer(endpoint_of(stub, ""), {"x": [1]})["x_out"].tolist() == [1.0]
    assert [path for path, _, _ in stub.posts] == ["/v2/repository/index", "/v2/models/m/infer"]
