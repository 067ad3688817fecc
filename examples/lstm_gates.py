"""The gates of an LSTM: what is forgotten, written and shown, with numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run
from graphc import layers


def logit(share: np.ndarray) -> np.ndarray:
    """What a gate's sigmoid makes a share of."""
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(share / (1 - share))


def main(out: Path) -> None:
    """Set the forget gate by its bias, apply it to a memory; then watch the gates of a cell over a sequence."""
    keep, memory = np.array([0.1, 0.9, 0.3, 1.0]), np.array([[5, 3, 2, 1]])
    cell = layers.LSTMCell(4)
    x, h, c = gx.placeholder("x", (1, 1)), gx.placeholder("h", (1, 4)), gx.placeholder("c", (1, 4))
    _, (_, after) = cell(x, [h, c])
    closed, opened = np.full(4, -50.0), np.full(4, 50.0)
    bias = np.concatenate([closed, logit(keep), np.zeros(4), opened])  # i, f, c, o: nothing is written, all is shown
    cell.set_weights([np.zeros((1, 16)), np.zeros((4, 16)), bias])
    step = gx.compile({"c": after}, inputs=[x, h, c], backend="numba")
    found = step(x=f32([[0]]), h=np.zeros((1, 4), np.float32), c=f32(memory))["c"]
    print(f"forget gate {keep.tolist()} x memory {memory[0].tolist()} = {np.round(found[0].astype(float), 3).tolist()}")

    # a latch: input 1 opens the input gate, input -1 closes the forget gate, 0 keeps what is there
    latch = layers.LSTM(1, return_sequences=True)
    series = gx.placeholder("x", ("batch", "time", 1))
    y = latch(series)
    latch.set_weights([f32([[20, 10, 6, 0]]), np.zeros((1, 4)), f32([-10, 5, 0, 10])])
    program = gx.compile({"h": y}, inputs=[series], backend="numba")
    signal = f32([0, 0, 1, 0, 0, 0, -1, 0, 0, 1, 0, 0])
    shown = program(x=signal[None, :, None])["h"][0, :, 0]
    print("input: ", signal.astype(int).tolist())
    print("output:", [round(float(value), 1) + 0.0 for value in shown])

    def paint(axes: Any) -> None:
        kernel, _, bias = latch.get_weights()
        gates = 1 / (1 + np.exp(-(signal[:, None] * kernel[0] + bias)))
        axes.step(range(len(signal)), signal, "k--", where="mid", label="input")
        axes.step(range(len(signal)), gates[:, 0], where="mid", label="input gate")
        axes.step(range(len(signal)), gates[:, 1], where="mid", label="forget gate")
        axes.step(range(len(signal)), shown, where="mid", label="output", linewidth=3, alpha=0.5)
        axes.set(xlabel="time step", title="a memory that is set and erased")
        axes.legend()

    draw(out / "lstm_gates.svg", paint)
    check(program, out / "lstm_gates.onnx", x=signal[None, :, None])


if __name__ == "__main__":
    run(main, __doc__)
