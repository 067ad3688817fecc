"""Mistakes outside of the graph: backends that are not there, plug-ins that fail, files that are damaged."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphc as gx
from graphc import Input, Sequential, backend, layers
from graphc.backends.numba import blas
from graphc.ir.op import registry
from graphc.ir.text import parse_graph, print_graph
from tests.spine.mistakes import Mistakes, World

CASES = Mistakes()
bad = CASES.bad

# backends


@bad("backend", gx.BackendError, "'nunba'", "numba", "reference")
def an_unknown_backend(w: World) -> None:
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="nunba")  # here


@dataclass(frozen=True)
class Point:
    """Stands for an entry point."""

    name: str
    load: Callable[[], object]


def _install(w: World, load: Callable[[], object]) -> None:
    w.patch.setattr(backend, "_entry_points", lambda: {"plugged": Point("plugged", load)})


@bad("backend", gx.BackendError, "'plugged'", "No module named 'half_installed'", "reinstall")
def a_plug_in_that_cannot_be_imported(w: World) -> None:
    def load() -> object:
        raise ModuleNotFoundError("No module named 'half_installed'")

    _install(w, load)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="plugged")  # here


@bad("backend", gx.BackendError, "'plugged'", "graphc.backend.Backend")
def a_plug_in_that_is_something_else(w: World) -> None:
    _install(w, lambda: object())
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="plugged")  # here


class Faulty:
    """A backend that fails while it compiles."""

    name, priority, lowers = "plugged", 0, False

    def available(self) -> str | None:
        return None

    def takes(self, op: object) -> bool:
        return True

    def compile(self, plan: object) -> Any:
        raise ZeroDivisionError("of its own")


@bad("backend", gx.BackendError, "'plugged'", "ZeroDivisionError: of its own")
def a_plug_in_that_fails_while_it_compiles(w: World) -> None:
    _install(w, Faulty)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="plugged")  # here


class Mute(Faulty):
    """A backend that cannot even say whether it runs here."""

    def available(self) -> str | None:
        raise OSError("no driver")


@bad("backend", gx.BackendError, "'plugged'", "OSError: no driver", "reinstall")
def a_plug_in_that_fails_while_it_is_asked(w: World) -> None:
    _install(w, Mute)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="auto")
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="plugged")  # here


@bad("backend", gx.BackendError, "'numba'", "numba is missing", "pip install numba")
def a_missing_package(w: World) -> None:
    w.patch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="numba")  # here


@bad("backend", gx.BackendError, "'numba'", "scipy-openblas64", "pip install scipy-openblas64")
def missing_openblas(w: World) -> None:
    w.patch.setattr(blas, "library_path", lambda: None)
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="numba")  # here


@bad("backend", gx.BackendError, "broken.so", "force-reinstall scipy-openblas64")
def broken_openblas(w: World) -> None:
    library = w.path / "broken.so"
    library.write_bytes(b"no library")
    w.patch.setattr(blas, "library_path", lambda: library)
    blas._library.cache_clear()
    try:
        gx.compile({"y": w.table @ w.table}, inputs=[], backend="numba")  # here
    finally:
        blas._library.cache_clear()


@bad("backend", gx.BackendError, "'cupy'", "doctor")
def a_gpu_that_is_not_there(w: World) -> None:
    gx.compile({"y": w.bias + 1.0}, inputs=[], backend="cupy")  # here


# files


def _saved(w: World) -> Path:
    model = Sequential([Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", backend="reference")
    model.save(w.path / "model")
    return w.path / "model"


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@bad("cache or file", gx.FileError, "no saved model", file="nowhere")
def a_missing_folder(w: World) -> None:
    gx.load_model(w.path / "nowhere")


@bad("cache or file", gx.FileError, "damaged", file="model.json")
def text_that_ends_early(w: World) -> None:
    _cut(_saved(w) / "model.json")
    gx.load_model(w.path / "model")


@bad("cache or file", gx.FileError, "not what was saved", file="arrays-")
def arrays_that_end_early(w: World) -> None:
    (arrays,) = _saved(w).glob("arrays-*")
    _cut(arrays)
    gx.load_model(w.path / "model")


@bad("cache or file", gx.FileError, "format 99", file="model.json")
def another_format(w: World) -> None:
    path = _saved(w) / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    gx.load_model(w.path / "model")


@bad("cache or file", gx.FileError, "cannot be written", file="taken")
def a_file_in_the_folders_place(w: World) -> None:
    (w.path / "taken").write_text("")
    Sequential([Input((3,)), layers.Dense(2)]).save(w.path / "taken" / "model")


@bad("cache or file", gx.FileError, "cannot write", "make it first", file="missing")
def an_export_into_a_missing_folder(w: World) -> None:
    gx.onnx.export(w.steps["train"], w.path / "missing" / "step.onnx")


@bad("cache or file", gx.FileError, "step.onnx", file="step.onnx")
def an_exported_file_that_ends_early(w: World) -> None:
    gx.onnx.export(w.steps["train"], w.path / "step.onnx")
    _cut(w.path / "step.onnx")
    gx.onnx.verify(w.path / "step.onnx", w.steps["train"])


@bad("cache or file", gx.ParseError, "line 3", "%9")
def graph_text_that_was_changed(w: World) -> None:
    a = gx.placeholder("a", (3,))
    text = print_graph(gx.compile({"y": gx.exp(gx.tanh(a))}, inputs=[a], backend="reference").graph)
    parse_graph(text.replace("tanh(%0)", "tanh(%9)"), registry)  # here
