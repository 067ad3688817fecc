"""Every public function by the example in its docstring: natively, in onnxruntime, and its derivatives.

Sizes of one and of none, elements apart in memory, and numbers that are not finite go through the same programs as
others, so that what is compiled is compiled once.
"""

from __future__ import annotations

import ast
import inspect
from functools import partial

import numpy as np
import pytest

import graphc as gx
from graphc.backends.onnx.export import build_model
from graphc.backends.onnx.runtime import open_session, run_session
from graphc.ir.graph import make_graph
from graphc.ir.op import registry
from graphc.ir.types import DType, kind_of
from graphc.lower.plan import AttentionItem, ContractionItem, GemmItem, KernelItem
from graphc.ops import functions
from tests.ops.table import evaluate, largest_error, seeded
from tests.project.checkout import ROOT
from tests.project.count import counts
from tests.project.shown import Shown, shown_by

ANCHOR = gx.placeholder("anchor", ("n", "m"))
"""Gives names of sizes to functions that take no operand."""
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 1e30, 1.0, -1.0, 0.5], np.float32)
"""Sums of these neither overflow nor cancel, which would depend on their order."""
REFUSES_EMPTY = {"argmin": "NumPy refuses it"}
REFUSES_SPECIAL = {
    "check_finite": "it is there to refuse them",
    "conv_transpose": "natively weights meet zeros that the reference does not have, and 0 * inf is NaN",
}
NO_DIFFERENCES = {
    "scan": "tests/scan", "while_loop": "tests/scan", "custom_vjp": "the rule is the user's",
    "stop_gradient": "it has none on purpose", "when_training": "a pass chooses one of two",
    "broadcast_to": "of a size that no input has", "linspace": "of a size that no input has",
    "ctc_loss": "tests/ops/test_ctc.py: forward mode is refused",
}  # fmt: skip
RANGES = {"acosh": (1.2, 1.8)}
NOT_IN_FLOAT64 = {
    **dict.fromkeys(("eye", "full", "linspace", "one_hot", "uniform", "zeros"), "the type is an argument"),
    "scan": "the example's first state is float32: tests/scan",
}
"""They are held to the reference's float32, to one unit in the last place."""
DRAWS = 5
"""So many random operands tell what NumPy's own error is."""


def ordinary(x, shape, number=0):
    rng = seeded("shown", x.name, *([number] if number else []))
    if x.dtype.is_float:
        return rng.uniform(*RANGES.get(x.name.partition("_")[0], (0.2, 0.8)), shape).astype(x.dtype.numpy)
    return rng.integers(0, 2, shape).astype(x.dtype.numpy)


def special(x, shape):
    return seeded("special", x.name).choice(SPECIAL, shape) if x.dtype.is_float else ordinary(x, shape)


def apart(x, shape):
    """Elements of an array that is larger, in another order."""
    values = ordinary(x, shape)
    wide = np.zeros([2 * size for size in shape[::-1]], values.dtype)
    view = wide[(..., *(slice(None, None, 2) for _ in shape))].T
    view[...] = values
    return view


def operands(examples, draw, n, plain=()):
    """For each example its operands; ``plain`` ones are not drawn but ordinary."""
    feeds = {"anchor": np.zeros((n, 3), np.float32)}
    for name, one in examples.items():
        feeds |= one.feeds(ordinary if name in plain else draw, {"n": n})
    return feeds


def compiled(examples, backend):
    """All examples in one program."""
    outputs = {f"{name}:{i}": node for name, one in examples.items() for i, node in enumerate(one.outputs)}
    inputs = [ANCHOR, *(leaf for one in examples.values() for leaf in one.inputs)]
    return gx.compile(outputs, inputs=inputs, backend=backend)


@pytest.fixture(scope="module")
def shown() -> dict[str, Shown]:
    with pytest.MonkeyPatch.context() as patch:
        return {name: shown_by(name, patch) for name in functions}


@pytest.fixture(scope="module")
def program(shown):
    """Natively, and by the reference."""
    return compiled(shown, "numba"), compiled(shown, "reference")


@pytest.fixture(scope="module")
def in_float64(shown):
    """What the reference computes in float64 of float32 operands, but for what :data:`NOT_IN_FLOAT64` names."""
    with pytest.MonkeyPatch.context() as patch:
        examples = {name: shown_by(name, patch, wide=True) for name in shown if name not in NOT_IN_FLOAT64}
    made = compiled(examples, "reference")
    names = {"anchor", *(leaf.name for one in examples.values() for leaf in one.inputs)}

    def run(feeds):
        wide = {k: v.astype(np.float64) if v.dtype == np.float32 and k != "anchor" else v for k, v in feeds.items()}
        return made(**{name: wide[name] for name in names})

    return run


def test_every_function_shows_nodes(shown):
    assert [name for name, one in shown.items() if not one.outputs] == []


def test_no_function_falls_back_to_anything_but_kernels_and_products(program):
    native, *_ = program
    kinds = {type(item) for launch in native.plan.launches for item in launch.items}
    assert kinds <= {AttentionItem, ContractionItem, GemmItem, KernelItem}


