"""Turns arrays into requests of the Open Inference Protocol, and answers into arrays. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..dependencies import requires
from ..distribution import install_command
from ..errors import ConfigError

with requires(
    "tritonclient[http]",
    "client() of a server that speaks the Open Inference Protocol",
    hint=f"{install_command('open-inference')} in the task's image.",
):
    import numpy as np
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Metadata", "Tensor", "decode", "encode"]

TEXTS = "BYTES"
"""The protocol's name for texts and other strings of bytes."""
ARGUMENTS = frozenset({"sequence_id", "sequence_start", "sequence_end", "priority", "timeout"})
"""Parameters that tritonclient takes as separate arguments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """An input or output of a model, as its server describes it."""

    name: str
    datatype: str
    """`FP32`, `INT64`, `BYTES` …"""
    shape: tuple[int, ...]
    """-1 is any length."""

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Tensor:
        """Return the tensor that a server's JSON describes."""
        return cls(
            name=str(value["name"]),
            datatype=str(value["datatype"]),
            shape=tuple(map(int, value["shape"])),
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} {_shape(self.shape)}"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """A server's description of one of its models."""

    model: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[Tensor, ...] = ()
    """Empty if the server does not list them: then nothing is checked, and the arrays determine the
    types."""
    outputs: tuple[Tensor, ...] = ()
    has_binary: bool = False
    """Whether the server accepts and returns tensors as bytes; otherwise they are sent as JSON."""


def encode(
    metadata: Metadata,
    inputs: Mapping[str, Any],
    outputs: Sequence[str] | None,
    parameters: Mapping[str, Any] | None,
) -> tuple[bytes, int | None]:
    """Return the body of a request, and the size of its JSON if bytes follow it.

    Raises:
        ConfigError: The inputs do not match the model.
    """
    expected = {tensor.name: tensor for tensor in metadata.inputs}
    problems = list(_name_problems(metadata, inputs, outputs))
    arrays: dict[str, tuple[str, np.ndarray[Any, Any]]] = {}
    for name, value in inputs.items():
        # `_name_problems` tells it
        if expected and name not in expected:
            continue
        try:
            arrays[name] = _checked(name, value, expected.get(name), metadata.has_binary)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        takes = "; it takes " + ", ".join(map(str, metadata.inputs)) if metadata.inputs else ""
        raise ConfigError(
            f"infer(…) does not suit the model {metadata.model!r}{takes}:", problems=problems
        )
    tensors = [
        _input(name, datatype, array, metadata) for name, (datatype, array) in arrays.items()
    ]
    # named one by one, since the choice between bytes and JSON belongs to each output
    names = outputs if outputs is not None else [tensor.name for tensor in metadata.outputs]
    requests = [InferRequestedOutput(name, binary_data=metadata.has_binary) for name in names]
    # tritonclient refuses these names among the parameters, and takes them as arguments
    others = dict(parameters or {})
    arguments = {name: others.pop(name) for name in ARGUMENTS & others.keys()}
    try:
        body, size = InferenceServerClient.generate_request_body(
            tensors, outputs=requests or None, parameters=others or None, **arguments
        )
    except (InferenceServerException, TypeError, ValueError) as error:
        raise ConfigError(
            f"parameters={dict(parameters or {})!r} cannot be sent: {error}."
        ) from error
    return body, size


def decode(body: bytes, header_size: str | None) -> dict[str, np.ndarray[Any, Any]]:
    """Return the outputs of an answer by name; texts are arrays of `bytes` objects."""
    result = InferenceServerClient.parse_response_body(
        body, header_length=int(header_size) if header_size else None
    )
    outputs = {}
    for output in result.get_response()["outputs"]:
        array = result.as_numpy(output["name"])
        outputs[output["name"]] = _as_bytes(array) if output["datatype"] == TEXTS else array
    return outputs


def _name_problems(
    metadata: Metadata, inputs: Mapping[str, Any], outputs: Sequence[str] | None
) -> Iterator[str]:
    if not inputs:
        yield "inputs is empty"
    if metadata.inputs:
        names = [tensor.name for tensor in metadata.inputs]
        yield from (
            f"{name!r} is not an input of the model" for name in inputs if name not in names
        )
        # a missing input is not refused: it may be optional, which the metadata does not say
    if isinstance(outputs, str):
        yield f"outputs={outputs!r} is a text; give a list of names"
    elif outputs is not None and metadata.outputs:
        names = [tensor.name for tensor in metadata.outputs]
        unknown = [name for name in outputs if name not in names]
        yield from (
            f"{name!r} is not an output of the model: it has {', '.join(names)}" for name in unknown
        )


