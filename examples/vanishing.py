"""Vanishing and exploding gradients made visible: how much the loss feels of each time step's state.

The gradient by the state after step t is a product of as many Jacobians as there are steps behind it. Adding zeros to
every state and differentiating by them shows it without taking the loop apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run
from graphc import initializers, layers

STEPS, UNITS, BATCH = 40, 16, 8


def norms_program(cell: Any) -> Any:
    """A program whose result is, for each time step, the norm of the gradient of a loss at the end by its states."""
    x = gx.placeholder("x", (STEPS, BATCH, UNITS))
    goal = gx.placeholder("goal", (BATCH, UNITS))
    states = cell.get_initial_state(BATCH)
    zeros = [gx.placeholder(f"zeros{i}", (STEPS, *state.shape)) for i, state in enumerate(states)]

    def step(state: list[Any], given: list[Any]) -> tuple[list[Any], None]:
        _, after = cell(given[0], state)
        return [value + nudge for value, nudge in zip(after, given[1:], strict=True)], None

    last, _ = gx.scan(step, states, [x, *zeros])
    loss = gx.mean((last[0] - goal) ** 2)
    squares = [gx.sum(gradient * gradient, axis=(1, 2)) for gradient in gx.grad(loss, zeros)]
    return gx.compile({"norms": gx.sqrt(sum(squares[1:], squares[0]))}, inputs=[x, goal, *zeros])


def recurrent(factor: float) -> Any:
    """A simple recurrent net whose recurrent matrix makes every vector longer by a factor."""
    return layers.SimpleRNNCell(UNITS, recurrent_initializer=initializers.Orthogonal(gain=factor))


def lstm(forget: float) -> Any:
    """An LSTM whose forget gate begins at ``sigmoid(forget)``."""
    cell = layers.LSTMCell(UNITS, unit_forget_bias=False)
    cell(gx.placeholder("x", (BATCH, UNITS)), cell.get_initial_state(BATCH))
    bias = cell.bias
    if bias is not None:
        bias.value = np.repeat(f32([0, forget, 0, 0]), UNITS)
    return cell


def main(out: Path) -> None:
    """Five cells before training, the same small inputs."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "x": (1e-4 * rng.standard_normal((STEPS, BATCH, UNITS))).astype(np.float32),
        "goal": rng.standard_normal((BATCH, UNITS)).astype(np.float32),
    }
    gx.set_seed(0)
    cells = {
        "simple, 0.7 a step": recurrent(0.7),
        "simple, 1.0 a step": recurrent(1.0),
        "simple, 1.2 a step": recurrent(1.2),
        "LSTM, forget bias 0": lstm(0.0),
        f"LSTM, forget bias log({STEPS})": lstm(float(np.log(STEPS))),
    }
    curves: dict[str, np.ndarray] = {}
    for number, (name, cell) in enumerate(cells.items()):
        program = norms_program(cell)
        given = arrays | {
            key: np.zeros((STEPS, BATCH, UNITS), np.float32) for key in program.input_names if "zeros" in key
        }
        curves[name] = norms = program(**given)["norms"]
        ratio = (norms[0] / norms[-1]) ** (1 / (STEPS - 1))
        print(f"{name}: {norms[-1]:.1e} at the last step, {norms[0]:.1e} at the first: times {ratio:.3f} a step")
        if number in (0, 3):
            check(program, out / f"vanishing-{number}.onnx", 1, **given)
    print(f"by hand: 0.7 ** {STEPS - 1} = {0.7 ** (STEPS - 1):.1e}, 1.2 ** {STEPS - 1} = {1.2 ** (STEPS - 1):.1e}")

    def paint(axes: Any) -> None:
        for name, norms in curves.items():
            axes.plot(np.arange(1, STEPS + 1), norms, label=name)
        axes.set(xlabel="time step", ylabel="norm of the gradient by its state", yscale="log")
        axes.legend()

    draw(out / "vanishing.svg", paint)


if __name__ == "__main__":
    run(main, __doc__)
