"""``x[...]`` is NumPy's, for every index that NumPy takes, of fixed and of symbolic sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gx
from tests.ops.table import evaluate

BOUND = st.none() | st.integers(-7, 7)
SLICES = st.builds(slice, BOUND, BOUND, st.none() | st.integers(-4, 4).filter(bool))
INDEX = st.tuples(SLICES | st.integers(-4, 3), SLICES | st.integers(-3, 2))


@st.composite
def indices(draw):
    """Indices of an array of shape (4, 3, 5): ints, slices, None and Ellipsis."""
    items = list(draw(INDEX))
    if draw(st.booleans()):
        items.append(draw(SLICES | st.integers(-5, 4)))
    else:
        items.insert(draw(st.integers(0, 2)), Ellipsis)
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), None)
    return tuple(items)


def compare(x, values, index):
    """The same elements as NumPy's, or a refusal where NumPy refuses."""
    try:
        wanted = values[index]
    except IndexError:
        with pytest.raises(gx.AxisError, match="is outside axis"):
            x[index]
        return
    (found,) = evaluate([x[index]], {x: values})
    np.testing.assert_array_equal(found, wanted)
    assert found.shape == wanted.shape


@given(indices())
@settings(max_examples=150)
def test_fixed_sizes(index):
    values = np.arange(60.0).reshape(4, 3, 5)
    x = gx.placeholder("x", values.shape, "float64")
    compare(x, values, index)


@given(indices(), st.integers(4, 6))
@settings(max_examples=100)
def test_symbolic_sizes(index, n):
    values = np.arange(15.0 * n).reshape(n, 3, 5)
    x = gx.placeholder("x", ("n", 3, 5), "float64")
    compare(x, values, index)


@given(SLICES)
@settings(max_examples=100)
def test_gradient_is_a_scatter(index):
    """The transpose of a slice: ones where elements were taken."""
    values = np.zeros((5,))
    x = gx.placeholder("x", (5,), "float64")
    (g,) = gx.grad(gx.sum(x[index]), [x])
    wanted = np.zeros(5)
    wanted[index] = 1
    (found,) = evaluate([g], {x: values})
    np.testing.assert_array_equal(found, wanted)


@st.composite
def advanced(draw):
    """Indices of an array of shape (4, 3, 5) with arrays that broadcast, masks, ints, slices, None and Ellipsis."""
    arrays = st.sampled_from(["column", "row", "number", "list"])
    items, axis, seed = [], 0, draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    for size in (4, 3, 5):
        kind = draw(st.sampled_from(["array", "slice", "int", "mask"]))
        if kind == "array":
            shape = {"column": (2, 1), "row": (3,), "number": (), "list": (1,)}[draw(arrays)]
            array = rng.integers(-size, size, shape)
            items.append(array.tolist() if array.shape == (1,) else array)
        elif kind == "mask":
            mask = np.zeros(size, bool)
            mask[rng.integers(size)] = True
            items.append(mask)
        else:
            items.append(draw(SLICES) if kind == "slice" else int(rng.integers(-size, size)))
        axis += 1
    if draw(st.booleans()):
        items = items[: draw(st.integers(1, 3))]
    for _ in range(draw(st.integers(0, 1))):
        items.insert(draw(st.integers(0, len(items))), None)
    if draw(st.booleans()):
        # where axes are left for it only at the end, so that masks stand at their axes
        items.insert(draw(st.integers(0, len(items))) if sum(i is not None for i in items) == 3 else len(items), ...)
    return tuple(items)


@given(advanced(), st.booleans())
@settings(max_examples=200)
def test_arrays_and_masks_as_in_numpy(index, named):
    values = np.arange(60.0).reshape(4, 3, 5)
    first = index[0] if index else None
    named = named and not (isinstance(first, np.ndarray) and first.dtype == bool)  # whose axis must be known
    x = gx.placeholder(
        "x", ("n", 3, 5) if named and first is not Ellipsis and first is not None else (4, 3, 5), "float64"
    )
    compare(x, values, index)


def test_a_mask_of_several_axes():
    values = np.arange(60.0).reshape(4, 3, 5)
    x = gx.placeholder("x", (4, 3, 5), "float64")
    mask = values[..., 0] % 2 == 0
    for index in (mask, (mask, 1), (Ellipsis, values[0] > 7), (slice(1, 3), values[0] % 3 == 0)):
        compare(x, values, index)


def test_names_of_sizes_stay_simple():
    x = gx.placeholder("x", ("n", 3))
    n = x.shape[0]
    assert x[1:].shape == (n - 1, 3)
    assert x[:-1].shape == (n - 1, 3)
    assert x[::-1].shape == x.shape
    assert x[0].shape == x[-1].shape == (3,)
    assert x[n - 1].shape == (3,)
    assert x[: n - 1].shape == (n - 1, 3)
    assert x[:, 1:].shape == (n, 2)


def test_an_array_of_integers_takes_rows():
    x, i = gx.placeholder("x", (4, 3)), gx.placeholder("i", (2, 2), "int32")
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows = np.array([[0, 3], [1, 1]], np.int32)
    a, b, c = evaluate([x[i], x[np.array([2, 0])], x[[1, 3]]], {x: values, i: rows})
    np.testing.assert_array_equal(a, values[rows])
    np.testing.assert_array_equal(b, values[[2, 0]])
    np.testing.assert_array_equal(c, values[[1, 3]])


@pytest.mark.parametrize(
    ("index", "error", "says"),
    [
        (4, gx.AxisError, "index 4 is outside axis 0 of size 4"),
        (-5, gx.AxisError, "index -5 is outside axis 0 of size 4"),
        ((0, 0, 0), gx.AxisError, "3 indices for 2 axes"),
        ((..., ...), gx.AxisError, "two Ellipsis"),
        (slice(None, None, 0), gx.AxisError, "the step of a slice is 0"),
        (1.5, gx.DTypeError, "1.5 cannot index axis 0"),
        ((0, True), gx.DTypeError, "True cannot index axis 1"),
        ((0, np.array([1, 3])), gx.AxisError, "index 3 is outside axis 1 of size 3"),
        ((0, 1, [0]), gx.AxisError, "3 indices for 2 axes"),
        (slice(0.5, 2), gx.DTypeError, "a slice bound is 0.5"),
        (np.array([0.5]), gx.DTypeError, "an array index is float64"),
        (np.array([True, False, True]), gx.ShapeError, "a mask of shape (3,) does not fit"),
        (gx.placeholder("mask", (4,), "bool"), gx.DTypeError, "choose with gx.where"),
        ((0, "a"), gx.DTypeError, "'a' cannot index axis 1"),
    ],
)
def test_other_indices_are_refused(index, error, says):
    x = gx.placeholder("x", (4, 3))
    with pytest.raises(error) as caught:
        x[index]
    text = str(caught.value)
    for words in ("getitem: ", says, "x: f32[4, 3]", "test_slicing.py", "to do: "):
        assert words in text
