"""The conformance table: every op's cases, their random operands, and the judgement of a result."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.backends.reference import backend as reference
from graphc.ir.graph import make_graph
from graphc.ir.node import Constant, Input, Node, ParameterLeaf, apply, placeholder
from graphc.ir.op import Case, Op, registry
from graphc.ir.sweep import Part
from graphc.ir.types import DType, TensorType, as_dtype, kind_of
from graphc.lower.plan import Plan
from graphc.ops.cond import Cond
from graphc.ops.halves import reference_of
from graphc.ops.scan import Scan

LEAVES = (Input, ParameterLeaf, Constant)
CONTROL = (Scan, Cond, Part)
"""Ops with a graph of their own, or of several results: no table of operands shows them. tests/scan is theirs."""
OPS = sorted(name for name, op in registry.items() if not issubclass(op, (*LEAVES, *CONTROL)))
COMPUTED = [name for name in OPS if registry[name].no_reference is None]
EXACT = ("random_bits", "uniform", "bernoulli", "dropout")
ROUNDED = ("normal", "truncated_normal", "exponential")


def seeded(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


def draw(case: Case, rng: np.random.Generator) -> list[np.ndarray]:
    """An array for each operand: those given, and random ones from the case's domain."""
    return [
        operand if isinstance(operand, np.ndarray) else _random(operand, case.domain, rng) for operand in case.operands
    ]


