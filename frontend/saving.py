"""Models in files: a folder with one readable text and one file of arrays.

``model.json`` holds the layers, how they are connected, and what the model was compiled with; it names the file of
arrays (safetensors) and its digest. Saving first writes the arrays under a new name, then replaces ``model.json`` in
one step: whenever a process is killed, the folder holds the old version or the new one, whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import graphc as gx
from graphc.errors import FileError, GraphcError
from graphc.frontend import tracing
from graphc.frontend.checked import checked
from graphc.frontend.config import Json, deserialize, deserialize_whole, serialize, serialize_whole, user_line
from graphc.frontend.config import register as register
from graphc.frontend.files import decode_tensors, replace_file
from graphc.ir.node import Parameter

if TYPE_CHECKING:
    from graphc.frontend.model import Model

FORMAT = 1
_TEXT = "model.json"
_ARRAYS = ".safetensors"


def save_model(model: Model, path: str | Path) -> None:
    """Write a model into a folder; see ``Model.save``."""
    folder = Path(path)
    state = find_state(model)
    text = {
        "format": FORMAT,
        "graphc": gx.__version__,
        "model": serialize_whole(model),
        "compiled": _compiled(model),
        "epochs_begun": model.epochs_begun,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        from safetensors.numpy import save

        data = save({key: parameter.value for key, parameter in state.items()})
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        arrays = f"arrays-{digest}{_ARRAYS}"
        replace_file(folder / arrays, data)
        text["arrays"] = {"file": arrays, "blake2b": digest}
        replace_file(folder / _TEXT, (json.dumps(text, indent=1) + "\n").encode())
        for old in folder.glob(f"arrays-*{_ARRAYS}"):
            if old.name != arrays:
                with contextlib.suppress(OSError):  # another process may clean up at the same time
                    old.unlink()
    except OSError as error:
        raise FileError(
            f"the model cannot be written to {folder}: {error.strerror or error}",
            at=user_line(),
            remedy="choose a folder that can be written and has room",
        ) from error


@checked
def load_model(path: str | Path, custom_objects: Mapping[str, Any] | None = None, compile: bool = True) -> Model:
    """The model that ``model.save`` wrote.

    Args:
        path: the folder.
        custom_objects: classes and functions of yours by the names under which the file knows them; those that
            ``gx.saving.register`` knows need not be given.
        compile: whether to compile it as it was, with the state of its optimizer.

    Raises:
        FileError: the folder or a file in it is missing or damaged, or names something unknown.
    """
    folder = Path(path)
    text = _read_text(folder)
    arrays = _read_arrays(folder, text)
    try:
        with tracing.new_scope():
            model: Model = deserialize_whole(text["model"], custom_objects)
        if compile and text["compiled"] is not None:
            model.compile(**{key: deserialize(value, custom_objects) for key, value in text["compiled"].items()})
            slots = model.optimizer.slot_names
            named = model.named_weights().items()
            model.optimizer.build([w for key, w in named if any(f"optimizer/{key}/{s}" in arrays for s in slots(w))])
        model.epochs_begun = int(text["epochs_begun"])
        state = find_state(model)
    except FileError as error:
        raise FileError(
            error.message, details=(f"file: {folder / _TEXT}",), at=user_line(), remedy=error.remedy
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, GraphcError) as error:
        raise _damaged(folder / _TEXT, f"{type(error).__name__}: {error}") from error
    for key, parameter in state.items():
        array = arrays.get(key)
        if array is None or array.shape != parameter.shape or array.dtype != parameter.dtype.numpy:
            raise _damaged(folder / text["arrays"]["file"], f"it lacks {key!r} of type {parameter.type}")
    for key, parameter in state.items():
        parameter.value = arrays[key]
    return model


def find_state(model: Model) -> dict[str, Parameter]:
    """Everything that predictions and training depend on, by name."""
    weights = model.named_weights()
    found = {f"weights/{key}": weight for key, weight in weights.items()}
    found.update({"rng/seed": model.rng.seed, "rng/step": model.rng.step})
    if model.compiled is not None:
        model.optimizer.build(model.trainable_weights)
        found.update((f"optimizer/{key}", value) for key, value in model.optimizer.variables(weights).items())
    return found


def _compiled(model: Model) -> Json:
    compiled = model.compiled
    if compiled is None:
        return None
    said = {
        "optimizer": compiled.optimizer,
        "loss": compiled.loss,
        "loss_weights": compiled.loss_weights,
        "metrics": compiled.metrics,
        "weighted_metrics": compiled.weighted_metrics,
        "backend": getattr(compiled.backend, "name", compiled.backend),
        "check_finite": compiled.check_finite,
        "memory_budget": compiled.memory_budget,
        "precision": compiled.precision,
    }
    return {key: serialize(value) for key, value in said.items()}


def _read_text(folder: Path) -> Json:
    path = folder / _TEXT
    try:
        text: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(
            f"there is no saved model at {folder}",
            details=(f"missing: {path}",),
            at=user_line(),
            remedy="give the folder that model.save(path) wrote",
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(text, dict) or not {"format", "model", "arrays"} <= set(cast("dict[str, Json]", text)):
        raise _damaged(path, "it is no model file")
    if text["format"] != FORMAT:
        raise FileError(
            f"{path} has format {text['format']}, this graphc reads format {FORMAT}",
            at=user_line(),
            remedy=f"load it with the graphc that wrote it ({cast('Any', text).get('graphc', 'unknown')})",
        )
    return cast("Json", text)


def _read_arrays(folder: Path, text: Json) -> dict[str, Any]:
    name = str(text["arrays"]["file"])
    path = folder / name
    if Path(name).name != name:
        raise _damaged(folder / _TEXT, f"{name!r} is no file in the folder")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileError(
            f"the arrays of the model at {folder} are missing",
            details=(f"missing: {path}",),
            at=user_line(),
            remedy="copy the whole folder, or save the model again",
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    if hashlib.blake2b(data, digest_size=16).hexdigest() != text["arrays"]["blake2b"]:
        raise _damaged(path, "its content is not what was saved")
    return decode_tensors(data)


def _damaged(path: Path, why: str) -> FileError:
    return FileError(
        f"{path} is damaged: {why}",
        at=user_line(),
        remedy="save the model again, or take the file from a copy that is whole",
    )


def _unreadable(path: Path, error: OSError) -> FileError:
    if isinstance(error, NotADirectoryError):
        return FileError(
            f"{path.parent} is a file, and a saved model is a folder",
            at=user_line(),
            remedy="give the folder that model.save(path) wrote; weights alone are for model.load_weights(file)",
        )
    return FileError(
        f"{path} cannot be read: {error.strerror or error}", at=user_line(), remedy="check its permissions"
    )
