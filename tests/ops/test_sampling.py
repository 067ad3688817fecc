"""Images read at any places, with SciPy's ndimage as the judge."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import graphc as gx
from graphc.ops.sampling import FILL_MODES
from tests.ops.table import evaluate, seeded

SCIPY = {"constant": "grid-constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}
"""What SciPy calls the fill modes: its plain ``constant`` and ``wrap`` do not interpolate across the edge."""


def sampled(x, rows, columns, **said):
    nodes = [
        gx.placeholder(name, array.shape, array.dtype) for name, array in zip("xrc", (x, rows, columns), strict=True)
    ]
    (found,) = evaluate([gx.grid_sample(*nodes, **said)], dict(zip(nodes, (x, rows, columns), strict=True)))
    return found


@pytest.mark.parametrize("mode", FILL_MODES)
@pytest.mark.parametrize(("how", "order"), [("nearest", 0), ("bilinear", 1)])
def test_places_inside_and_far_outside_are_read_as_by_scipy(mode, how, order):
    rng = seeded(mode, how)
    x = rng.standard_normal((2, 5, 4, 3))
    rows, columns = rng.uniform(-14, 18, (2, 2, 7, 6))
    found = sampled(x, rows, columns, interpolation=how, fill_mode=mode, fill_value=0.7)
    for image, row, column, result in zip(x, rows, columns, found, strict=True):
        for channel in range(3):
            wanted = ndimage.map_coordinates(
                image[..., channel], (row, column), order=order, mode=SCIPY[mode], cval=0.7
            )
            np.testing.assert_allclose(result[..., channel], wanted, rtol=1e-12, atol=1e-12)


def test_affine_maps_are_those_of_scipy_and_may_make_images_of_another_size():
    rng = seeded("affine")
    x, maps = rng.standard_normal((3, 6, 5, 2)), rng.uniform(-1, 1, (3, 2, 3)) * [1, 1, 4]
    image, matrix = gx.placeholder("x", x.shape, x.dtype), gx.placeholder("m", maps.shape, maps.dtype)
    (found,) = evaluate([gx.grid_sample(image, *gx.affine_grid(matrix, (4, 9)))], {image: x, matrix: maps})
    assert found.shape == (3, 4, 9, 2)
    for one, (result, map_) in enumerate(zip(found, maps, strict=True)):
        for channel in range(2):
            wanted = ndimage.affine_transform(
                x[one, ..., channel], map_[:, :2], map_[:, 2], (4, 9), order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(result[..., channel], wanted, rtol=1e-12, atol=1e-12)


def test_whole_places_are_pixels_to_the_last_bit():
    x = seeded("whole").standard_normal((1, 4, 5, 2)).astype(np.float32)
    rows, columns = np.float32(np.meshgrid(np.arange(4), np.arange(5), indexing="ij"))[:, np.newaxis]
    for how in ("nearest", "bilinear"):
        np.testing.assert_array_equal(sampled(x, rows, columns, interpolation=how), x)
        np.testing.assert_array_equal(sampled(x, rows, columns[..., ::-1], interpolation=how), x[:, :, ::-1])


def test_the_derivative_by_places_is_the_slope_between_pixels():
    x = gx.placeholder("x", (1, 2, 2, 1), "float64")
    row, column = (gx.placeholder(name, (1, 1, 1), "float64") for name in ("r", "c"))
    slopes = gx.grad(gx.sum(gx.grid_sample(x, row, column)), [x, row, column])
    given = {
        x: np.array([1.0, 2, 4, 8]).reshape(1, 2, 2, 1),
        row: np.full((1, 1, 1), 0.25),
        column: np.full((1, 1, 1), 0.5),
    }
    by_x, by_row, by_column = evaluate(slopes, given)
    np.testing.assert_allclose(by_x.ravel(), [0.375, 0.375, 0.125, 0.125])
    np.testing.assert_allclose(by_row.ravel(), 0.5 * (4 - 1) + 0.5 * (8 - 2))
    np.testing.assert_allclose(by_column.ravel(), 0.75 * (2 - 1) + 0.25 * (8 - 4))


def test_mistakes_are_told():
    with pytest.raises(gx.ShapeError, match="the matrix has shape"):
        gx.affine_grid(gx.placeholder("m", ("n", 3, 3)), (4, 4))
    with pytest.raises(gx.AxisError, match=r"the size .* has 1 axes"):
        gx.affine_grid(gx.placeholder("m", ("n", 2, 3)), (4,))
    with pytest.raises(gx.DTypeError, match="matrix is int64"):
        gx.affine_grid(gx.placeholder("m", ("n", 2, 3), "int64"), (4, 4))