@pytest.mark.parametrize(("draw", "n"), [(ordinary, 2), (ordinary, 1), (apart, 3)])
def test_native_results_are_as_exact_as_numpy(shown, program, in_float64, draw, n):
    """Against float64 the error may be four times that of NumPy's float32, over several draws, plus a unit."""
    native, reference = program
    feeds = operands(shown, draw, n)
    found, narrow, truth = native(**feeds), reference(**feeds), in_float64(feeds)
    judged = [(narrow, truth)]
    for number in range(1, DRAWS):
        again = operands(shown, partial(ordinary, number=number), n)
        judged.append((reference(**again), in_float64(again)))
    for key, wanted in narrow.items():
        assert (found[key].dtype, found[key].shape) == (wanted.dtype, wanted.shape), key
        if wanted.dtype != np.float32:
            np.testing.assert_array_equal(found[key], wanted, err_msg=key)
            continue
        own = max(units(numpys[key], exact.get(key, numpys[key])) for numpys, exact in judged)
        error = units(found[key], truth.get(key, wanted))
        assert error <= 4 * own + 1, f"{key}: {error:.1f} units in the last place, NumPy's are {own:.1f}"


def units(found, exact):
    """The largest error in units of the last place; infinite where NaN or infinities are not the same."""
    finite = np.isfinite(exact)
    if not np.array_equal(found[~finite], exact[~finite], equal_nan=True):
        return np.inf
    return largest_error(found[finite], exact[finite].astype(np.float64), np.dtype(np.float32), False)


def test_the_exceptions_have_no_float64(in_float64, shown, monkeypatch):
    for name in NOT_IN_FLOAT64:
        try:
            outputs = shown_by(name, monkeypatch, wide=True).outputs
        except gx.DTypeError:
            continue
        assert [node for node in outputs if node.dtype is DType.float32], name


def test_native_results_of_special_numbers_are_those_of_the_reference(shown, program):
    """NaN, infinities, signed zeros, subnormal and huge numbers among each other."""
    feeds = operands(shown, special, 4, REFUSES_SPECIAL)
    found, wanted = (made(**feeds) for made in program)
    for key, value in wanted.items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape), key
        if kind_of(value.dtype) == "f":
            np.testing.assert_allclose(found[key], value, rtol=2e-6, atol=1e-7, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_axes_without_elements(shown):
    taken = {name: one for name, one in shown.items() if name not in REFUSES_EMPTY}
    feeds = operands(taken, ordinary, 0)
    found, wanted = (compiled(taken, backend)(**feeds) for backend in ("numba", "reference"))
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-5, atol=2e-6, err_msg=key)
        assert found[key].shape == value.shape, key


@pytest.mark.parametrize("name", functions)
def test_in_onnxruntime(name, shown):
    one = shown[name]
    outputs = {f"y{i}": node for i, node in enumerate(one.outputs)}
    feeds = {"anchor": np.zeros((2, 3), np.float32), **one.feeds(ordinary, {})}
    exported = build_model(make_graph(outputs, [ANCHOR, *one.inputs]))
    found = run_session(open_session(exported.model, name), feeds, exported.outputs, name)
    wanted = gx.compile(outputs, inputs=[ANCHOR, *one.inputs], backend="reference")(**feeds)
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=3e-5, atol=3e-6, err_msg=key)


@pytest.mark.parametrize("name", [name for name in functions if name not in NO_DIFFERENCES])
def test_derivatives_by_projection(name, monkeypatch):
    """In float64 along a random direction: backward, forward, and by differences."""
    one = shown_by(name, monkeypatch, wide=True, fixed=True)
    given = dict(zip(one.inputs, one.feeds(ordinary, {}).values(), strict=True))
    floats = [leaf for leaf in one.inputs if leaf.dtype.is_float]
    results = [node for node in one.outputs if node.dtype.is_float]
    if not floats or not results:
        return
    rng = seeded("projection", name)
    weights = [rng.standard_normal(node.shape) for node in results]
    along = {leaf: rng.standard_normal(leaf.shape) for leaf in floats}
    total = gx.constant(0.0, "float64")
    for node, weight in zip(results, weights, strict=True):
        total = total + gx.sum(node * gx.constant(weight))
    pulled = gx.grad(total, floats)
    pushed, *pulled = evaluate([*gx.jvp([total], floats, [gx.constant(along[x]) for x in floats]), *pulled], given)

    def moved(step):
        values = evaluate(results, {x: v + step * along[x] if x in along else v for x, v in given.items()})
        return sum(float(np.sum(value * weight)) for value, weight in zip(values, weights, strict=True))

    backward = sum(float(np.sum(slope * along[x])) for slope, x in zip(pulled, floats, strict=True))
    np.testing.assert_allclose(backward, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(pushed, backward, rtol=1e-9, atol=1e-10)


def named_in_tests():
    """Names of ``gx`` that tests of operations and of loops use."""
    found = set()
    for folder in ("ops", "scan", "numba", "autodiff"):
        for path in (ROOT / "tests" / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "gx":
                    found.add(node.attr)
    return found


def test_every_function_has_a_judge():
    """An op of its name, which the conformance table judges, or a test that calls it."""
    named = named_in_tests()
    assert [name for name in functions if name not in registry and name not in named] == []


@pytest.mark.parametrize("name", functions)
def test_every_function_says_what_it_takes(name):
    text = inspect.getdoc(functions[name]) or ""
    assert text.partition("\n")[0].endswith(".")
    assert [word for word in ("Shapes: ", "Raises: ", "Source: ", ">>> ") if word not in text] == []


def test_there_are_as_many_as_were_aimed_for(capsys):
    found = counts()
    with capsys.disabled():
        print("\n" + ", ".join(f"{number} {what}" for what, number in found.items()))
    assert found["public functions"] >= 180
