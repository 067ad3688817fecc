"""A recurrent net unrolled and folded: the same steps written out, and as one loop whose graph does not grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers


def unrolled(cell: layers.SimpleRNNCell, x: gx.Node, steps: int) -> list[gx.Node]:
    """h_t = tanh(x_t W_xh + h_{t-1} W_hh + b) for each step: the same weights, the output fed back."""
    state = cell.get_initial_state(x.shape[0])
    outputs: list[gx.Node] = []
    for t in range(steps):
        output, state = cell(x[:, t], state)
        outputs.append(output)
    return outputs


def main(out: Path) -> None:
    """Compare values, gradients, and the size of the graphs."""
    gx.set_seed(0)
    rng = np.random.default_rng(0)
    cell = layers.SimpleRNNCell(3)
    folded = layers.RNN(cell, return_sequences=True)
    for steps in (4, 8):
        x = gx.placeholder("x", ("batch", steps, 2))
        sides = {"unrolled": gx.stack(unrolled(cell, x, steps), axis=1), "folded": folded(x)}
        value = rng.standard_normal((5, steps, 2)).astype(np.float32)
        found: dict[str, list[np.ndarray]] = {}
        for name, y in sides.items():
            gradients = gx.grad(gx.sum(y * y), cell.weights)
            outputs = {"y": y, **{f"d{i}": g for i, g in enumerate(gradients)}}
            program = gx.compile(outputs, inputs=[x], backend="numba")
            found[name] = list(program(x=value).values())
            print(f"{name}, {steps} steps: {len(program.text('graph').splitlines()) - 2} nodes with gradients")
        largest = max(float(np.abs(a - b).max()) for a, b in zip(found["unrolled"], found["folded"], strict=True))
        print(f"largest difference of outputs and gradients: {'below 1e-5' if largest < 1e-5 else largest}")

    time = gx.placeholder("x", ("batch", "time", 2))
    program = gx.compile({"h": folded(time)}, inputs=[time], backend="numba")
    wave = np.sin(np.arange(40) / 3)[None, :, None] * np.ones(2)
    states = program(x=wave.astype(np.float32))["h"]
    print(f"one program for any length: {states.shape}")

    def paint(axes: Any) -> None:
        axes.plot(wave[0, :, 0], "k--", label="input")
        axes.plot(states[0], label=["h[0]", "h[1]", "h[2]"])
        axes.set(xlabel="time step", title="the state is the memory")
        axes.legend()

    draw(out / "unrolled.svg", paint)
    check(program, out / "unrolled.onnx", x=wave.astype(np.float32))


if __name__ == "__main__":
    run(main, __doc__)
