"""Rosenblatt's perceptron: one neuron with a step, and the two ways to tell how it learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import graphc as gx
from graphc.backend import Backend
from graphc.errors import AxisError, DTypeError, GraphError, ShapeError
from graphc.frontend import seeds
from graphc.frontend.checked import Natural, Positive, checked
from graphc.frontend.config import user_line

RULES = ("trick", "delta")


@dataclass(frozen=True, eq=False)
class Line:
    """The line (in general: the hyperplane) where ``w . x + b = 0``.

    Attributes:
        weights: one for each input.
        bias: the constant.
    """

    weights: NDArray[np.float64]
    bias: float

    def at(self, x: Any) -> Any:
        """The second coordinate of the points whose first is x, for two inputs; NaN for an upright line.

        >>> Line(np.array([1.0, 2.0]), -4.0).at(2.0)
        1.0
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(
                self.weights[1] == 0.0, np.nan, -(self.weights[0] * np.asarray(x) + self.bias) / self.weights[1]
            )
        return float(found) if found.ndim == 0 else found


class Perceptron:
    """A neuron ``step(w . x + b)`` that learns from one sample after the other, until it makes no mistakes.

    Both rules look at one sample at a time. ``"trick"`` moves the line by cases: a sample of the positive class on the
    negative side pulls it, ``w += rate * x``, ``b += rate``; a negative one on the positive side pushes it away,
    ``w -= rate * x``, ``b -= rate``. ``"delta"`` says the same in one line, ``w += rate * (y - y_hat) * x``,
    ``b += rate * (y - y_hat)``, since ``y - y_hat`` is 1, -1 or, where nothing is wrong, 0: they move the line alike.

    Without a learning rate (None, which counts as 1) the line jumps by whole samples; with a small one it moves slowly.
    From weights of zero the rate only scales weights and bias; the line is the same. It matters where weights begin
    elsewhere.

    Args:
        rule: ``"trick"`` or ``"delta"``.
        learning_rate: how far a mistake moves the line; None: by the sample itself.
        initializer: ``"zeros"``, ``"normal"``, or the weights and, last, the bias to begin with.
        shuffle: another order of the samples in each epoch, from the seed of ``gx.set_seed``.
        backend: as for ``gx.compile``.

    Attributes:
        lines: the line before training and after each change.
        mistakes: how many mistakes each epoch made; 0 at the end if the classes can be separated by a line.
        converged: whether the last epoch made none.
        classes: the two labels that were found in the data, negative first.
        programs: ``train`` (a step: one sample) and ``predict`` (many samples), once trained.

    Shapes:
        x: float32[n, inputs].
        y: [n], two different labels, such as 0 and 1, or -1 and 1.

    Raises:
        AxisError: an argument is none of those that are known.
        ShapeError, DTypeError: the data is not of these shapes, or has not two classes.

    Source:
        Rosenblatt 1958, The perceptron; that it ends on separable data: Novikoff 1962, On convergence proofs on
        perceptrons.

    >>> x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 0, 0, 1])
    >>> neuron = Perceptron(backend="reference").fit(x, y)
    >>> neuron.predict(x).tolist(), neuron.converged
    ([0, 0, 0, 1], True)
    """

    @checked
    def __init__(
        self,
        rule: str = "delta",
        learning_rate: Positive | None = None,
        initializer: Any = "zeros",
        shuffle: bool = False,
        backend: str | Backend = "auto",
    ) -> None:
        if rule not in RULES:
            raise AxisError(f"no rule is called {rule!r}", at=user_line(), remedy="use 'trick' or 'delta'")
        self.rule = rule
        self.learning_rate = learning_rate
        self.initializer = initializer
        self.shuffle = shuffle
        self.backend = backend
        self.lines: list[Line] = []
        self.mistakes: list[int] = []
        self.classes: tuple[Any, Any] = (0, 1)
        self.programs: dict[str, Any] = {}
        self._ordinal = seeds.next_ordinal()
        self._seed = seeds.derive("perceptron", self._ordinal)

    @property
    def converged(self) -> bool:
        """Whether the last epoch made no mistake."""
        return bool(self.mistakes) and self.mistakes[-1] == 0

    @property
    def line(self) -> Line:
        """The line as it is now."""
        self._trained()
        return Line(np.array(self.weights.value, np.float64), float(self.bias.value))

    @checked
    def fit(self, x: Any, y: Any, epochs: Natural = 1000) -> Self:
        """Learn until an epoch makes no mistake, or for so many epochs.

        Classes that no line separates make mistakes for ever; ``converged`` is False then.
        """
        samples, targets = self._data(x, y)
        self._build(samples.shape[1])
        step = self.programs["train"].call
        self.lines, self.mistakes = [self.line], []
        rows = [(samples[index], targets[index]) for index in range(len(samples))]
        for epoch in range(epochs):
            order: list[int] = list(range(len(rows)))
            if self.shuffle:
                order = seeds.generator("perceptron", self._seed, epoch).permutation(len(rows)).tolist()
            wrong = 0
            for index in order:
                (mistake,) = step(rows[index])
                if mistake:
                    wrong += 1
                    self.lines.append(self.line)
            self.mistakes.append(wrong)
            if not wrong:
                break
        return self

    def predict(self, x: Any) -> NDArray[Any]:
        """The label of each sample; on the line itself it is the positive one."""
        self._trained()
        (found,) = self.programs["predict"].call([self._samples(x)])
        negative, positive = self.classes
        return np.array([positive if side > 0.5 else negative for side in found.tolist()])

    def score(self, x: Any, y: Any) -> float:
        """Which part of the samples gets its label."""
        hits: NDArray[np.bool_] = np.equal(self.predict(x), np.asarray(y))
        return float(hits.mean())

    def export(self, path: str | Path, training: bool = False) -> None:
        """Write an ONNX file: the prediction, or the step of learning with its state as further inputs and outputs."""
        self._trained()
        gx.onnx.export(self.programs["train" if training else "predict"], path)

    def _trained(self) -> None:
        if not self.programs:
            raise GraphError("the perceptron has seen no data", at=user_line(), remedy="call fit(x, y) first")

    def _samples(self, x: Any) -> NDArray[np.float32]:
        samples = np.ascontiguousarray(x, np.float32)
        inputs = self.weights.shape[0] if self.programs else None
        if samples.ndim != 2 or 0 in samples.shape or inputs not in (None, samples.shape[1]):
            wanted = "n, inputs" if inputs is None else f"n, {inputs}"
            raise ShapeError(
                f"x has shape {samples.shape}", at=user_line(), remedy=f"give an array of shape ({wanted})"
            )
        return samples

    def _data(self, x: Any, y: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.programs = {}
        samples, labels = self._samples(x), np.asarray(y).ravel()
        if len(labels) != len(samples):
            raise ShapeError(
                f"x has {len(samples)} samples, y has {len(labels)}", at=user_line(), remedy="give one label for each"
            )
        classes = np.unique(labels)
        if len(classes) > 2 or (len(classes) == 1 and classes[0] not in (-1, 0, 1)):
            raise DTypeError(
                f"y holds {len(classes)} labels, a perceptron tells two classes apart",
                at=user_line(),
                remedy="give labels such as 0 and 1",
            )
        if len(classes) == 1:  # which of the two it is, its value says
            classes = np.array([-1, 1] if classes[0] == -1 else [0, 1])
        self.classes = (classes[0].item(), classes[1].item())
        return samples, (labels == classes[1]).astype(np.float32)

    def _build(self, inputs: int) -> None:
        first = self._first_values(inputs)
        self.weights = gx.parameter("w", first[:-1])
        self.bias = gx.parameter("b", first[-1])
        rate = 1.0 if self.learning_rate is None else self.learning_rate
        x, y = gx.placeholder("x", (inputs,)), gx.placeholder("y", ())
        y_hat = gx.where(gx.sum(self.weights * x) + self.bias >= 0.0, 1.0, 0.0)
        if self.rule == "delta":
            w = self.weights + rate * (y - y_hat) * x
            b = self.bias + rate * (y - y_hat)
        else:
            pull, push = gx.logical_and(y > 0.5, y_hat < 0.5), gx.logical_and(y < 0.5, y_hat > 0.5)
            w = gx.where(pull, self.weights + rate * x, gx.where(push, self.weights - rate * x, self.weights))
            b = gx.where(pull, self.bias + rate, gx.where(push, self.bias - rate, self.bias))
        many = gx.placeholder("x", ("batch", inputs))
        sides = gx.where(gx.sum(many * self.weights, axis=1) + self.bias >= 0.0, 1.0, 0.0)
        self.programs = {
            "train": gx.compile(
                {"mistake": y != y_hat}, inputs=[x, y], updates={self.weights: w, self.bias: b}, backend=self.backend
            ),
            "predict": gx.compile({"y_hat": sides}, inputs=[many], backend=self.backend),
        }

    def _first_values(self, inputs: int) -> NDArray[np.float32]:
        if isinstance(self.initializer, str):
            if self.initializer == "zeros":
                return np.zeros(inputs + 1, np.float32)
            if self.initializer == "normal":
                return seeds.generator("weights", self._seed).standard_normal(inputs + 1).astype(np.float32)
            raise AxisError(
                f"no initializer of a perceptron is called {self.initializer!r}",
                at=user_line(),
                remedy="use 'zeros', 'normal', or give numbers: the weights and, last, the bias",
            )
        first = np.asarray(self.initializer, np.float32)
        if first.shape != (inputs + 1,):
            raise ShapeError(
                f"the first weights have shape {first.shape}",
                at=user_line(),
                remedy=f"give {inputs} weights and, last, the bias",
            )
        return first
