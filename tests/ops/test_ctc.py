"""CTC against all paths, against torch's and optax's numbers, and at its edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc as gx

rng = np.random.default_rng(0)
LOGITS = np.round(np.random.default_rng(0).standard_normal((3, 7, 5)) * 2, 2).astype(np.float32).astype(np.float64)
LABELS = np.array([[1, 2, 2, 4], [3, 3, 0, 0], [4, 1, 2, 0]])
LENGTHS, STEPS = np.array([4, 2, 3]), np.array([7, 6, 5])
TORCH = [11.464508978255147, 10.835994056798928, 6.541278519967596]
"""torch.nn.functional.ctc_loss of the above in double precision; optax.ctc_loss agrees to 1e-14."""
TORCH_SLOPE = [-0.011762486931, 0.154579874221, 0.420191663141, -0.678675543004, 0.115666492573]


def program(dtype="float64", backend="reference", blank=0, classes=5, labels=4):
    """Losses and gradients, for any batch and any time."""
    y = gx.placeholder("y", ("batch", labels), "int64")
    z = gx.placeholder("z", ("batch", "time", classes), dtype)
    lengths, steps = gx.placeholder("lengths", ("batch",), "int64"), gx.placeholder("steps", ("batch",), "int32")
    loss = gx.ctc_loss(y, z, lengths, steps, blank)
    (slope,) = gx.grad(gx.sum(gx.where(gx.isfinite(loss), loss, 0.0)), [z])
    return gx.compile({"loss": loss, "slope": slope}, [y, z, lengths, steps], backend=backend)


def by_all_paths(z, labels, steps, blank):
    """Add up every path that becomes these labels when repetitions and blanks go."""
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    total = 0.0
    for path in itertools.product(range(z.shape[1]), repeat=steps):
        if [c for c, _ in itertools.groupby(path) if c != blank] == list(labels):
            total += np.exp(sum(log_p[t, c] for t, c in enumerate(path)))
    return -np.log(total) if total else np.inf


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_values_and_gradients_are_those_of_torch(backend):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-6)):
        loss, slope = program(dtype, backend).call([LABELS, LOGITS.astype(dtype), LENGTHS, STEPS.astype(np.int32)])
        np.testing.assert_allclose(loss, TORCH, rtol=tolerance)
        np.testing.assert_allclose(slope[1, 2], TORCH_SLOPE, rtol=0, atol=max(tolerance, 1e-11))
        assert np.abs(slope).sum() == pytest.approx(22.865195787691825, rel=tolerance)
        assert not slope[1, 6].any()
        assert not slope[2, 5:].any()


@pytest.mark.parametrize("blank", [0, 2])
def test_values_and_gradients_are_those_of_all_paths(blank):
    other = [c for c in range(3) if c != blank]
    rows = [(), (other[0],), (other[1], other[1]), (other[0], other[1]), (other[1], other[0], other[0])]
    labels = np.full((len(rows), 3), -7)  # what pads is not read
    for row, given in zip(labels, rows, strict=True):
        row[: len(given)] = given
    z, d = rng.standard_normal((len(rows), 5, 3)), rng.standard_normal((len(rows), 5, 3))
    steps = np.array([3, 5, 4, 5, 5])

    def total(at):
        parts = zip(at, rows, steps.tolist(), strict=True)
        return np.array([by_all_paths(a, row, count, blank) for a, row, count in parts])

    lengths = np.array([len(row) for row in rows])
    loss, slope = program(blank=blank, classes=3, labels=3).call([labels, z, lengths, steps.astype(np.int32)])
    np.testing.assert_allclose(loss, total(z), rtol=1e-12)
    numeric = (total(z + 1e-5 * d) - total(z - 1e-5 * d)) / 2e-5
    np.testing.assert_allclose((slope * d).sum((1, 2)), numeric, rtol=1e-7, atol=1e-9)


def test_an_input_too_short_for_its_labels_is_impossible_and_teaches_nothing():
    steps = np.array([4, 2, 3], np.int32)  # 2, 2 needs a blank between; 3, 3 three steps; 4, 1, 2 just fits
    loss, slope = program().call([LABELS, LOGITS, LENGTHS, steps])
    assert np.isinf(loss[:2]).all()
    assert np.isfinite(loss[2])
    assert not slope[:2].any()
    assert np.isfinite(slope).all()


def test_certain_and_hopeless_logits_stay_finite():
    z = np.full((3, 7, 5), -1e4, np.float32)
    z[:, :, 3] = 1e4
    loss, slope = program("float32", "numba").call([LABELS, z, LENGTHS, STEPS.astype(np.int32)])
    assert np.isfinite(loss).all()
    assert np.isfinite(slope).all()
    assert loss[0] == pytest.approx(7 * 2e4, rel=1e-4)
    z = np.full((1, 3, 5), -1e4, np.float32)
    z[0, [0, 1, 2], [1, 0, 1]] = 1e4
    certain = program("float32", "numba").call([np.array([[1, 1, 0, 0]]), z, np.array([2]), np.array([3], np.int32)])
    assert certain[0] == pytest.approx([0.0], abs=1e-6)


def test_lengths_are_found_and_long_inputs_are_exact():
    y, z = gx.placeholder("y", ("batch", 4), "int64"), gx.placeholder("z", ("batch", "time", 5))
    wide = gx.placeholder("w", ("batch", "time", 5), "float64")
    found = gx.compile({"l": gx.ctc_loss(y, z), "w": gx.ctc_loss(y, wide)}, [y, z, wide], backend="reference")
    x = rng.standard_normal((3, 400, 5)).astype(np.float32)
    narrow, exact = found.call([LABELS, x, x.astype(np.float64)])
    np.testing.assert_allclose(narrow, exact, rtol=2e-6)
    (explicit, _) = program().call([LABELS, x.astype(np.float64), LENGTHS, np.full(3, 400, np.int32)])
    np.testing.assert_allclose(exact, explicit, rtol=1e-13)


def test_what_does_not_fit_is_refused():
    y, z = gx.placeholder("y", ("batch", 4), "int64"), gx.placeholder("z", ("batch", 9, 5))
    with pytest.raises(gx.ShapeError, match="labels have shape") as caught:
        gx.ctc_loss(y, z[0])
    assert "batch, time, classes" in str(caught.value)
    with pytest.raises(gx.AxisError, match="blank is class 5 of 5"):
        gx.ctc_loss(y, z, blank=5)
    with pytest.raises(gx.DTypeError, match="labels"):
        gx.ctc_loss(z[:, :4, 0], z)
    run = gx.compile({"l": gx.ctc_loss(y, z)}, [y, z], backend="numba")
    with pytest.raises(gx.IndexRangeError, match="5"):
        run.call([np.array([[1, 5, 0, 0]]), np.zeros((1, 9, 5), np.float32)])
