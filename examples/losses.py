"""Loss functions: what they cost a sure, right answer, a sure, wrong one, and an outlier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run


def main(out: Path) -> None:
    """Compute the losses of classification and regression on a few samples."""
    y, p = gx.placeholder("y", ("n", 1)), gx.placeholder("p", ("n", 1))
    one_hot, label = gx.placeholder("one_hot", ("m", 3)), gx.placeholder("label", ("m",), "int64")
    odds = gx.placeholder("odds", ("m", 3))
    program = gx.compile(
        {
            "mse": gx.losses.MeanSquaredError()(y, p),
            "mae": gx.losses.MeanAbsoluteError()(y, p),
            "cross_entropy": gx.losses.CategoricalCrossentropy()(one_hot, odds),
            "sparse_cross_entropy": gx.losses.SparseCategoricalCrossentropy()(label, odds),
        },
        inputs=[y, p, one_hot, label, odds],
        backend="numba",
    )
    binary = gx.compile({"bce": gx.losses.BinaryCrossentropy()(y, p)}, inputs=[y, p], backend="numba")

    for sure in (0.9, 0.1):
        cost = binary(y=f32([[1]]), p=f32([[sure]]))["bce"]
        print(f"actual 1, predicted {sure}: binary cross entropy {cost:.3f}")
    classes: dict[str, Any] = {
        "one_hot": f32([[0, 1, 0]]),
        "label": np.array([1]),
        "odds": f32([[0.2, 0.7, 0.1]]),
    }
    column = np.arange(5, dtype=np.float32)[:, None]
    near, far = (program(y=column, p=column + error, **classes) for error in (_errors(1.0), _errors(10.0)))
    print(f"errors of 1: MSE {near['mse']:g}, MAE {near['mae']:g}")
    print(f"one of them 10: MSE {far['mse']:g}, MAE {far['mae']:g}")
    print(f"categorical {near['cross_entropy']:.4f}, sparse {near['sparse_cross_entropy']:.4f}, -ln 0.7 = 0.3567")

    def paint(axes: Any) -> None:
        at = np.linspace(0.01, 0.99, 99, dtype=np.float32)
        for label, name in ((1.0, "actual 1"), (0.0, "actual 0")):
            costs = [binary(y=f32([[label]]), p=f32([[value]]))["bce"] for value in at]
            axes[0].plot(at, costs, label=name)
        axes[0].set(title="binary cross entropy", xlabel="predicted")
        error = np.linspace(-3, 3, 61)
        axes[1].plot(error, error**2, label="MSE")
        axes[1].plot(error, np.abs(error), label="MAE")
        axes[1].set(title="regression", xlabel="error")
        for axis in axes:
            axis.legend()
            axis.grid(alpha=0.3)

    draw(out / "losses.svg", paint, columns=2)
    check(binary, out / "losses.onnx")


def _errors(last: float) -> np.ndarray:
    return f32([[1], [-1], [1], [-1], [last]])


if __name__ == "__main__":
    run(main, __doc__)