def _checked(
    name: str, value: Any, tensor: Tensor | None, has_binary: bool
) -> tuple[str, np.ndarray[Any, Any]]:
    """Return the protocol's type and the array to send.

    Raises:
        ValueError: The value does not match; its text names the problem.
    """
    array = _array(name, value)
    datatype = tensor.datatype if tensor else _datatype(name, array)
    array = (
        _as_bytes(array)
        if datatype == TEXTS
        else _cast(name, array, datatype, has_dtype=_has_dtype(value))
    )
    if tensor and not _fits(array.shape, tensor.shape):
        raise ValueError(
            f"{name!r} has the shape {_shape(array.shape)}, expected {_shape(tensor.shape)}"
        )
    if not has_binary:
        _refuse_json(name, array, datatype)
    return datatype, array


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, str | bytes):
        raise ValueError(
            f"{name!r} is a single {type(value).__name__}; give a list or an array, which has a "
            "shape"
        )
    try:
        array = np.asarray(value)
        # NumPy's type for bytes drops zeros at the end; objects keep them
        is_bytes = array.dtype.kind == "S" and not _has_dtype(value)
        return np.array(value, dtype=object) if is_bytes else array
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name!r} is not an array: {error}") from error


def _has_dtype(value: Any) -> bool:
    """Return whether the caller chose the type: lists of Python numbers have none."""
    return hasattr(value, "dtype")


def _datatype(name: str, array: np.ndarray[Any, Any]) -> str:
    if array.dtype.kind in "OSU":
        return TEXTS
    datatype = np_to_triton_dtype(array.dtype)
    if datatype is None:
        raise ValueError(f"{name!r} has the type {array.dtype}, which the protocol cannot express")
    return str(datatype)


def _cast(
    name: str, array: np.ndarray[Any, Any], datatype: str, *, has_dtype: bool
) -> np.ndarray[Any, Any]:
    numpy_type = triton_to_np_dtype(datatype)
    if numpy_type is None:
        raise ValueError(f"{name!r} is of the type {datatype}, which this client does not know")
    dtype = np.dtype(numpy_type)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "OSUV" and np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype)
    # A list of Python numbers arrives as int64 or float64, which its author did not choose: it may
    # become any type of the model whose range holds the values.
    if (
        not has_dtype
        and array.dtype.kind in "biuf"
        and np.can_cast(array.dtype, dtype, "same_kind")
    ):
        return _from_numbers(name, array, dtype, datatype)
    if not has_dtype and array.dtype.kind == "i" and dtype.kind == "u":
        return _from_numbers(name, array, dtype, datatype)
    way = (
        f"if it may, give it as .astype(np.{dtype})"
        if array.dtype.kind in "biuf"
        else "give numbers"
    )
    raise ValueError(
        f"{name!r} has the type {array.dtype}, expected {datatype} ({dtype}): that cast may lose "
        f"something; {way}"
    )


def _from_numbers(
    name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any], datatype: str
) -> np.ndarray[Any, Any]:
    """Return a list's numbers in the model's type: round floats, refuse values out of range."""
    # the comparison below finds what did not fit
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    is_out = (cast != array) if dtype.kind in "iu" else np.isinf(cast) & ~np.isinf(array)
    if np.any(is_out):
        raise ValueError(
            f"{name!r} holds {array[is_out].flat[0]}, which is out of the range of {datatype}"
        )
    return cast


def _as_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of objects that are `bytes`."""
    texts = np.empty(array.shape, dtype=object)
    for index, item in np.ndenumerate(array):
        if not isinstance(item, str | bytes):
            raise ValueError(f"expected a text, but {item!r} is a {type(item).__name__}")
        texts[index] = item.encode() if isinstance(item, str) else bytes(item)
    return texts


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        model_size in (-1, size) for size, model_size in zip(shape, expected, strict=True)
    )


def _refuse_json(name: str, array: np.ndarray[Any, Any], datatype: str) -> None:
    """Raise for values that JSON cannot express, if the server accepts only JSON."""
    reason = ""
    if datatype == "BF16":
        reason = "BF16"
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        reason = "NaN or infinity"
    elif datatype == TEXTS and not all(_is_text(item) for item in array.flat):
        reason = "bytes that are not UTF-8"
    if reason:
        raise ValueError(
            f"{name!r} contains {reason}, but this server accepts tensors only as JSON, which "
            "cannot express that"
        )


def _is_text(item: bytes) -> bool:
    try:
        item.decode()
    except UnicodeDecodeError:
        return False
    return True


def _input(name: str, datatype: str, array: np.ndarray[Any, Any], metadata: Metadata) -> InferInput:
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=metadata.has_binary)
    return tensor


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
