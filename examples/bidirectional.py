"""Both directions: what a step cannot know yet, the way back does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Say of each step whether the next number is positive: impossible from the past, easy from the future."""
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (256, 10, 1)).astype(np.float32)
    y = np.concatenate([x[:, 1:] > 0, np.zeros((256, 1, 1), bool)], 1).astype(np.float32)
    curves: dict[str, list[float]] = {}
    for name, layer in (
        ("forward only", layers.LSTM(6, return_sequences=True)),
        ("both ways", layers.Bidirectional(layers.LSTM(6, return_sequences=True))),
    ):
        gx.set_seed(0)
        model = Sequential([Input((None, 1)), layer, layers.Dense(1, "sigmoid")])
        model.compile(gx.optimizers.Adam(0.03), "binary_crossentropy", metrics=["accuracy"])
        curves[name] = model.fit(x, y, epochs=15, batch_size=32, verbose=0).history["accuracy"]
        print(f"{name}: {model.layers[0].output.shape[-1]} features, {curves[name][-1]:.0%} right")
    check(model.programs["predict"], out / "bidirectional.onnx", input_layer=x[:2])

    for mode in ("concat", "sum", "mul", "ave"):
        pattern = layers.GRU(6, return_sequences=True)
        shape = layers.Bidirectional(pattern, merge_mode=mode)(gx.placeholder("x", ("batch", "time", 1))).shape
        print(f"merge_mode={mode!r}: {shape[-1]} features")

    def paint(axes: Any) -> None:
        for name, values in curves.items():
            axes.plot(values, label=name)
        axes.set(xlabel="epoch", ylabel="accuracy", title="is the next number positive?")
        axes.legend()

    draw(out / "bidirectional.svg", paint)


if __name__ == "__main__":
    run(main, __doc__)
