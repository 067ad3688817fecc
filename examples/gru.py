"""The gated recurrent unit: two gates, one state, three quarters of an LSTM's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Count weights, close and open the update gate, and let both kinds learn the mean of the last three steps."""
    rng = np.random.default_rng(0)
    for kind in (layers.SimpleRNN, layers.GRU, layers.LSTM):
        print(f"{kind.__name__}(16) over 8 features: {Sequential([Input((None, 8)), kind(16)]).count_params()} weights")

    x, h = gx.placeholder("x", (1, 2)), gx.placeholder("h", (1, 2))
    cell = layers.GRUCell(2, use_bias=True, reset_after=False)
    _, (after,) = cell(x, [h])
    step = gx.compile({"h": after}, inputs=[x, h], backend="numba")
    for kept in (1, 0):  # ours is h = z * h_prev + (1 - z) * candidate
        bias = np.repeat([50.0 if kept else -50.0, 0.0, 0.5], 2)
        cell.set_weights([np.zeros((2, 6)), np.zeros((2, 6)), bias])
        new = step(x=np.ones((1, 2), np.float32), h=np.full((1, 2), 0.25, np.float32))["h"]
        print(f"z = {kept}: h_prev = 0.25, candidate = tanh(0.5) = 0.4621, h = {float(new[0, 0]):.4f}")

    data = rng.uniform(0, 1, (256, 12, 1)).astype(np.float32)
    target = data[:, -3:].mean(1)
    histories: dict[str, list[float]] = {}
    for kind in (layers.GRU, layers.LSTM):
        gx.set_seed(0)
        model = Sequential([Input((None, 1)), kind(8), layers.Dense(1)])
        model.compile(gx.optimizers.Adam(0.02), "mse")
        histories[kind.__name__] = model.fit(data, target, epochs=15, batch_size=32, verbose=0).history["loss"]
        share = float(np.mean((model.predict(data, verbose=0) - target) ** 2) / target.var())
        print(f"{kind.__name__}: part of the variance left {'below' if share < 0.2 else 'above'} 20%")
        check(model.programs["predict"], out / f"{kind.__name__.lower()}.onnx", input_layer=data[:3])

    def paint(axes: Any) -> None:
        for name, losses in histories.items():
            axes.semilogy(losses, label=name)
        axes.set(xlabel="epoch", ylabel="mean squared error", title="the mean of the last three steps")
        axes.legend()

    draw(out / "gru.svg", paint)


if __name__ == "__main__":
    run(main, __doc__)
