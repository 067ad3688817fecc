"""float16 and bfloat16 from the user's side: accumulation, one rounding an operation, memory, training, saving, ONNX."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import graphc as gx
from graphc.ir.types import DType
from graphc.lower.plan import GemmItem, Place
from tests.ops.halves import HALVES, same_bits

UNIT = {DType.float16: 2.0**-11, DType.bfloat16: 2.0**-8}
"""Half of the distance between neighbours, relative to them: the largest error of one rounding."""

both = pytest.mark.parametrize("dtype", HALVES)
backends = pytest.mark.parametrize("backend", ["numba", "reference"])


def run(outputs, feeds, backend="numba", **more):
    inputs = [gx.placeholder(name, array.shape, array.dtype) for name, array in feeds.items()]
    made = outputs(*inputs)
    return gx.compile(made, inputs=inputs, backend=backend, **more)(**feeds)


def normal(dtype, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype.numpy)


@both
@backends
def test_sums_and_products_accumulate_in_float32(dtype, backend):
    """In the half itself a sum of ones would stop at 2048 or 256, where the next number is 2 further."""
    ones = np.ones((3, 5000), dtype.numpy)
    index = np.zeros(5000, np.int64)
    results = run(
        lambda x, i: {
            "sum": gx.sum(x, axis=1),
            "all": gx.sum(x * (1 / 8)),
            "column": gx.sum(gx.transpose(x), axis=0),
            "product": x @ gx.transpose(x),
            "mean": gx.mean(x, axis=1),
            "scattered": gx.grad(gx.sum(gx.take(x[0, :4], i)), [x])[0][0, :2],
        },
        {"x": ones, "i": index},
        backend,
    )
    five_thousand, eighth = (np.float32([number]).astype(dtype.numpy) for number in (5000, 15000 / 8))
    assert (results["sum"] == five_thousand).all()
    assert (results["column"] == five_thousand).all()
    assert (results["product"] == five_thousand).all()
    assert results["all"] == eighth
    assert (results["mean"] == 1).all()
    assert results["scattered"].tolist() == [float(five_thousand[0]), 0]
    assert {array.dtype for array in results.values()} == {dtype.numpy}


@both
@backends
def test_each_operation_is_rounded_once_whatever_it_is_fused_with(dtype, backend):
    """Products and sums of halves by float32 and one rounding are exact to the bit, stored between or not."""
    x, y = normal(dtype, 40, 33), normal(dtype, 33, seed=1)

    def chain(x, y):
        a = x * y
        b = a + x
        return a, b, b * b - a

    def step(function, *arrays):
        return function(*(array.astype(np.float32) for array in arrays)).astype(dtype.numpy)

    a = step(np.multiply, x, y)
    b = step(np.add, a, x)
    wanted = step(np.subtract, step(np.multiply, b, b), a)
    apart = run(lambda x, y: dict(zip("abc", chain(x, y), strict=True)), {"x": x, "y": y}, backend)
    fused = run(lambda x, y: {"c": chain(x, y)[2]}, {"x": x, "y": y}, backend)
    for name, value in (("a", a), ("b", b), ("c", wanted)):
        same_bits(apart[name], value)
    same_bits(fused["c"], wanted)


@both
def test_a_maximum_is_equal_to_an_element(dtype):
    """Which gradients of maxima count on: the elements are computed again in the kernel that compares."""
    x = normal(dtype, 50, 300)

    def equal(x):
        y = gx.tanh(x * 0.3) * 1.7
        return {"hits": gx.sum(gx.cast(y == gx.max(y, axis=1, keepdims=True), "int32"), axis=1)}

    assert (run(equal, {"x": x})["hits"] >= 1).all()


@both
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "gelu", "silu", "mean", "logsumexp", "matmul"])
def test_one_rounding_of_a_composite_against_float64(dtype, name):
    x = normal(dtype, 64, 48)
    function = (lambda x: x @ gx.transpose(x)) if name == "matmul" else getattr(gx, name)
    wanted = run(lambda x: {"y": function(x)}, {"x": x.astype(np.float64)}, "reference")["y"]
    result = run(lambda x: {"y": function(x)}, {"x": x})["y"].astype(np.float64)
    smallest = 2.0**-24 if dtype is DType.float16 else 0.0  # subnormals end there
    in_float32 = 2e-6 * np.abs(wanted).max()
    assert (np.abs(result - wanted) <= 1.001 * UNIT[dtype] * np.abs(wanted) + smallest + in_float32).all()


@both
def test_intermediate_values_take_two_bytes_and_operands_of_products_are_converted_once(dtype):
    x = gx.placeholder("x", ("n", 32), dtype)
    w = gx.parameter("w", normal(dtype, 32, 32))
    y = gx.tanh(x @ w)
    loss = gx.sum(gx.sum(y, axis=0) * gx.sum(y * y, axis=0))
    (dw,) = gx.grad(loss, [w])
    program = gx.compile({"loss": loss}, inputs=[x], updates={w: w - 0.1 * dw}, backend="numba")
    arena = [buffer for buffer in program.plan.buffers if buffer.place is Place.ARENA]
    assert any(buffer.type.dtype is dtype for buffer in arena)
    items = [item for launch in program.plan.launches for item in launch.items]
    readers = [item for item in items if item.buffers[0] == 0]
    assert len(readers) == 1  # the conversion, for x and for x.T
    assert sum(isinstance(item, GemmItem) for item in items) == 2
    array = normal(dtype, 7, 32)
    before = w.value
    program(x=array)
    assert w.value.dtype == dtype.numpy
    assert (w.value != before).any()


@both
def test_training_saving_and_export(dtype, tmp_path):
    gx.set_seed(0)
    model = gx.Sequential(
        [
            gx.Input((6,), dtype=dtype.value),
            gx.layers.Dense(8, "relu", dtype=dtype.value),
            gx.layers.Dense(2, dtype=dtype.value),
        ]
    )
    model.compile("sgd", "mse")
    x = normal(DType.float64, 64, 6)
    y = x[:, :2] - x[:, 2:4]
    losses = model.fit(x.astype(dtype.numpy), y.astype(np.float32), epochs=6, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert {weight.value.dtype for weight in model.trainable_weights} == {dtype.numpy}
    wanted = model.predict(x)
    model.save(tmp_path / "model")
    same_bits(gx.load_model(tmp_path / "model").predict(x), wanted)
    z = gx.placeholder("z", ("n", 6), dtype)
    program = gx.compile({"y": model(z)}, inputs=[z], backend="numba")
    gx.onnx.export(program, tmp_path / "model.onnx")
    assert gx.onnx.verify(tmp_path / "model.onnx", program).ok


@both
def test_a_scan_over_halves(dtype):
    xs, w = normal(dtype, 9, 4), normal(dtype, 4, 4, seed=1)

    def cell(xs, w):
        last, states = gx.scan(lambda h, x: (gx.tanh(h @ w + x),) * 2, xs[0], xs)
        return {"last": last, "states": states, "dw": gx.grad(gx.sum(last * last), [w])[0]}

    found, wanted = (run(cell, {"xs": xs, "w": w}, backend) for backend in ("numba", "reference"))
    for name in found:
        assert found[name].dtype == dtype.numpy
        near = [array[name].astype(np.float64) for array in (found, wanted)]
        np.testing.assert_allclose(*near, rtol=16 * UNIT[dtype], atol=16 * UNIT[dtype])


@both
def test_graph_text_and_refusals(dtype):
    x = gx.placeholder("x", (3,), dtype)
    assert f"{x + gx.constant([1, 2, 3], dtype)!r}" == f"<add: {dtype.short}[3]>"
    with pytest.raises(gx.DTypeError, match="float32, float64"):
        gx.random.uniform((3,), seed=0, dtype=dtype)
    with pytest.raises(gx.DTypeError, match="int32"):
        x + gx.placeholder("i", (3,), "int32")
    step = gx.compile({"y": x * 2}, inputs=[x])
    with pytest.raises(gx.DTypeError, match=dtype.value):
        step(x=np.zeros(3, np.float32))
    assert step(x=[1, 2.5, -3])["y"].tolist() == [2, 5, -6]


def test_bfloat16_costs_nothing_until_it_is_used():
    code = "import sys, graphc as gx; gx.cast(gx.placeholder('x', (3,)), 'float16'); print('ml_dtypes' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
