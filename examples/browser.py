"""Training goes on in a browser: a page that trains the exported step with onnxruntime-web, and reads what one draws.

``python -m examples.browser --out folder`` writes the page, ``python -m http.server -d folder`` serves it. With
``--check`` the same steps are taken by Node and by graphc, which needs ``node`` and ``npm``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import graphc as gx
from examples.common import run
from graphc import Input, Sequential, layers

PAGE = Path(__file__).parent / "page"
BATCH, STEPS = 32, 100


def digits() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """1,437 digits to train on and 360 others, by the names of the training step's inputs."""
    images, labels = gx.data.load_digits()
    x, y = (images / 16).astype(np.float32), labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[:360], order[360:]
    return {"input_layer": x[train], "target": y[train]}, {"input_layer": x[test], "target": y[test]}


def main(out: Path) -> Sequential:
    """Take a few steps in Python, then write everything that a browser needs to go on."""
    gx.set_seed(0)
    training, test = digits()
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
    model.compile(gx.optimizers.Adam(2e-3), gx.losses.SparseCategoricalCrossentropy(from_logits=True))
    first = slice(0, 10 * BATCH)
    model.fit(training["input_layer"][first], training["target"][first], batch_size=BATCH, verbose=0, shuffle=False)

    model.export(out / "train.onnx", training=True, weights=out / "weights.safetensors")
    model.export(out / "predict.onnx", weights=out / "predict-weights.safetensors")
    (out / "predict-weights.safetensors").unlink()  # those of the training, by the same names, serve both
    save_file(training, out / "training-data.safetensors")
    save_file(test, out / "test-data.safetensors")
    for file in PAGE.iterdir():
        shutil.copy(file, out)
    names = ("train.onnx", "predict.onnx", "weights.safetensors")
    print(", ".join(f"{name} {(out / name).stat().st_size / 1024:.0f} KiB" for name in names))
    print(f"a page after {int(model.optimizer.iterations.value)} steps: python -m http.server -d {out}")
    return model


def train(out: Path) -> None:
    """Take the same steps in onnxruntime-web, under Node, and in graphc, and compare their losses."""
    absent = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if absent:
        raise SystemExit(f"{' and '.join(absent)} not found: install Node, https://nodejs.org")
    model = main(out)
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=out, check=True)
    given = ["train.onnx", "weights.safetensors", "training-data.safetensors", str(BATCH), str(STEPS)]
    command = ["node", "steps.mjs", *given, "trained.safetensors"]
    found = subprocess.run(command, cwd=out, check=True, capture_output=True, text=True)
    there = json.loads(found.stdout)

    data, _ = digits()
    losses, times = [], []
    for step in range(STEPS):
        rows = np.arange(step * BATCH, (step + 1) * BATCH) % len(data["target"])
        x, y = data["input_layer"][rows], data["target"][rows]
        began = time.perf_counter()
        losses.append(float(model.train_on_batch(x, y)))
        times.append(1e3 * (time.perf_counter() - began))
    difference = float(np.abs(np.subtract(losses, there["losses"])).max())
    print(f"{STEPS} steps in onnxruntime-web: loss {there['losses'][0]:.4f} to {there['losses'][-1]:.4f}")
    print(f"losses differ from graphc's by at most {difference:.1e}")
    print(f"a step: {there['step_ms']:.2f} ms there (one thread), {np.median(times):.2f} ms here")
    mine = model.get_weights()
    model.load_weights(out / "trained.safetensors", by_name=True)
    moved = max(float(np.abs(a - b).max()) for a, b in zip(mine, model.get_weights(), strict=True))
    print(f"weights read back differ by at most {moved:.1e}")
    if difference > 1e-4 or moved > 1e-3:
        raise SystemExit("the steps differ")


if __name__ == "__main__":
    run(main, __doc__, train)
