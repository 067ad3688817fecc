"""Sizes: the canonical form means what the formula means, and equal formulas are equal objects."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from graphc.ir.dims import (
    Dim,
    ceildiv,
    coefficient,
    evaluate,
    floordiv,
    least,
    maximum,
    minimum,
    mod,
    names,
    parse_size,
    product,
    split_multiple,
    substitute,
)

NAMES = ("a", "b", "c")
VALUES = [dict(zip(NAMES, values, strict=True)) for values in itertools.product((1, 2, 5), (1, 3, 4), (1, 7))]
LEAF = st.integers(-6, 6) | st.sampled_from(NAMES)
POSITIVE = st.integers(1, 5) | st.sampled_from(NAMES)


def trees(leaf=LEAF):
    def extend(inner):
        binary = st.tuples(st.sampled_from(["+", "-", "*", "min", "max"]), inner, inner)
        divided = st.tuples(st.sampled_from(["//", "%"]), inner, POSITIVE)
        return binary | divided

    return st.recursive(leaf, extend, max_leaves=6)


def build(tree):
    """A size and, for values of its names, the number that plain arithmetic gives."""
    if isinstance(tree, int):
        return tree, lambda values: tree
    if isinstance(tree, str):
        return Dim(tree), lambda values: values[tree]
    fn, left, right = tree
    (a, plain_a), (b, plain_b) = build(left), build(right)
    size, exact = {
        "+": (lambda: a + b, lambda x, y: x + y),
        "-": (lambda: a - b, lambda x, y: x - y),
        "*": (lambda: a * b, lambda x, y: x * y),
        "//": (lambda: floordiv(a, b), lambda x, y: x // y),
        "%": (lambda: mod(a, b), lambda x, y: x % y),
        "min": (lambda: minimum(a, b), min),
        "max": (lambda: maximum(a, b), max),
    }[fn]
    return size(), lambda values: exact(plain_a(values), plain_b(values))


@given(trees())
@settings(max_examples=300)
def test_the_canonical_form_has_the_value_of_the_formula(tree):
    size, plain = build(tree)
    for values in VALUES:
        assert evaluate(size, values) == plain(values)
        assert substitute(size, values) == plain(values)


@given(trees())
@settings(max_examples=200)
def test_text_reads_back(tree):
    size, _ = build(tree)
    assert parse_size(str(size)) == size
    assert hash(parse_size(str(size))) == hash(size)


@given(trees())
@settings(max_examples=200)
def test_least_is_a_lower_bound(tree):
    size, plain = build(tree)
    assert least(size) <= min(plain(values) for values in VALUES)


@given(trees())
def test_a_size_without_names_is_an_int(tree):
    size, _ = build(tree)
    assert isinstance(size, int) == (not names(size))
    assert pickle.loads(pickle.dumps(size)) == size


@given(trees(), trees(POSITIVE))
@settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_substitution_of_sizes(tree, other):
    (size, plain), (inner, plain_inner) = build(tree), build(other)
    assume(least(inner) >= 1)  # a name stands for a size
    moved = substitute(size, {"a": inner})
    for values in VALUES:
        assert evaluate(moved, values) == plain(values | {"a": plain_inner(values)})


@given(trees(POSITIVE), POSITIVE)
def test_split_multiple(tree, divisor):
    size, divisor = build(tree)[0], build(divisor)[0]
    quotient, rest = split_multiple(size, divisor)
    assert quotient * divisor + rest == size


def test_equal_formulas_are_equal():
    n, m = Dim("n"), Dim("m")
    assert n + m == m + n
    assert (n + 1) * (n - 1) == n * n - 1
    assert hash(2 * n + n) == hash(3 * n)
    assert n * 3 // 3 == n
    assert (n * m + m) // m == n + 1
    assert (n * 6) % 3 == 0
    assert n - n == 0
    assert isinstance(n - n, int)
    assert n != m
    assert n != 1
    assert Dim("n") == n
    assert minimum(n, n + 1) == n
    assert maximum(0, n) == n
    assert minimum(3, 5) == 3
    assert product((2, n, 3)) == 6 * n
    assert product(()) == 1


def test_sizes_print_as_people_write_them():
    n, m = Dim("n"), Dim("m")
    for size, text in (
        (n, "n"), (2 * n, "2*n"), (n * n - 1, "n**2 - 1"), (-n + 3, "-n + 3"), (n // 2, "(n // 2)"), ((n + 1) % 4, "((n + 1) % 4)"),
        (minimum(n, 5), "min(5, n)"), (m * n, "m*n"), (n - m, "-m + n"),
    ):  # fmt: skip
        assert str(size) == repr(size) == text


def test_bounds_simplify_indices():
    i, j, n = Dim("i"), Dim("j"), Dim("n")
    bounds = {"i": n, "j": 512}
    assert floordiv(i * 512 + j, 512, bounds) == i
    assert mod(i * 512 + j, 512, bounds) == j
    assert floordiv(i * 512 + j, 512, {"i": n}) != i
    assert mod(j, 512, {"j": 513}) != j
    assert floordiv(i * n + j, n, {"j": n}) == i


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 6))
def test_bounded_division_is_right_in_every_place(outer, inner, divisor, offset):
    i, j = Dim("i"), Dim("j")
    flat = i * inner + j + offset
    bounds = {"i": outer, "j": inner}
    quotient, rest = floordiv(flat, divisor, bounds), mod(flat, divisor, bounds)
    for values in ({"i": a, "j": b} for a in range(outer) for b in range(inner)):
        whole = values["i"] * inner + values["j"] + offset
        assert (evaluate(quotient, values), evaluate(rest, values)) == divmod(whole, divisor)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_bounded_division_of_divisions_is_right_in_every_place(count, first, second, n, flipped):
    """A reshape of a reshape, maybe from the end: quotients and rests of quotients and rests."""
    i, size = Dim("i"), Dim("n")
    flat = count * size - 1 - i if flipped else i
    bounds = {"i": count * size}
    for divisor in (first, size):
        for part in (floordiv(flat, divisor, bounds), mod(flat, divisor, bounds)):
            quotient, rest = floordiv(part, second, bounds), mod(part, second, bounds)
            for a in range(count * n):
                values = {"i": a, "n": n}
                assert (evaluate(quotient, values), evaluate(rest, values)) == divmod(evaluate(part, values), second)


def test_ceildiv():
    n = Dim("n")
    assert [ceildiv(k, 4) for k in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert evaluate(ceildiv(n, 4), {"n": 9}) == 3
    assert ceildiv(4 * n, 4) == n


def test_coefficient():
    i, n = Dim("i"), Dim("n")
    assert coefficient(i * n + 3, "i") == n
    assert coefficient(i * 2 + i * n, "i") == n + 2
    assert coefficient(n, "i") == 0
    assert coefficient(i * i, "i") is None
    assert coefficient(i // 2, "i") is None
    assert coefficient(i * (i // 2), "i") is None


def test_names():
    assert names(Dim("a") * 2 + minimum(Dim("b"), Dim("c") // 3)) == {"a", "b", "c"}
    assert names(7) == set()


@pytest.mark.parametrize("name", ["", "2n", "a b", "a-b", "n; import os", 3, None])
def test_a_name_is_an_identifier(name):
    with pytest.raises(ValueError, match="must be an identifier"):
        Dim(name)


@pytest.mark.parametrize(
    "text", ["", "n +", "n / 2", "f(n)", "n.x", "__import__('os')", "'n'", "n ** m", "1.5", "n < 2"]
)
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_a_dim_cannot_be_changed_or_asked():
    n = Dim("n")
    with pytest.raises(AttributeError):
        n.terms = ()
    with pytest.raises(TypeError, match="no truth value"):
        bool(n)
    with pytest.raises(TypeError):
        n + 1.5
    with pytest.raises(KeyError):
        evaluate(n, {})
