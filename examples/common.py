"""What the examples share: the folder that they write to, pictures where Matplotlib is there, checks of ONNX files."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx


def run(main: Callable[[Path], object], description: str | None, train: Callable[[Path], object] | None = None) -> None:
    """Run an example from the command line: ``python -m examples.xor --out folder``.

    Args:
        main: the example.
        description: its docstring.
        train: what ``--check`` runs instead: a real training, which takes minutes and checks what it reaches.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="where pictures and ONNX files go")
    if train is not None:
        parser.add_argument("--check", action="store_true", help="train for real, and check what is reached")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    (train if train is not None and given.check else main)(given.out)


def draw(path: Path, paint: Callable[[Any], None], columns: int = 1, width: float = 5.0) -> None:
    """Let a function paint on the axes of a new figure, and write it; without Matplotlib, say so.

    Args:
        path: the picture.
        paint: gets the axes, or an array of them if there are several columns.
        columns: pictures beside each other.
        width: of each, in inches.
    """
    if importlib.util.find_spec("matplotlib") is None:
        print(f'not drawn: {path.name} needs Matplotlib (pip install "graphc[plot]")')
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, 4.2), layout="constrained")
    paint(figure.subplots(1, columns))
    figure.savefig(path)
    print(f"wrote {path.name}")


def f32(values: Any) -> np.ndarray:
    """An array in single precision."""
    return np.array(values, np.float32)


def check(program: Any, path: Path, steps: int = 1, **inputs: np.ndarray) -> None:
    """Write a program as ONNX and run the file in onnxruntime beside it.

    Args:
        program: a prediction or a step of training.
        path: the file.
        steps: how many steps are compared.
        inputs: arrays for its inputs; default random ones.
    """
    gx.onnx.export(program, path)
    if importlib.util.find_spec("onnxruntime") is None:
        print(f"not checked: {path.name} needs onnxruntime")
        return
    report = gx.onnx.verify(path, program, steps=steps, inputs=inputs or None)
    if not report.ok:
        raise SystemExit(str(report))
    print(f"onnxruntime agrees: {path.name}, {steps} step{'s' * (steps > 1)}")
