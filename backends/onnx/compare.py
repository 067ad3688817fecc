"""Two arrays that should be equal: how far they are apart, where, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.ir.types import kind_of

Array = NDArray[Any]

_HALF_UNITS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""One unit in the last place: where float32 results differ by little, they may be rounded to neighbours."""


def unit_of(program: Any) -> float:
    """One unit in the last place of the 16-bit floats that a program of mixed precision multiplies; else 0."""
    factors = getattr(getattr(program, "precision", None), "factors", None)
    return 0.0 if factors is None else _HALF_UNITS[factors.value]


@dataclass(frozen=True)
class Tolerance:
    """What two results may differ by: floats by ``atol + rtol * |expected|``; integers and bools not at all."""

    rtol: float
    atol: float

    def of_each(self, expected: Array) -> Array:
        """What each element may differ by."""
        if kind_of(expected.dtype) != "f":
            return np.zeros(expected.shape)
        rtol = max(self.rtol, _HALF_UNITS.get(expected.dtype.name, 0.0))
        return self.atol + rtol * np.abs(np.where(np.isfinite(expected), expected, 0.0).astype(np.float64))

    def of_largest(self, expected: Array, slack: float = 1.0) -> Array:
        """For each element ``slack`` times what the largest may differ by."""
        allowed = self.of_each(expected)
        return np.full(allowed.shape, slack * allowed.max(initial=0.0))


@dataclass(frozen=True)
class Comparison:
    """How far one result in onnxruntime is from the program's, at the step and element where that is farthest.

    Attributes:
        name: the result's name in the file.
        step: counted from 1.
        error: the largest absolute difference; infinite where one side is NaN or the shapes differ.
        allowed: what it may be there.
        actual, expected: the two values at this place.
    """

    name: str
    step: int
    error: float
    allowed: float
    actual: Any
    expected: Any

    @property
    def ok(self) -> bool:
        """Is the difference within what is allowed?"""
        return self.error <= self.allowed

    @property
    def badness(self) -> float:
        """The difference in units of what is allowed."""
        return float(_in_units(np.float64(self.error), np.float64(self.allowed)))

    def __str__(self) -> str:
        text = f"{self.name}: largest difference {self.error:.2g} at step {self.step}"
        if self.ok:
            return text
        return f"{text}: {self.actual} in onnxruntime, {self.expected} in graphc; {self.allowed:.2g} is allowed"


def compare(name: str, step: int, actual: Array, expected: Array, allowed: Array) -> Comparison:
    """Compare arrays of one element type."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        shown = (f"{array.dtype}{list(array.shape)}" for array in (actual, expected))
        return Comparison(name, step, np.inf, 0.0, *shown)
    if expected.size == 0:
        return Comparison(name, step, 0.0, 0.0, None, None)
    errors = _differences(actual.astype(np.float64), expected.astype(np.float64))
    place = np.unravel_index(int(np.argmax(_in_units(errors, allowed))), errors.shape)
    return Comparison(name, step, float(errors[place]), float(allowed[place]), actual[place], expected[place])


def _differences(actual: Array, expected: Array) -> Array:
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        errors = np.abs(actual - expected)
    return np.where(same, 0.0, np.where(np.isnan(errors), np.inf, errors))


def _in_units(errors: Any, allowed: Any) -> Any:
    return np.divide(errors, allowed, out=np.where(errors > 0, np.inf, 0.0), where=allowed > 0)
