"""Splitting, tiling, padding, diagonals and products of whole values beside NumPy, of fixed and of named sizes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from tests.ops.rows import Row, check_backend, check_gradient, check_onnx, ids

PADS = (((2, 1), (1, 3)), ((0, 4), (5, 0)), ((1, 0), (0, 0)))


def row_pad(mode, low, high):
    widths = tuple(zip(low, high, strict=True))
    return Row(
        f"pad {mode} {widths}",
        lambda x: gx.pad(x, low, high, mode=mode),
        lambda x: np.pad(x, widths, mode),
        ((3, 4),),
        (("m", "n"),),
    )


def row_matrix(name, make, by_numpy, shape=(4, 5), named=("m", "n")):
    def row(k):
        return Row(f"{name} {k}", lambda x: make(x, k), lambda x: by_numpy(x, k), (shape,), (named,))

    return [row(k) for k in (0, 2, -1, 7)]


ROWS = [
    Row("split", lambda x: gx.split(x, 3, 1), lambda x: np.split(x, 3, 1), ((2, 6),), (("m", 6),)),
    Row("split a named axis", lambda x: gx.split(gx.concatenate([x, x]), 2), lambda x: [x, x], ((2, 3),), (("m", 3),)),
    Row("split places", lambda x: gx.split(x, [1, 3, 3, 9]), lambda x: np.split(x, [1, 3, 3, 9]), ((5,),)),
    Row("split from the end", lambda x: gx.split(x, [2, -1]), lambda x: np.split(x, [2, -1]), ((5, 2),), (("m", 2),)),
    Row("stack", lambda x, y: gx.stack([x, y], -1), lambda x, y: np.stack([x, y], -1), ((2, 3), (2, 3)),
        (("m", "n"), ("m", "n"))),
    Row("unstack", lambda x: gx.unstack(x, 1), lambda x: [x[:, 0], x[:, 1]], ((3, 2),), (("m", 2),)),
    Row("swapaxes", lambda x: gx.swapaxes(x, 0, -1), lambda x: np.swapaxes(x, 0, -1), ((2, 3, 4),), (("a", 3, "b"),)),
    Row("moveaxis", lambda x: gx.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1), ((2, 3, 4),)),
    Row("moveaxis many", lambda x: gx.moveaxis(x, (2, 0), (0, -2)), lambda x: np.moveaxis(x, (2, 0), (0, -2)),
        ((2, 3, 4, 2),)),
    Row("expand", lambda x: gx.expand(x, (2, -1, 4)), lambda x: np.broadcast_to(x, (2, 3, 4)), ((3, 1),), (("m", 1),)),
    Row("tile", lambda x: gx.tile(x, (2, 3)), lambda x: np.tile(x, (2, 3)), ((2, 3),), (("m", "n"),)),
    Row("tile new axes", lambda x: gx.tile(x, (2, 1, 2)), lambda x: np.tile(x, (2, 1, 2)), ((2, 3),)),
    Row("tile one count", lambda x: gx.tile(x, 2), lambda x: np.tile(x, 2), ((2, 3),)),
    Row("tile nothing", lambda x: gx.tile(x, (0, 2)), lambda x: np.tile(x, (0, 2)), ((2, 3),)),
    Row("repeat", lambda x: gx.repeat(x, 3, 1), lambda x: np.repeat(x, 3, 1), ((2, 3),), (("m", "n"),)),
    Row("repeat flat", lambda x: gx.repeat(x, 2), lambda x: np.repeat(x, 2), ((2, 3),), (("m", 3),)),
    Row("repeat by counts", lambda x: gx.repeat(x, [2, 0, 3], 1), lambda x: np.repeat(x, [2, 0, 3], 1), ((2, 3),),
        (("m", 3),)),
    Row("roll", lambda x: gx.roll(x, 2, 0), lambda x: np.roll(x, 2, 0), ((5, 3),), (("m", 3),)),
    Row("roll back", lambda x: gx.roll(x, -8, 0), lambda x: np.roll(x, -8, 0), ((5, 3),), (("m", 3),)),
    Row("roll flat", lambda x: gx.roll(x, 4), lambda x: np.roll(x, 4), ((2, 3),)),
    Row("roll axes", lambda x: gx.roll(x, (1, 2), (0, 1)), lambda x: np.roll(x, (1, 2), (0, 1)), ((2, 3),)),
    Row("roll axes by one", lambda x: gx.roll(x, 1, (0, 1)), lambda x: np.roll(x, 1, (0, 1)), ((2, 3),)),
    Row("roll nothing", lambda x: gx.roll(x, 1, 0), lambda x: np.roll(x, 1, 0), ((0, 3),)),
    Row("meshgrid", lambda x, y, z: gx.meshgrid(x, y, z), lambda x, y, z: list(np.meshgrid(x, y, z)),
        ((2,), (3,), (4,)), (("a",), ("b",), (4,))),
    Row("meshgrid ij", lambda x, y: gx.meshgrid(x, y, indexing="ij"), lambda x, y: list(np.meshgrid(x, y, indexing="ij")),
        ((2,), (3,))),
    Row("meshgrid of a number", lambda x: gx.meshgrid(x), lambda x: list(np.meshgrid(x)), ((),)),
    *(row_pad(mode, low, high) for mode in ("edge", "reflect", "symmetric", "wrap") for low, high in PADS),
    Row("pad reflect of one", lambda x: gx.pad(x, (2,), (3,), mode="reflect"), lambda x: np.pad(x, (2, 3), "reflect"),
        ((1,),), (("n",),)),
    Row("pad and cut", lambda x: gx.pad(x, (2, -1), (-1, 1)), lambda x: np.pad(x[:-1, 1:], ((2, 0), (0, 1))), ((3, 4),),
        (("m", 4),)),
    Row("pad edge and cut", lambda x: gx.pad(x, (-1, 2), (1, -2), mode="edge"),
        lambda x: np.pad(x[1:, :-2], ((0, 1), (2, 0)), "edge"), ((3, 4),), (("m", "n"),)),
    *row_matrix("tril", gx.tril, np.tril), *row_matrix("triu", gx.triu, np.triu),
    *row_matrix("diagonal", lambda x, k: gx.diagonal(x, k), lambda x, k: np.diagonal(x, k)),
    *row_matrix("diagonal tall", lambda x, k: gx.diagonal(x, k), lambda x, k: np.diagonal(x, k), (5, 3)),
    *row_matrix("trace", lambda x, k: gx.trace(x, k), lambda x, k: np.trace(x, k)),
    *row_matrix("diag", gx.diag, np.diag, (3,), ("n",)),
    *row_matrix("tril of bools", lambda x, k: gx.tril(x > 0, k), lambda x, k: np.tril(x > 0, k)),
    *row_matrix("eye", lambda x, k: gx.eye(x.shape[0], x.shape[1], k, "int32"),
                lambda x, k: np.eye(*x.shape, k, dtype=np.int32)),
    *row_matrix("tri", lambda x, k: gx.tri(x.shape[0], k=k, dtype="bool"), lambda x, k: np.tri(len(x), k=k, dtype=bool)),
    Row("diagonal of axes", lambda x: gx.diagonal(x, 1, 2, 0), lambda x: np.diagonal(x, 1, 2, 0), ((3, 2, 4),),
        (("a", 2, "b"),)),
    Row("diagonal of nothing", lambda x: gx.diagonal(x), lambda x: np.diagonal(x), ((0, 4),)),
    Row("linspace", lambda: gx.linspace(-1, 2, 7, dtype="float64"), lambda: np.linspace(-1, 2, 7), ()),
    Row("linspace open", lambda: gx.linspace(-1, 2, 7, False, "float64"), lambda: np.linspace(-1, 2, 7, False), ()),
    Row("linspace of one", lambda a: gx.linspace(a, 2, 1, dtype="float64"), lambda a: np.linspace(a, 2, 1), ((),)),
    Row("linspace of values", lambda a, b: gx.linspace(a, b, 5, dtype="float64"), lambda a, b: np.linspace(a, b, 5),
        ((), ())),
    Row("linspace by a size", lambda a, x: gx.linspace(a, 2.0, x.shape[0], dtype="float64"),
        lambda a, x: np.linspace(a, 2.0, len(x)), ((), np.zeros(4)), ((), ("n",))),
    Row("outer", gx.outer, np.outer, ((2, 3), (4,)), (("m", 3), ("n",))),
    Row("inner", gx.inner, np.inner, ((2, 3), (4, 3)), (("m", "k"), ("n", "k"))),
    Row("inner of vectors", gx.inner, np.inner, ((3,), (3,))),
    Row("inner with a number", gx.inner, np.inner, ((3,), ())),
    Row("vdot", gx.vdot, np.vdot, ((2, 3), (2, 3)), (("m", 3), ("m", 3))),
    Row("kron", gx.kron, np.kron, ((2, 3), (4, 2)), (("m", 3), (4, "n"))),
    Row("kron of other ranks", gx.kron, np.kron, ((2,), (2, 3, 2))),
    Row("tensordot", gx.tensordot, np.tensordot, ((2, 3, 4), (3, 4, 5)), (("m", 3, 4), (3, 4, "n"))),
    Row("tensordot 1", lambda a, b: gx.tensordot(a, b, 1), lambda a, b: np.tensordot(a, b, 1), ((2, 3), (3, 4))),
    Row("tensordot 0", lambda a, b: gx.tensordot(a, b, 0), lambda a, b: np.tensordot(a, b, 0), ((2, 3), (2,))),
    Row("tensordot of axes", lambda a, b: gx.tensordot(a, b, ((0, 2), (1, -1))),
        lambda a, b: np.tensordot(a, b, ((0, 2), (1, -1))), ((2, 3, 4), (5, 2, 4))),
    Row("tensordot of ints", lambda a, b: gx.tensordot(a, b, 1), lambda a, b: np.tensordot(a, b, 1),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2))),
]  # fmt: skip
SMOOTH = [row for row in ROWS if any(isinstance(given, tuple) for given in row.operands)
          and not row.name.startswith(("eye", "tri ", "tril of bools"))]  # fmt: skip


@pytest.mark.parametrize("named", [False, True], ids=["fixed", "named"])
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_rows_are_those_of_numpy(backend, named):
    assert ids(ROWS)
    check_backend([row for row in ROWS if bool(row.named) is named], backend, named)


@pytest.mark.parametrize("named", [False, True], ids=["fixed", "named"])
def test_rows_in_onnxruntime(named):
    check_onnx([row for row in ROWS if row.named or not named], named)


@pytest.mark.parametrize("row", SMOOTH, ids=ids(SMOOTH))
def test_gradients(row):
    check_gradient(row)


def test_a_diagonal_of_known_size_is_a_view():
    """No copy and no run-time check: the sum reads the matrix where the diagonal lies."""
    x = gx.placeholder("x", (5, 5))
    program = gx.compile({"y": gx.trace(x)}, inputs=[x], backend="numba")
    assert program.source().count("def kernel") == 1
    assert program.memory().naive_bytes == 0


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda x: gx.split(x, 3), gx.ShapeError, "size n does not divide into 3"),
        (lambda x: gx.split(x, 2, 1), gx.ShapeError, "size 3 does not divide into 2"),
        (lambda x: gx.split(x, "a"), gx.DTypeError, "sections are 'a'"),
        (lambda x: gx.unstack(x), gx.ShapeError, "axis 0 has size n"),
        (lambda x: gx.swapaxes(x, 0, 2), gx.AxisError, "axis 2"),
        (lambda x: gx.moveaxis(x, (0, 1), 0), gx.ShapeError, "2 axes cannot move to 1"),
        (lambda x: gx.moveaxis(x, (0, 0), (0, 1)), gx.AxisError, "axis 0"),
        (lambda x: gx.expand(x, (-1, 2, 3)), gx.ShapeError, "axis 0 is new"),
        (lambda x: gx.tile(x, (2, -1)), gx.ShapeError, "-1"),
        (lambda x: gx.repeat(x, [1, 2], 1), gx.ShapeError, r"counts are \[1, 2\]"),
        (lambda x: gx.repeat(x, [1, 2], 0), gx.ShapeError, "axis 0 has size n"),
        (lambda x: gx.roll(x, 1.5), gx.DTypeError, "shift is 1.5"),
        (lambda x: gx.roll(x, (1, 2, 3), (0, 1)), gx.ShapeError, "3 shifts for 2 axes"),
        (lambda x: gx.pad(x, (1, 0), (0, 0), mode="mirror"), gx.DTypeError, "'mirror'"),
        (lambda x: gx.pad(x, (1, 0), (0, 0), (1, 0), mode="edge"), gx.DTypeError, "interior"),
        (lambda x: gx.pad(x, (0, -4), (0, 0)), gx.AxisError, "4:3"),
        (lambda x: gx.pad(gx.zeros((0, 2)), (1, 0), (0, 0), mode="wrap"), gx.ShapeError, "no elements"),
        (lambda x: gx.tril(x[0]), gx.ShapeError, "no matrices"),
        (lambda x: gx.triu(x, 0.5), gx.DTypeError, "offset is 0.5"),
        (lambda x: gx.diagonal(x, 0, 1, -1), gx.AxisError, "given twice"),
        (lambda x: gx.diag(gx.sum(x)), gx.ShapeError, "neither a vector nor a matrix"),
        (lambda x: gx.meshgrid(x), gx.ShapeError, "is no vector"),
        (lambda x: gx.meshgrid(x[0], indexing="yx"), gx.DTypeError, "'yx'"),
        (lambda x: gx.linspace(x, 1, 3), gx.ShapeError, "start and stop"),
        (lambda x: gx.linspace(0, 1, 3, dtype="int32"), gx.DTypeError, "int32"),
        (lambda x: gx.vdot(x, x[:, 1:]), gx.ShapeError, "differ in size"),
        (lambda x: gx.tensordot(x, x, 1), gx.ShapeError, "axis 1 of a has size 3, axis 0 of b n"),
        (lambda x: gx.tensordot(x, x, 3), gx.AxisError, "not 3 axes"),
        (lambda x: gx.tensordot(x, x, ((0, 1), (0,))), gx.AxisError, "axes are"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, says):
    with pytest.raises(error, match=says) as caught:
        make(gx.placeholder("x", ("n", 3)))
    assert "test_rearranging.py" in str(caught.value)
    assert "to do: " in str(caught.value)
