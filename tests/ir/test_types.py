"""Element types, promotion, shapes, broadcasting."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gx
from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import Dim
from graphc.ir.types import (
    DType,
    Kind,
    TensorType,
    as_dtype,
    as_shape,
    broadcast_shapes,
    converts,
    kind_of,
    promote,
    shape_names,
)

PAIRS = list(itertools.product(DType, repeat=2))


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_promotion_is_numpys_where_the_array_api_defines_it(a, b):
    if a is not b and a.is_half and b.is_half:  # NumPy knows no mix of them; float32 holds both
        assert promote(a, b) is DType.float32
        return
    same_kind = a.kind is b.kind or {a.kind, b.kind} == {Kind.INT, Kind.UINT}
    if same_kind:
        assert promote(a, b).numpy == np.promote_types(a.numpy, b.numpy)
    else:
        with pytest.raises(DTypeError, match=f"{a} and {b} do not mix"):
            promote(a, b)


@pytest.mark.parametrize("dtype", DType)
def test_names_of_element_types(dtype):
    for name in (dtype, dtype.value, dtype.short, dtype.numpy, dtype.numpy.type):
        assert as_dtype(name) is dtype
    assert dtype.itemsize == dtype.numpy.itemsize
    assert str(dtype) == dtype.value
    assert dtype.is_float == (kind_of(dtype.numpy) == "f")
    assert dtype.is_integer == (dtype.numpy.kind in "iu")
    assert dtype.is_half == (dtype.is_float and dtype.itemsize == 2)
    assert dtype.wide is (DType.float32 if dtype.is_half else dtype)


def test_what_becomes_what_without_being_asked():
    for source, target in PAIRS:
        wanted = target.is_float if source.is_float else np.can_cast(source.numpy, target.wide.numpy, "same_kind")
        assert converts(source.numpy, target) == wanted


def test_python_numbers_and_halves_keep_their_type():
    for name in ("float16", "bfloat16"):
        x = gx.placeholder("x", (3,), name)
        assert {(x * 2).dtype.value, (x + 0.5).dtype.value, (1 - x).dtype.value, gx.maximum(x, 0).dtype.value} == {name}
        assert (x + gx.placeholder("y", (3,))).dtype is DType.float32
        assert (x + gx.placeholder("z", (3,), "float64")).dtype is DType.float64
        assert gx.constant(np.ones(2, x.dtype.numpy)).dtype is x.dtype
        assert gx.parameter("w", [1, 2], name).value.dtype == x.dtype.numpy
    assert (gx.placeholder("a", (), "float16") * gx.placeholder("b", (), "bfloat16")).dtype is DType.float32


@pytest.mark.parametrize("value", ["float9", "f7", np.complex64, object(), "", None.__class__])
def test_other_element_types_are_refused(value):
    with pytest.raises(DTypeError, match="no element type") as caught:
        as_dtype(value)
    assert "float32" in str(caught.value)


SHAPES = st.lists(st.sampled_from([0, 1, 2, 3]), max_size=4).map(tuple)


@given(st.lists(SHAPES, min_size=1, max_size=3))
def test_broadcasting_is_numpys(shapes):
    try:
        wanted = np.broadcast_shapes(*shapes)
    except ValueError:
        with pytest.raises(ShapeError, match="do not broadcast"):
            broadcast_shapes(*shapes)
    else:
        assert broadcast_shapes(*shapes) == wanted


def test_dims_broadcast_with_themselves_and_one():
    n, m = Dim("n"), Dim("m")
    assert broadcast_shapes((n, 1), (1, m)) == (n, m)
    assert broadcast_shapes((n,), (2, n)) == (2, n)
    assert broadcast_shapes((2 * n,), (n + n,)) == (2 * n,)
    for other in (m, 3, n + 1):
        with pytest.raises(ShapeError, match="axis -1 is n and"):
            broadcast_shapes((n,), (other,))


def test_shapes():
    n = Dim("n")
    assert as_shape(("n", 3, np.int32(4))) == (n, 3, 4)
    assert as_shape(5) == (5,)
    assert as_shape("n") == as_shape(n) == (n,)
    assert as_shape(()) == ()
    assert shape_names((n * 2, 3, Dim("m"))) == {"n", "m"}


@pytest.mark.parametrize(
    ("shape", "says"),
    [((-1,), "cannot be negative: -1"), ((1.5,), "not a size: 1.5"), (("1n",), "identifier"), ((True,), "not a size: True"), ((None,), "None")],
)  # fmt: skip
def test_other_shapes_are_refused(shape, says):
    with pytest.raises(ShapeError, match=says):
        as_shape(shape)


def test_tensor_types():
    n = Dim("batch")
    type = TensorType(DType.float32, (n, 784))
    assert str(type) == "f32[batch, 784]"
    assert type == TensorType(DType.float32, (Dim("batch"), 784))
    assert hash(type) == hash(TensorType(DType.float32, (Dim("batch"), 784)))
    assert type != TensorType(DType.float64, (n, 784))
    assert (type.rank, type.size) == (2, 784 * n)
    assert type.nbytes({"batch": 2}) == 2 * 784 * 4
    assert TensorType(DType.bool, ()).nbytes() == 1


def test_a_type_from_another_process_is_equal_and_found_in_a_table():
    """Hashes are remembered, and differ from process to process."""
    text = (
        "import pickle, sys; from graphc.ir.types import DType, TensorType; t = TensorType(DType.int32, (3, 4)); hash(t)\n"
        "sys.stdout.buffer.write(pickle.dumps(t))"
    )
    sent = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True).stdout
    assert pickle.loads(sent) in {TensorType(DType.int32, (3, 4))}