def _random(type: TensorType, domain: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    low, high = domain
    if type.dtype is DType.bool:
        return rng.random(type.shape) < 0.5
    if type.dtype.is_integer:
        low = max(low, 0) if type.dtype is DType.uint32 else low
        return rng.integers(int(np.ceil(low)), int(np.floor(high)) + 1, type.shape).astype(type.dtype.numpy)
    return np.asarray(rng.uniform(low, high, type.shape)).astype(type.dtype.numpy)


def has_floats(case: Case) -> bool:
    return any(operand.dtype in (DType.float32, np.float32) for operand in case.operands)


def widened(case: Case) -> Case:
    """The case in float64."""
    return dataclasses.replace(case, operands=tuple(_wide(operand) for operand in case.operands))


def _wide(operand: Any) -> Any:
    if isinstance(operand, TensorType):
        return TensorType(DType.float64, operand.shape) if operand.dtype is DType.float32 else operand
    return operand.astype(np.float64) if operand.dtype == np.float32 else operand


def cases(cls: type[Op]) -> list[Case]:
    """The op's cases, and those of float32 in float64 too, where the op is not tied to float32 by an attribute."""
    narrow = list(cls.cases())
    tied = "dtype" in cls.attributes
    return narrow + [widened(case) for case in narrow if has_floats(case) and not tied]


def build(case: Case, arrays: Sequence[np.ndarray], prefix: str = "x") -> tuple[Node, list[Node]]:
    """The op on placeholders of the arrays' types."""
    inputs = [placeholder(f"{prefix}{i}", array.shape, array.dtype) for i, array in enumerate(arrays)]
    return apply(case.op, *inputs), inputs


Row = tuple[Case, list[np.ndarray]]


@dataclasses.dataclass
class Together:
    """Several cases as one program, so that a device compiles them at once.

    Attributes:
        rows: the cases with their arrays; the result of row i is the output ``yi``.
        outputs, inputs, feeds: what compiles and runs them.
    """

    rows: list[Row] = dataclasses.field(default_factory=list)
    outputs: dict[str, Node] = dataclasses.field(default_factory=dict)
    inputs: list[Node] = dataclasses.field(default_factory=list)
    feeds: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def add(self, case: Case, types: Collection[DType]) -> None:
        """One more case, if all of its arrays are of these types."""
        arrays = draw(case, seeded(case))
        node, leaves = build(case, arrays, f"x{len(self.rows)}_")
        if {node.dtype, *(as_dtype(array.dtype) for array in arrays)} <= set(types):
            self.outputs[f"y{len(self.rows)}"] = node
            self.inputs += leaves
            self.feeds |= {leaf.name: array for leaf, array in zip(leaves, arrays, strict=True)}
            self.rows.append((case, arrays))

    def judge(self, results: Mapping[str, np.ndarray]) -> None:
        """Are all results right?"""
        for number, (case, arrays) in enumerate(self.rows):
            judge(case, arrays, results[f"y{number}"])


def evaluate(outputs: Sequence[Node], inputs: Mapping[Node, np.ndarray]) -> list[np.ndarray]:
    """The values of nodes, by the reference backend."""
    graph = make_graph({f"y{i}": node for i, node in enumerate(outputs)}, list(inputs))
    dims = {
        str(size): value
        for node, array in inputs.items()
        for size, value in zip(node.shape, array.shape, strict=True)
        if not isinstance(size, int)
    }
    bound = reference.compile(Plan(graph)).bind(dims)
    results = [np.empty(_shape(node, dims), node.dtype.numpy) for node in outputs]
    failure = bound.run([np.asarray(array) for array in inputs.values()], results)
    assert failure is None
    return results


def _shape(node: Node, dims: Mapping[str, int]) -> tuple[int, ...]:
    from graphc.ir.dims import evaluate as number

    return tuple(number(size, dims) for size in node.shape)


def by_numpy(op: Op, arrays: Sequence[np.ndarray]) -> np.ndarray:
    types = [TensorType(as_dtype(array.dtype), array.shape) for array in map(np.asarray, arrays)]
    with np.errstate(all="ignore"):
        return reference_of(op, arrays, op.infer(*types).dtype)


def judge(case: Case, arrays: Sequence[np.ndarray], result: np.ndarray) -> None:
    """Is a backend's result right?

    Integers, bools, NaN and infinities must be those of NumPy. The error of a float32 may be four times that of
    NumPy in float32, found over several draws, plus one unit in the last place; both against NumPy in float64. Errors
    count relative to the largest element, for cases made of special values relative to each one. A float16 or bfloat16
    is computed in float32 and rounded: it may be off by half of its own unit more than a float32.
    """
    wanted = by_numpy(case.op, arrays)
    assert result.dtype == wanted.dtype, case
    assert result.shape == wanted.shape, case
    if kind_of(wanted.dtype) != "f" or case.op.name in EXACT:
        np.testing.assert_array_equal(result, wanted, err_msg=str(case))
        return
    finite = np.isfinite(wanted)
    infinite, expected = (array[~finite].astype(np.float64) for array in (result, wanted))
    np.testing.assert_array_equal(infinite, expected, err_msg=str(case))
    special = not all(isinstance(operand, TensorType) for operand in case.operands)
    if wanted.dtype == np.float64:
        allowed, truth = 16.0, wanted
    elif wanted.dtype.itemsize == 2:
        single = 4 * _numpy_error(_in_float32(case), [_to(np.float32, array) for array in arrays], special) + 1
        allowed, truth = 0.5 + single * _SINGLE_IN_HALVES[as_dtype(wanted.dtype)], _truth(case, arrays)
    else:
        allowed, truth = 4 * _numpy_error(case, arrays, special) + 1, _truth(case, arrays)
    error = largest_error(result[finite], truth[finite], wanted.dtype, special)
    assert error <= allowed, f"{case}: {error:.1f} units in the last place, allowed are {allowed:.1f}"


def _numpy_error(case: Case, arrays: Sequence[np.ndarray], special: bool) -> float:
    rng = seeded("numpy", case)
    draws = [arrays, *(draw(case, rng) for _ in range(0 if special else 4))]
    worst = 0.0
    for operands in draws:
        narrow, truth = by_numpy(case.op, operands), _truth(case, operands)
        finite = np.isfinite(narrow)
        worst = max(worst, largest_error(narrow[finite], truth[finite], narrow.dtype, special))
    return worst


def _truth(case: Case, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The result of the same operands in float64."""
    wide = [_to(np.float64, array) for array in arrays]
    return by_numpy(_precise(_in(DType.float64, case).op), wide).astype(np.float64)


def _precise(op: Op) -> Op:
    """What draws float32 numbers, drawing them as float64 from the same bits."""
    return dataclasses.replace(op, dtype=DType.float64) if op.name in ROUNDED else op


def judge_by_numpy(result: np.ndarray, narrow: np.ndarray, truth: np.ndarray, name: str = "") -> None:
    """Is a float32 result as good as that of the same formula by NumPy in float32? As :func:`judge` has it."""
    assert (result.dtype, result.shape) == (np.float32, truth.shape), name
    error, own = (largest_error(found, truth, result.dtype, False) for found in (result, narrow.astype(np.float32)))
    assert error <= 4 * own + 1, f"{name}: {error:.1f} units in the last place, NumPy's are {own:.1f}"


def largest_error(result: np.ndarray, truth: np.ndarray, dtype: np.dtype, each: bool) -> float:
    """The largest error in units of the last place of ``dtype``."""
    if result.size == 0:
        return 0.0
    size = np.abs(truth) if each else np.max(np.abs(truth), keepdims=True)
    if dtype.itemsize == 2:
        units = _half_spacing(size, as_dtype(dtype))
    else:
        units = np.spacing(np.minimum(size, np.finfo(dtype).max).astype(dtype)).astype(np.float64)
    return float(np.max(np.abs(result.astype(np.float64) - truth) / units))


_SINGLE_IN_HALVES = {DType.float16: 2.0**-13, DType.bfloat16: 2.0**-16}
"""A float32's unit in the last place in those of a half, for a normal number."""


def _half_spacing(size: np.ndarray, dtype: DType) -> np.ndarray:
    """The unit in the last place at these magnitudes: its exponent is bounded below by that of subnormals."""
    digits, lowest = (11, -24) if dtype is DType.float16 else (8, -133)
    _, exponent = np.frexp(size)
    return np.exp2(np.maximum(exponent.astype(np.float64) - digits, lowest))


def _to(dtype: Any, array: np.ndarray) -> np.ndarray:
    """Floats of up to 32 bits in another type."""
    narrow = kind_of(array.dtype) == "f" and array.dtype.itemsize < 8
    return array.astype(dtype) if narrow else array


def _in(dtype: DType, case: Case) -> Case:
    """The case in another float type; an element type that is an attribute follows it only away from halves."""
    operands = tuple(
        TensorType(dtype, operand.shape)
        if isinstance(operand, TensorType) and operand.dtype.is_float and operand.dtype.itemsize < 8
        else operand
        if isinstance(operand, TensorType)
        else _to(dtype.numpy, operand)
        for operand in case.operands
    )
    named = getattr(case.op, "dtype", None)
    op = dataclasses.replace(case.op, dtype=dtype) if isinstance(named, DType) and named.is_half else case.op
    return dataclasses.replace(case, op=op, operands=operands)


def _in_float32(case: Case) -> Case:
    return _in(DType.float32, case)


def all_cases(names: Sequence[str] = COMPUTED) -> Iterator[tuple[str, Case]]:
    for name in names:
        for case in cases(registry[name]):
            yield name, case
