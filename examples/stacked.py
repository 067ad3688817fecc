"""Stacked recurrent layers: each hands the sequence of its states to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import graphc as gx
from examples.common import check, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """A stack of layers and a stack of cells are the same; the number of loops is that of layers, or one."""
    gx.set_seed(0)
    rng = np.random.default_rng(0)
    deep = Sequential(
        [
            Input((None, 3)),
            layers.LSTM(8, return_sequences=True),  # lower layers see short pieces
            layers.LSTM(8, return_sequences=True),
            layers.LSTM(8),  # the last one sums up
            layers.Dense(1),
        ]
    )
    for layer in deep.layers[:3]:
        print(f"{layer.name}: {layer.output.shape[1:]}, {layer.count_params()} weights")
    cells = Sequential([Input((None, 3)), layers.RNN([layers.LSTMCell(8) for _ in range(3)]), layers.Dense(1)])
    cells.set_weights(deep.get_weights())
    x = rng.standard_normal((4, 9, 3)).astype(np.float32)
    a, b = (model.predict(x, verbose=0) for model in (deep, cells))
    print(f"three layers, three cells in one layer: the same outputs: {np.allclose(a, b, atol=1e-6)}")
    loops = [len(model.programs["predict"].plan.loops) for model in (deep, cells)]
    print(f"loops in the compiled program: {loops[0]} and {loops[1]}")
    deep.compile(gx.optimizers.Adam(0.01), "mse")
    losses = deep.fit(x, x.mean((1, 2))[:, None], epochs=60, batch_size=4, verbose=0).history["loss"]
    print(f"trained: the loss fell below a tenth: {losses[-1] < 0.1 * losses[0]}")
    deep.plot(out / "stacked.svg")
    check(deep.programs["predict"], out / "stacked.onnx", input_layer=x)


if __name__ == "__main__":
    run(main, __doc__)
