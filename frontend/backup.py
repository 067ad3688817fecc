"""A training that is under way, in one file: everything that it needs to go on bit for bit.

The file is safetensors: the arrays of the model, its optimizer, its random numbers, its metrics and its callbacks; and
as metadata, in JSON, where training stands. It is replaced at once, so that whenever the process is killed there is the
old state or the new one, whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import graphc as gx
from graphc.errors import FileError, GraphError
from graphc.frontend.config import user_line
from graphc.frontend.files import read_tensors, write_tensors
from graphc.frontend.loop import Fit, Position
from graphc.frontend.saving import find_state
from graphc.ir.node import Parameter

if TYPE_CHECKING:
    from graphc.frontend.callbacks_base import Callback
    from graphc.frontend.model import Model

FORMAT = 1
Arrays = dict[str, Any]


def write_backup(path: Path, model: Model, callbacks: Sequence[Callback]) -> None:
    """Replace the file by what training is now.

    Raises:
        FileError: the file cannot be written.
    """
    fit = _running(model)
    arrays: Arrays = {name: parameter.value for name, parameter in _parameters(model).items()}
    text = {
        "format": FORMAT,
        "graphc": gx.__version__,
        "position": _packed(asdict(fit.position), arrays),
        "epochs_begun": model.epochs_begun,
        "stop_training": model.stop_training,
        "steps": fit.loop.batches.count,
        "taken": [fit.loop.batches.taken, 0 if fit.validation is None else fit.validation.taken],
        "callbacks": [[type(one).__name__, _packed(one.get_state(), arrays)] for one in callbacks],
    }
    write_tensors(path, arrays, {"fit": json.dumps(text)})


def read_backup(path: Path, model: Model, callbacks: Sequence[Callback]) -> bool:
    """Put training back to where the file was written; whether there is such a file.

    Raises:
        FileError: the file is damaged, or belongs to another model or another call of ``fit``.
    """
    if not path.exists():
        return False
    fit = _running(model)
    arrays, metadata = read_tensors(path)
    try:
        text = json.loads(metadata["fit"])
        if text["format"] != FORMAT:
            raise _differs(path, f"it has format {text['format']}, this graphc reads {FORMAT}")
        if [name for name, _ in text["callbacks"]] != [type(one).__name__ for one in callbacks]:
            raise _differs(path, f"it was written with {', '.join(name for name, _ in text['callbacks'])}")
        if text["steps"] != fit.loop.batches.count:
            raise _differs(path, f"an epoch had {text['steps']} batches, now it has {fit.loop.batches.count}")
        parameters = _parameters(model)
        for name, parameter in parameters.items():
            array = arrays.get(name)
            if array is None or array.shape != parameter.shape or array.dtype != parameter.dtype.numpy:
                raise _differs(path, f"it lacks {name!r} of type {parameter.type}")
        for name, parameter in parameters.items():
            parameter.value = arrays[name]
        for callback, (_, state) in zip(callbacks, text["callbacks"], strict=True):
            callback.set_state(_unpacked(state, arrays))
        model.epochs_begun = int(text["epochs_begun"])
        model.stop_training = bool(text["stop_training"])
        fit.loop.batches.seek(int(text["taken"][0]))
        if fit.validation is not None:
            fit.validation.seek(int(text["taken"][1]))
        vars(fit.position).update(asdict(Position(**_unpacked(text["position"], arrays))))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FileError(
            f"{path} is damaged: {type(error).__name__}: {error}", remedy="delete it, and training starts anew"
        ) from error
    return True


def _running(model: Model) -> Fit:
    if model.running is None:
        raise GraphError("no fit is running", at=user_line(), remedy="give the callback to model.fit(callbacks=[...])")
    return model.running


def _parameters(model: Model) -> dict[str, Parameter]:
    """All state of a training by name."""
    found = find_state(model)
    for key, _, metric in model.programs.objective().metrics:
        found.update((f"metrics/{key}/{number}", variable) for number, variable in enumerate(metric.variables))
    return found


def _differs(path: Path, why: str) -> FileError:
    return FileError(
        f"the training in {path} is not this one: {why}",
        at=user_line(),
        remedy="delete the file to start anew, or call fit as it was called then",
    )


def _packed(value: Any, arrays: Arrays) -> Any:
    """Plain data as JSON; arrays go into the table."""
    if isinstance(value, np.ndarray | np.generic):
        name = f"callbacks/{len(arrays)}"
        arrays[name] = np.array(cast("Any", value), order="C")
        return {"array": name, "scalar": isinstance(value, np.generic)}
    if isinstance(value, tuple):
        return {"tuple": [_packed(item, arrays) for item in cast("tuple[Any, ...]", value)]}
    if isinstance(value, list):
        return [_packed(item, arrays) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {"dict": [[key, _packed(item, arrays)] for key, item in cast("dict[Any, Any]", value).items()]}
    return value


def _unpacked(value: Any, arrays: Arrays) -> Any:
    """What :func:`_packed` was given."""
    if isinstance(value, list):
        return [_unpacked(item, arrays) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    entry = cast("dict[str, Any]", value)
    if "array" in entry:
        array = arrays[entry["array"]]
        return array[()] if entry["scalar"] else array
    if "tuple" in entry:
        return tuple(_unpacked(item, arrays) for item in entry["tuple"])
    return {key: _unpacked(item, arrays) for key, item in entry["dict"]}
