"""L1 against L2: one makes weights zero, the other makes them small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Twenty inputs, of which three matter."""
    rng = np.random.default_rng(0)
    truth = np.zeros(20)
    truth[:3] = 2, -3, 1
    x = rng.standard_normal((100, 20)).astype(np.float32)
    y = (x @ truth + rng.normal(0, 0.5, 100)).astype(np.float32)

    kernels: dict[str, np.ndarray] = {}
    for name, penalty in (("none", None), ("L1", gx.regularizers.L1(0.2)), ("L2", gx.regularizers.L2(0.2))):
        gx.set_seed(0)
        model = Sequential([Input((20,)), layers.Dense(1, use_bias=False, kernel_regularizer=penalty)])
        model.compile(gx.optimizers.SGD(0.02), "mse")
        model.fit(x, y, batch_size=100, epochs=400, shuffle=False, verbose=0)
        kernels[name] = kernel = model.get_weights()[0][:, 0]
        zeros = int((np.abs(kernel) < 0.02).sum())
        print(f"{name}: {zeros} of 20 weights are about zero, their squares sum to {np.square(kernel).sum():.2f}")
        if name == "L1":
            check(model.programs["train"], out / "regularization-train.onnx", steps=5)

    def paint(axes: Any) -> None:
        for axis, (name, kernel) in zip(axes, kernels.items(), strict=True):
            axis.bar(range(20), kernel)
            axis.set(title=name, ylim=(-3.3, 2.3), xlabel="weight")

    draw(out / "regularization.svg", paint, columns=3, width=4)


if __name__ == "__main__":
    run(main, __doc__)
