"""Random numbers of other distributions: which function of the bits they are, and whether they are distributed so."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as special
import scipy.stats as stats

import graphc as gx

COUNT = 1 << 16


def folded(words):
    """The share below the nearer end, exactly."""
    return (np.minimum(words, ~words).astype(np.float64) + 0.5) * 2.0**-32


@pytest.fixture(scope="module")
def drawn():
    """Everything from the same words, in one program."""
    r = gx.random
    outputs = {"words": r.bits((COUNT,), 7, 3)}
    for dtype in ("float32", "float64"):
        for name in ("normal", "truncated_normal", "exponential", "gumbel"):
            outputs[f"{name}/{dtype}"] = getattr(r, name)((COUNT,), 7, 3, dtype=dtype)
    outputs["moved"] = r.normal((COUNT,), 7, 3, mean=2.0, stddev=0.5)
    outputs["scaled"] = r.uniform((COUNT,), 7, 3, low=-3.0, high=5.0)
    outputs["integers"] = r.randint((COUNT,), -2, 5, 7, 3)
    outputs["order"] = r.permutation(500, 7, 3)
    outputs["wide"] = r.randint((COUNT,), -(2**30), 2**30, 7, 3, dtype="int32")
    return gx.compile(outputs, inputs=[], backend="numba")()


BOUND = {"float32": 5e-7, "float64": 2e-15}


@pytest.mark.parametrize("dtype", BOUND)
def test_normal_numbers_are_quantiles(drawn, dtype):
    """Relative to SciPy's inverse distribution function in both tails; near 0 the share is near 1/2 and rounded."""
    words, found = drawn["words"], drawn[f"normal/{dtype}"]
    wanted = np.where(words < 2**31, 1, -1) * special.ndtri(folded(words))
    far = np.abs(wanted) > 0.5
    np.testing.assert_allclose(found[far], wanted[far], rtol=BOUND[dtype])
    np.testing.assert_allclose(found, wanted, rtol=BOUND[dtype], atol=BOUND[dtype] / 4)
    assert np.abs(wanted).max() > 4


@pytest.mark.parametrize("dtype", BOUND)
def test_truncated_numbers_are_quantiles_of_the_middle(drawn, dtype):
    words, found = drawn["words"], drawn[f"truncated_normal/{dtype}"]
    below = special.ndtr(-2.0)
    wanted = np.where(words < 2**31, 1, -1) * special.ndtri(below + (1 - 2 * below) * folded(words))
    np.testing.assert_allclose(found, wanted, rtol=2 * BOUND[dtype], atol=BOUND[dtype])
    assert np.abs(found).max() <= 2


@pytest.mark.parametrize("dtype", BOUND)
def test_exponential_and_gumbel_numbers_are_logarithms(drawn, dtype):
    p = np.where(drawn["words"] < 2**31, folded(drawn["words"]), 1)
    q = folded(drawn["words"])
    wanted = np.where(drawn["words"] < 2**31, -np.log(p), -np.log1p(-q))
    np.testing.assert_allclose(drawn[f"exponential/{dtype}"], wanted, rtol=BOUND[dtype])
    np.testing.assert_allclose(drawn[f"gumbel/{dtype}"], -np.log(wanted), rtol=BOUND[dtype], atol=4 * BOUND[dtype])


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("normal", stats.norm()), ("truncated_normal", stats.truncnorm(-2, 2)), ("exponential", stats.expon()),
        ("gumbel", stats.gumbel_r()), ("scaled", stats.uniform(-3, 8)), ("moved", stats.norm(2, 0.5)),
    ],
)  # fmt: skip
def test_numbers_are_distributed_as_they_should_be(drawn, name, distribution):
    values = drawn[name] if name in drawn else drawn[f"{name}/float32"]
    assert stats.kstest(values, distribution.cdf).pvalue > 1e-3
    mean, variance = distribution.stats()
    assert abs(values.mean(dtype=np.float64) - mean) < 5 * np.sqrt(variance / COUNT)


def test_integers_are_all_drawn_alike(drawn):
    values, counts = np.unique(drawn["integers"], return_counts=True)
    np.testing.assert_array_equal(values, np.arange(-2, 5))
    assert stats.chisquare(counts).pvalue > 1e-3
    wide = drawn["wide"]
    assert wide.dtype == np.int32
    np.testing.assert_array_equal(wide, (drawn["words"].astype(np.int64) >> 1) - 2**30)


def test_a_permutation_holds_each_number_once(drawn):
    order = drawn["order"]
    np.testing.assert_array_equal(order, np.argsort(drawn["words"][:500], kind="stable"))
    np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert abs(stats.spearmanr(order, np.arange(500)).statistic) < 0.15


def test_places_are_drawn_with_the_softmax_of_logits():
    logits = np.log(np.array([0.5, 0.25, 0.2, 0.05, 0]) + 1e-30).astype(np.float32)
    x = gx.placeholder("logits", ("n", 5))
    place = gx.random.categorical(x, seed=1)
    many = np.broadcast_to(logits, (20000, 5))
    found = gx.compile({"y": place}, inputs=[x], backend="numba")(logits=many)["y"]
    assert stats.chisquare(np.bincount(found, minlength=5)[:4], [10000, 5000, 4000, 1000]).pvalue > 1e-3
    assert found.max() == 3


def test_the_exported_file_draws_the_same_numbers(tmp_path):
    r, x = gx.random, gx.placeholder("x", ("n", 8))
    outputs = {
        "normal": x + r.normal(x.shape, 1), "truncated": r.truncated_normal((3, 5), 1, mean=1.0, stddev=2.0),
        "integers": r.randint(x.shape, 0, 10, 1), "place": r.categorical(x, 1), "scaled": r.uniform((4,), 1, high=9.0),
    }  # fmt: skip
    program = gx.compile(outputs, inputs=[x], backend="numba")
    gx.onnx.export(program, tmp_path / "draws.onnx")
    assert gx.onnx.verify(tmp_path / "draws.onnx", program).ok


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(gx.AxisError, match="no integers from 5 to below 5"):
        gx.random.randint((3,), 5, 5, seed=0)
    with pytest.raises(gx.DTypeError, match="float32"):
        gx.random.randint((3,), 0, 5, seed=0, dtype="float32")
    with pytest.raises(gx.AxisError, match="nothing lies"):
        gx.random.uniform((3,), seed=0, low=1.0)
    with pytest.raises(gx.DTypeError, match="logits"):
        gx.random.categorical(gx.placeholder("x", (3,), "int64"), seed=0)
