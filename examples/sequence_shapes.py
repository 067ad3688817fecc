"""The five shapes of inputs and outputs: one or many steps in, one or many out, of the same length or another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, run
from graphc import Input, Model, Sequential, layers


def one_to_one() -> Model:
    """No sequence at all: an ordinary network."""
    return Sequential([Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)])


def one_to_many() -> Model:
    """One vector begins a sequence, as a picture its caption."""
    return Sequential(
        [Input((4,)), layers.RepeatVector(6), layers.SimpleRNN(8, return_sequences=True), layers.Dense(3)]
    )


def many_to_one() -> Model:
    """A sequence is read to its end, as a review whose mood is asked for."""
    return Sequential([Input((None, 4)), layers.LSTM(8), layers.Dense(1, "sigmoid")])


def many_to_many() -> Model:
    """An output for each step, as labels of the frames of a film."""
    return Sequential(
        [Input((None, 4)), layers.GRU(8, return_sequences=True), layers.TimeDistributed(layers.Dense(2, "softmax"))]
    )


def many_to_many_of_another_length() -> Model:
    """An encoder reads all, its last state begins the decoder, as in translation."""
    source, target = Input((None, 4), name="source"), Input((None, 3), name="target")
    _, state = layers.GRU(8, return_state=True)(source)
    decoded = layers.GRU(8, return_sequences=True)(target, initial_state=state)
    return Model([source, target], layers.Dense(3, "softmax")(decoded))


SHAPES = (one_to_one, one_to_many, many_to_one, many_to_many, many_to_many_of_another_length)


def main(out: Path) -> None:
    """Build each, feed two lengths where the length is free, draw and export it."""
    rng = np.random.default_rng(0)
    for build in SHAPES:
        gx.set_seed(0)
        name = build.__name__
        model = build()
        for time in (5, 7):
            arrays: dict[str, Any] = {
                layer.name: rng.standard_normal((2, *(time + n if isinstance(size, gx.Dim) else size
                                                      for size in layer.type.shape[1:]))).astype(np.float32)
                for n, layer in enumerate(model.input_layers)
            }  # fmt: skip
            outputs = model.programs["predict"].call(list(arrays.values()))[0]
            shapes = " and ".join(str(array.shape) for array in arrays.values())
            print(f"{name.replace('_', ' ')}: {shapes} -> {outputs.shape}")
            if len(next(iter(arrays.values())).shape) == 2:
                break
        model.plot(out / f"{name}.svg")
        check(model.programs["predict"], out / f"{name}.onnx", **arrays)


if __name__ == "__main__":
    run(main, __doc__)
