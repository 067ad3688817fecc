"""Every op's conformance cases, exported and run in onnxruntime, beside the op's own reference."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.backends.onnx.export import DEFAULT_OPSET, OLDEST_OPSET, build_model
from graphc.backends.onnx.runtime import open_session, run_session
from graphc.errors import ExportError, FileError
from graphc.ir.graph import make_graph
from graphc.ir.node import Constant, Input, Node, ParameterLeaf, apply, placeholder
from graphc.ir.op import Case, Op, registry
from graphc.ir.sweep import Part
from graphc.ir.types import DType, TensorType, kind_of
from graphc.ops.cond import Cond
from graphc.ops.control import WhenTraining
from graphc.ops.halves import reference_of
from graphc.ops.scan import Scan

LEAVES = (Input, ParameterLeaf, Constant)
CONTROL = (Scan, Cond, Part)
OPS = sorted(name for name, op in registry.items() if not issubclass(op, (*LEAVES, *CONTROL, WhenTraining)))
TOLERANCE = {
    DType.float16: (2.0**-10, 2e-6),  # a unit in the last place
    DType.bfloat16: (2.0**-7, 2e-6),
    DType.float32: (2e-5, 2e-6),
    DType.float64: (1e-12, 1e-13),
}
RANDOM = ("random_bits", "uniform", "bernoulli", "dropout")
ROUNDED = ("normal", "truncated_normal", "exponential")
"""Functions of random bits that need not be the same to the last bit."""


def operand(case: Case, value: Any, rng: np.random.Generator) -> np.ndarray:
    if not isinstance(value, TensorType):
        return np.asarray(value)
    low, high = case.domain
    if value.dtype is DType.bool:
        return rng.integers(0, 2, value.shape).astype(bool)
    if value.dtype.is_integer:
        low = max(low, 0) if value.dtype is DType.uint32 else low
        return rng.integers(int(np.ceil(low)), int(np.floor(high)) + 1, value.shape).astype(value.dtype.numpy)
    return rng.uniform(low, high, value.shape).astype(value.dtype.numpy)


def run_cases(cases: Sequence[Case], opset: int) -> None:
    """All cases in one model with many inputs and outputs."""
    rng = np.random.default_rng(zlib.crc32(cases[0].op.name.encode()))
    inputs: list[Node] = []
    feeds: dict[str, np.ndarray] = {}
    outputs: dict[str, Node] = {}
    expected: dict[str, np.ndarray] = {}
    for number, case in enumerate(cases):
        args: list[Node] = []
        arrays: list[np.ndarray] = []
        for place, value in enumerate(case.operands):
            array = operand(case, value, rng)
            node = placeholder(f"x{number}_{place}", array.shape, array.dtype)
            feeds[f"x{number}_{place}"] = array
            args.append(node)
            arrays.append(array)
        inputs += args
        outputs[f"y{number}"] = node = apply(case.op, *args)
        with np.errstate(all="ignore"):
            expected[f"y{number}"] = reference_of(case.op, arrays, node.dtype)
    exported = build_model(make_graph(outputs, inputs), opset=opset)
    onnx.checker.check_model(exported.model, full_check=True)
    results = run_session(open_session(exported.model, "cases"), feeds, exported.outputs, "cases")
    for number, case in enumerate(cases):
        check(results[f"y{number}"], expected[f"y{number}"], case)


def check(actual: np.ndarray, expected: np.ndarray, case: Case) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if kind_of(expected.dtype) != "f" or case.op.name in RANDOM:
        np.testing.assert_array_equal(actual, expected, err_msg=repr(case))
    else:
        rtol, atol = TOLERANCE[DType(expected.dtype.name)]
        actual, expected = actual.astype(np.float64), expected.astype(np.float64)
        np.testing.assert_allclose(actual, expected, rtol, atol, err_msg=repr(case))


@pytest.mark.parametrize("name", OPS)
def test_cases_at_the_default_opset(name: str) -> None:
    cases = registry[name].cases()
    assert cases, "an op without conformance cases"
    run_cases(cases, DEFAULT_OPSET)


def few_cases(op: type[Op]) -> list[Case]:
    """The first case of each combination of element types."""
    found: dict[tuple[DType, ...], Case] = {}
    for case in op.cases():
        types = (v.dtype if isinstance(v, TensorType) else DType(np.asarray(v).dtype.name) for v in case.operands)
        found.setdefault(tuple(types), case)
    return list(found.values())


def newest_opset() -> int:
    """The newest opset that both the onnx package and onnxruntime know."""
    x = placeholder("x", (2,), "float32")
    graph = make_graph({"y": apply(registry["exp"](), x)}, [x])
    for opset in range(defs.onnx_opset_version(), DEFAULT_OPSET, -1):
        try:
            open_session(build_model(graph, opset=opset).model, "probe")
        except FileError:
            continue
        return opset
    return DEFAULT_OPSET


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 18, 20, 0], ids=["oldest", "18", "20", "newest"])
def test_cases_at_other_opsets(opset: int) -> None:
    """Every op in one model, with a case for each element type."""
    opset = opset or newest_opset()
    cases = [case for name in OPS for case in few_cases(registry[name]) if opset >= 18 or not needs_opset_18(case)]
    assert len(cases) > 100
    run_cases(cases, opset)


def needs_opset_18(case: Case) -> bool:
    types = [v.dtype if isinstance(v, TensorType) else DType(np.asarray(v).dtype.name) for v in case.operands]
    by_bits = case.op.name in ("and", "or", "xor", "not") and types[0] is not DType.bool
    scatters_extremes = case.op.name == "scatter_along" and case.op.fn in ("min", "max")
    drops_weights = getattr(case.op, "rate", 0) != 0
    return by_bits or scatters_extremes or drops_weights or case.op.name in (*RANDOM, *ROUNDED)


@pytest.mark.parametrize("name", ["random_bits", "dropout", "xor", "not"])
def test_an_op_beyond_the_opset_says_which_is_needed(name: str) -> None:
    case = next(case for case in registry[name].cases() if needs_opset_18(case))
    with pytest.raises(ExportError, match="needs ONNX opset 18") as caught:
        run_cases([case], OLDEST_OPSET)
    assert "opset=18 or later" in str(caught.value)
    assert "test_conformance.py" in str(caught.value)


@pytest.mark.parametrize("opset", [OLDEST_OPSET - 1, defs.onnx_opset_version() + 1])
def test_an_opset_out_of_range_is_refused(opset: int) -> None:
    case = registry["add"].cases()[0]
    with pytest.raises(ExportError, match=f"opset {opset}") as caught:
        run_cases([case], opset)
    assert f"{OLDEST_OPSET} to {defs.onnx_opset_version()}" in str(caught.value)


def test_integer_sums_wrap_around() -> None:
    """Onnxruntime would add them as float64 and stop at the largest integer."""
    big = np.full((3, 4), np.iinfo(np.int64).max, np.int64)
    small = np.array([[2**53, 1, 2**62, -7]], np.int64)
    sum_all = registry["sum"]((0, 1), False)
    cases = [
        Case(sum_all, (array,)) for array in (big, small, big.astype(np.int32), np.full((2, 3), 2**32 - 1, np.uint32))
    ]
    run_cases(cases, DEFAULT_OPSET)


def test_sums_scattered_to_one_place_lose_nothing() -> None:
    """ScatterND of onnxruntime would: it adds in parallel without locks."""
    indices = np.arange(60_000) % 3
    values = np.ones((60_000, 8), np.float32)
    run_cases([Case(registry["take_add"](0, 3), (values, indices))], DEFAULT_OPSET)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_that_onnx_lacks_are_accurate_everywhere(dtype: type) -> None:
    """Relative to the result: near zero, in the tails, at infinity."""
    sizes = np.geomspace(1e-30, 80, 200)
    x = np.concatenate([-sizes[::-1], [0.0], sizes, [np.inf, -np.inf, np.nan]]).astype(dtype)
    above = x[~(x <= -1)]
    x_node, above_node = placeholder("x", x.shape, dtype), placeholder("above", above.shape, dtype)
    names = ["expm1", "erf", "softplus"]
    outputs = {name: apply(registry[name](), x_node) for name in names}
    outputs["log1p"] = apply(registry["log1p"](), above_node)
    exported = build_model(make_graph(outputs, [x_node, above_node]))
    feeds = {"x": x, "above": above}
    actual = run_session(open_session(exported.model, "accuracy"), feeds, exported.outputs, "accuracy")
    rtol = {np.float32: 5e-6, np.float64: 1e-14}[dtype]
    with np.errstate(all="ignore"):
        for name, result in actual.items():
            expected = (
                registry[name]().reference(feeds["above" if name == "log1p" else "x"].astype(np.float64)).astype(dtype)
            )
            floor = np.finfo(dtype).tiny
            np.testing.assert_allclose(result, expected, rtol, floor, err_msg=name)
