"""The three ways to present an architecture: a table, a drawn graph, equations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import graphc as gx
from examples.common import check, run
from graphc import Input, Model, Sequential, layers


def main(out: Path) -> None:
    """The network of 41 parameters, and one with a branch."""
    gx.set_seed(0)
    model = Sequential(
        [Input((3,)), layers.Dense(4, "relu"), layers.Dense(4, "relu"), layers.Dense(1, "sigmoid")], name="mlp"
    )
    model.summary(show_trainable=True)
    for weight in model.weights:
        print(f"{weight.label}: {' x '.join(map(str, weight.shape))} = {weight.type.size}")
    print(f"trainable parameters: {model.count_params()}")
    model.plot(out / "presenting-mlp.svg")
    print(model.latex())

    x = Input((8,), name="x")
    h = layers.Dense(8, "relu", name="first")(x)
    skip = layers.Add(name="skip")([layers.Dense(8, "tanh", name="second")(h), h])
    branched = Model(x, [layers.Dense(3, "softmax", name="kind")(skip), layers.Dense(1, name="size")(skip)])
    branched.plot(out / "presenting-branched.svg")
    (out / "presenting.tex").write_text(branched.latex(document=True), encoding="utf-8")
    print("wrote presenting-mlp.svg, presenting-branched.svg, presenting.tex")
    kind, size = branched.predict(np.zeros((2, 8)), verbose=0)
    print(f"outputs: {kind.shape} and {size.shape}")
    check(branched.programs["predict"], out / "presenting.onnx")


if __name__ == "__main__":
    run(main, __doc__)
