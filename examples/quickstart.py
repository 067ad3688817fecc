"""Learn to read handwritten digits, export the model and its training step to ONNX, and check both there.

``python examples/quickstart.py`` writes ``digits.onnx`` and ``digits-train.onnx`` into the current folder.
"""

from __future__ import annotations

import importlib.util
import time

import numpy as np

import graphc as gx
from graphc import Input, Sequential, layers


def main() -> None:
    """Train on four fifths of 1,797 real images, test on the others, export, check."""
    began = time.perf_counter()
    images, labels = gx.data.load_digits()
    x, y = (images / 16).astype(np.float32), labels
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[: len(x) // 5], order[len(x) // 5 :]

    gx.set_seed(0)
    model = Sequential(
        [
            Input((8, 8)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=gx.optimizers.Adam(2e-3),
        loss=gx.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.summary()
    model.fit(x[train], y[train], batch_size=32, epochs=30, verbose=2)
    accuracy = model.evaluate(x[test], y[test], verbose=0, return_dict=True)["accuracy"]
    print(f"test accuracy: {accuracy:.4f}")

    model.export("digits.onnx")
    model.export("digits-train.onnx", training=True)
    print("wrote digits.onnx and digits-train.onnx")
    if importlib.util.find_spec("onnxruntime"):
        check(model, x[test])
    else:
        print("not checked: onnxruntime is not installed")
    print(f"took {time.perf_counter() - began:.1f} s")


def check(model: Sequential, x: np.ndarray) -> None:
    """Run both files in onnxruntime beside graphc."""
    import onnxruntime

    session = onnxruntime.InferenceSession("digits.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: x})
    difference = float(np.abs(outputs - model.predict(x, verbose=0)).max())
    print(f"onnxruntime, digits.onnx: outputs differ by at most {difference:.1e}")
    if difference > 1e-5:
        raise SystemExit("that is more than 1e-5")
    report = gx.onnx.verify("digits-train.onnx", model.programs["train"], steps=100)
    print(f"onnxruntime, digits-train.onnx: {report}")
    if not report.ok:
        raise SystemExit("the training steps differ")


if __name__ == "__main__":
    main()
