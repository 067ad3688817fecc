"""The table of mistakes: what one is, and the programs and arrays that all of them begin with.

Each case is a function that makes one mistake, on the line that ends with ``# here`` (its only line otherwise); the
error must show that line, or the path of the file at fault.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gx

SIZE = 3


@dataclass
class World:
    """Programs over two parameters, and arrays that fit them."""

    backend: str
    table: gx.Parameter
    bias: gx.Parameter
    path: Path
    patch: pytest.MonkeyPatch
    steps: dict[str, gx.Program] = field(default_factory=dict)

    @property
    def x(self) -> Any:
        return np.ones((4, SIZE), np.float32)

    @property
    def labels(self) -> Any:
        return np.array([0, 1, 2, 1])


def training(table: gx.Parameter, bias: gx.Parameter, backend: str) -> gx.Program:
    """A step of gradient descent."""
    x, labels = gx.placeholder("x", ("batch", SIZE)), gx.placeholder("labels", ("batch",), "int64")
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, x @ table + bias))  # here
    gradients = gx.grad(loss, [table, bias])
    updates = {p: p - 0.1 * g for p, g in zip((table, bias), gradients, strict=True)}
    return gx.compile({"loss": loss}, inputs=[x, labels], updates=updates, backend=backend)


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        says: words that the message must hold.
        file: the error names a file below the test's folder, not a line.
        within: the function whose marked line is at fault, where it is not ``run``.
    """

    category: str
    error: type[Exception]
    says: tuple[str, ...]
    run: Callable[[World], object]
    file: str | None = None
    within: Callable[..., object] | None = None

    @property
    def line(self) -> str:
        """``file:line`` of the mistake."""
        source = self.within or self.run
        rows, first = inspect.getsourcelines(source)
        marked = [first + number for number, row in enumerate(rows) if row.rstrip().endswith("# here")]
        assert len(marked) == 1, f"{self.run.__name__} has {len(marked)} marks"
        return f"{Path(inspect.getfile(source)).name}:{marked[0]}"


Run = Callable[[World], object]


class Mistakes(list[Case]):
    """Cases, entered by a decorator."""

    def bad(
        self,
        category: str,
        error: type[Exception],
        *says: str,
        file: str | None = None,
        within: Callable[..., object] | None = None,
    ) -> Callable[[Run], Run]:
        """Enter a function into the table."""

        def enter(run: Run) -> Run:
            self.append(Case(category, error, says, run, file, within))
            return run

        return enter
