"""ONNX files and onnxruntime: opening them with errors that say what to do."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from graphc.errors import BackendError, FileError
from graphc.ir.types import DType

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

_ERRORS_ONLY = 3
_BFLOAT16 = "tensor(bfloat16)"


def read_model(path: str | os.PathLike[str]) -> ModelProto:
    """Parse an ONNX file.

    Raises:
        FileError: it cannot be read, or is not an ONNX model.
    """
    try:
        model = onnx.load(path)
    except OSError as error:
        raise FileError(
            f"cannot read {os.fspath(path)}: {error.strerror}",
            remedy="check the path, or export the program to it first",
        ) from error
    except DecodeError as error:
        raise _damaged(path, "it does not parse") from error
    if not model.graph.output:
        raise _damaged(path, "it holds no graph")
    return model


def _damaged(path: str | os.PathLike[str], why: str) -> FileError:
    return FileError(f"{os.fspath(path)} is not a whole ONNX file: {why}", remedy="export the program to it again")


def open_session(model: ModelProto, path: str | os.PathLike[str]) -> InferenceSession:
    """A model in onnxruntime, on the CPU.

    Raises:
        BackendError: onnxruntime is not installed.
        FileError: it refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            f"onnxruntime cannot be imported: {error}",
            remedy="pip install onnxruntime, or the extra: pip install 'graphc[onnx]'",
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise FileError(
            f"onnxruntime {onnxruntime.__version__} cannot load {os.fspath(path)}: {_first_line(error)}",
            remedy="export it again, at an older opset if onnxruntime is old",
        ) from error


def run_session(
    session: InferenceSession, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str], path: str | os.PathLike[str]
) -> dict[str, NDArray[Any]]:
    """Run a session once.

    Raises:
        FileError: onnxruntime fails while running.
    """
    try:
        results = _run(session, feeds, outputs)
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise FileError(
            f"onnxruntime fails while running {os.fspath(path)}: {_first_line(error)}",
            remedy="export it again; check that the inputs fit the graph",
        ) from error
    return {name: np.asarray(value) for name, value in zip(outputs, results, strict=True)}


def _run(session: InferenceSession, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[Any]:
    types = {value.name: value.type for value in (*session.get_inputs(), *session.get_outputs())}
    if not any(types.get(name) == _BFLOAT16 for name in (*feeds, *outputs)):
        return list(session.run(list(outputs), dict(feeds)))
    # onnxruntime takes and gives bfloat16 as bits only
    values = {name: _as_value(array, types[name]) for name, array in feeds.items()}
    return [_as_array(value) for value in session.run_with_ort_values(list(outputs), values)]


def _as_value(array: NDArray[Any], type: str) -> OrtValue:
    from onnxruntime import OrtValue

    if type != _BFLOAT16:
        return OrtValue.ortvalue_from_numpy(np.asarray(array))
    bits = np.ascontiguousarray(array).view(np.uint16)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)


def _as_array(value: OrtValue) -> NDArray[Any]:
    if value.data_type() != _BFLOAT16:
        return value.numpy()
    size = DType.bfloat16.itemsize * math.prod(value.shape())
    bits = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bits, DType.bfloat16.numpy).reshape(value.shape())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
