"""Convolution and pooling: results known by hand, every kind of geometry on each backend, sizes with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import graphc as gx
from graphc.backends.onnx.export import build_model
from graphc.backends.onnx.runtime import open_session, run_session
from graphc.ir.graph import make_graph
from tests.ops.table import evaluate, seeded

IMAGE = np.float32([[1, 2, 3, 0, 1], [4, 5, 6, 1, 2], [7, 8, 9, 2, 3], [1, 0, 1, 0, 1], [2, 1, 0, 1, 2]])
EDGES = np.float32([[1, 0, -1]] * 3)
POOLED = np.float32([[1, 3, 2, 1], [4, 6, 4, 2], [5, 8, 3, 5], [2, 1, 0, 3]])


def run(node, **feeds):
    inputs = [gx.placeholder(name, array.shape, array.dtype) for name, array in feeds.items()]
    return gx.compile({"y": node(*inputs)}, inputs=inputs, backend="numba")(**feeds)["y"]


def test_a_filter_slid_by_hand():
    found = run(gx.conv, x=IMAGE.reshape(1, 5, 5, 1), kernel=EDGES.reshape(3, 3, 1, 1))
    wanted = [[(IMAGE[i : i + 3, j : j + 3] * EDGES).sum() for j in range(3)] for i in range(3)]
    assert found[0, 0, 0, 0] == -6
    np.testing.assert_array_equal(found[0, :, :, 0], wanted)


def test_poolings_by_hand():
    x = POOLED.reshape(1, 4, 4, 1)
    assert run(lambda x: gx.max_pool(x, 2), x=x)[0, :, :, 0].tolist() == [[6, 4], [8, 5]]
    assert run(lambda x: gx.average_pool(x, 2), x=x)[0, :, :, 0].tolist() == [[3.5, 2.25], [4.0, 2.75]]


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 1)])
def test_the_gradient_of_a_largest_element_goes_to_the_first_place_that_holds_it(size, stride):
    x = np.float32([[1, 1, 0, 2], [1, 0, 2, 2], [0, 3, 7, 7], [0, 3, 7, 7]]).reshape(1, 4, 4, 1)
    found = run(lambda x: gx.grad(gx.sum(gx.max_pool(x, size, stride)), [x])[0], x=x)
    wanted = np.zeros((4, 4))
    for i in range(0, 5 - size, stride):
        for j in range(0, 5 - size, stride):
            place = np.argmax(x[0, i : i + size, j : j + size, 0])
            wanted[i + place // size, j + place % size] += 1
    np.testing.assert_array_equal(found[0, :, :, 0], wanted)


def test_nan_is_the_largest():
    x = np.float32([1, np.nan, 0, 5, 2, 3]).reshape(1, 6, 1)
    assert str(run(lambda x: gx.max_pool(x, 2), x=x).ravel().tolist()) == "[nan, 5.0, 3.0]"


def test_the_gradient_of_flatten_is_a_reshape():
    x = gx.placeholder("x", ("n", 3, 2))
    (g,) = gx.grad(gx.sum(gx.flatten(x, 1) * gx.placeholder("w", ("n", 6))), [x])
    assert g.op.name == "reshape"


@dataclass(frozen=True)
class Geometry:
    """One way to convolve: odd sizes, channels 6."""

    sizes: tuple[int, ...]
    window: tuple[int, ...]
    strides: int = 1
    padding: object = "valid"
    dilations: int = 1
    groups: int = 1
    filters: int = 6

    def kernel(self):
        return (*self.window, 6 // self.groups, self.filters)

    def node(self, x, kernel):
        return gx.conv(x, kernel, self.strides, self.padding, self.dilations, self.groups)


GRID = [
    Geometry((7, 5), (3, 2), 1, "same", 2),
    Geometry((7, 9), (3, 3), 2, "valid", 2, 2),
    Geometry((7, 5), (3, 3), 2, "same", 1, 6),
    Geometry((5, 7), (2, 3), 1, ((1, 2), (0, 1)), 1, 6, 12),
    Geometry((5, 7), (1, 1), 2, "same"),
    Geometry((11,), (4,), 3, "same", 1, 3),
    Geometry((11,), (3,), 1, (2,), 2),
    Geometry((3, 5, 3), (2, 2, 2), 2, "same"),
]


def program_of(dtype):
    """All geometries in one graph: outputs, and the gradients by both operands."""
    outputs, inputs, feeds = {}, [], {}
    for number, case in enumerate(GRID):
        rng = seeded(case)
        arrays = [rng.standard_normal(shape).astype(dtype) for shape in ((2, *case.sizes, 6), case.kernel())]
        x, kernel = (gx.placeholder(f"{n}{number}", a.shape, dtype) for n, a in zip("xk", arrays, strict=True))
        y = case.node(x, kernel)
        dx, dk = gx.grad(gx.sum(gx.sin(y)), [x, kernel])
        outputs |= {f"y{number}": y, f"dx{number}": dx, f"dk{number}": dk}
        inputs += [x, kernel]
        feeds |= {x.name: arrays[0], kernel.name: arrays[1]}
    return outputs, inputs, feeds


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-5), ("float64", 1e-12)])
def test_every_geometry_against_the_reference_and_onnxruntime(dtype, tolerance):
    outputs, inputs, feeds = program_of(dtype)
    truth = evaluate(list(outputs.values()), dict(zip(inputs, feeds.values(), strict=True)))
    found = gx.compile(outputs, inputs=inputs, backend="numba")(**feeds)
    exported = build_model(make_graph(outputs, inputs))
    theirs = run_session(open_session(exported.model, "grid"), feeds, exported.outputs, "grid")
    kinds = {node.op_type for node in exported.model.graph.node}
    assert {"Conv", "ConvTranspose"} <= kinds if dtype == "float32" else "Scan" in kinds
    for name, wanted in zip(outputs, truth, strict=True):
        for judged in (found, theirs):
            np.testing.assert_allclose(judged[name], wanted, rtol=tolerance, atol=10 * tolerance, err_msg=name)


@pytest.mark.parametrize("number", range(len(GRID)))
def test_gradients_against_differences(number):
    case, rng = GRID[number], seeded(number)
    arrays = [rng.standard_normal(shape) for shape in ((2, *case.sizes, 6), case.kernel())]
    moves = [rng.standard_normal(array.shape) for array in arrays]
    x, kernel = (gx.placeholder(n, a.shape, "float64") for n, a in zip("xk", arrays, strict=True))
    loss = gx.sum(gx.sin(case.node(x, kernel)))
    gradients = evaluate(gx.grad(loss, [x, kernel]), {x: arrays[0], kernel: arrays[1]})

    def moved(step):
        return evaluate([loss], {x: arrays[0] + step * moves[0], kernel: arrays[1] + step * moves[1]})[0]

    numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
    exact = sum(np.sum(g * move) for g, move in zip(gradients, moves, strict=True))
    np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-7)


def everything(x, kernel):
    """Each function with gradients, on one image."""
    layers = {
        "same": gx.conv(x, kernel, 1, "same"),
        "strided": gx.conv(x, kernel, 2, "same"),
        "valid": gx.conv(x, kernel, 2),
        "back": gx.conv_transpose(x, kernel, 2, "same"),
        "back_valid": gx.conv_transpose(x, kernel, 2),
        "max": gx.max_pool(x, 3, 2, "same"),
        "halves": gx.max_pool(x, 2),
        "mean": gx.average_pool(x, 3, 2, "same"),
        "windows": gx.windows(x, (2, 3), 2, axis=(1, 2)),
    }
    loss = gx.constant(0.0)
    for layer in layers.values():
        loss = loss + gx.sum(gx.sin(layer))
    return layers | dict(zip(("dx", "dk"), gx.grad(loss, [x, kernel]), strict=True))


def test_one_program_serves_every_size():
    x, kernel = gx.placeholder("x", ("batch", "height", "width", 3)), gx.placeholder("k", (3, 3, 3, 3))
    outputs = everything(x, kernel)
    step = gx.compile(outputs, inputs=[x, kernel], backend="numba")
    exported = build_model(make_graph(outputs, [x, kernel]))
    session = open_session(exported.model, "named")
    for batch, height, width in ((2, 7, 6), (3, 5, 9), (1, 4, 4)):
        rng = seeded(batch, height, width)
        feeds = {"x": rng.standard_normal((batch, height, width, 3)).astype(np.float32)}
        feeds["k"] = rng.standard_normal((3, 3, 3, 3)).astype(np.float32)
        fixed = [gx.placeholder(name, array.shape) for name, array in feeds.items()]
        truth = dict(zip(outputs, evaluate(list(everything(*fixed).values()), dict(zip(fixed, feeds.values(), strict=True))),
                         strict=True))  # fmt: skip
        for found in (step(**feeds), run_session(session, feeds, exported.outputs, "named")):
            for name, wanted in truth.items():
                np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-4, err_msg=name)


def test_an_image_with_no_room_for_a_window_has_no_results():
    """A size with a name may be one too small when the program runs."""
    x, kernel = gx.placeholder("x", ("batch", "height", 5, 3)), gx.parameter("k", np.ones((3, 2, 3, 4), np.float32))
    outputs = {"conv": gx.conv(x, kernel), "max": gx.max_pool(x, (3, 2)), "mean": gx.average_pool(x, (3, 2))}
    loss = sum((gx.sum(gx.square(layer)) for layer in outputs.values()), gx.constant(0.0))
    outputs |= dict(zip(("dx", "dk"), gx.grad(loss, [x, kernel]), strict=True))
    image = np.ones((2, 2, 5, 3), np.float32)
    for backend in ("numba", "reference"):
        found = gx.compile(outputs, inputs=[x], backend=backend)(x=image)
        shapes = [found[name].shape for name in ("conv", "max", "mean")]
        assert shapes == [(2, 0, 4, 4), (2, 0, 2, 3), (2, 0, 2, 3)]
        assert not found["dx"].any()
        assert not found["dk"].any()


def test_of_groups_only_one_image_is_ever_spread_out():
    x, kernel = gx.placeholder("x", ("batch", 16, 16, 8)), gx.placeholder("k", (3, 3, 4, 8))
    step = gx.compile({"y": gx.conv(x, kernel, groups=2)}, inputs=[x, kernel], backend="numba")
    patches = 14 * 14 * 9 * 8 * 4
    one, many = (step.memory(batch=batch).peak_bytes for batch in (1, 64))
    result = 14 * 14 * 8 * 4
    assert patches <= one == many < 1.2 * (patches + result)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: gx.conv(x, gx.zeros((3, 3, 4, 2))), "3 channels in 1 groups"),
        (lambda x: gx.conv(x, gx.zeros((3, 3, 3, 2)), padding="full"), "no padding 'full'"),
        (lambda x: gx.conv(x, gx.zeros((3, 3, 3))), "x has 4 axes, the kernel 3"),
        (lambda x: gx.max_pool(x, (2, 2, 2)), r"sizes is \(2, 2, 2\)"),
        (lambda x: gx.conv_transpose(x, gx.zeros((3, 3, 2, 3)), output_padding=-1), "output_padding is -1"),
        (lambda x: gx.conv(x, gx.zeros((3, 3, 3, 2)), padding=[(0, -1), (1, 1)]), r"padding is \[\(0, -1"),
        (lambda x: gx.max_pool(x, 2, padding=-1), "padding is -1"),
        (lambda x: gx.windows(x, 2, axis=(0, 2)), "not neighbours"),
    ],
)
def test_mistakes_are_told(make, says):
    with pytest.raises(gx.GraphcError, match=says):
        make(gx.placeholder("x", (2, 8, 8, 3)))
