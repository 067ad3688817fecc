"""einsum is NumPy's, for random subscripts with ellipses, diagonals, broadcasting and implicit results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gx
from graphc.ops.linear import MatMul
from tests.ops.rows import Row, check_backend, check_gradient, check_onnx, ids
from tests.ops.table import evaluate

SIZES = {"i": 2, "j": 3, "k": 4, "l": 2, "B": 3, "z": 1}


@st.composite
def expressions(draw):
    """Subscripts with operands of float64 or int64."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ellipsis = draw(st.sampled_from([(), (), (2,), (3, 2)]))
    terms, arrays = [], []
    for _ in range(draw(st.integers(1, 4))):
        letters = draw(st.text("ijklBz", max_size=3))
        shape = [SIZES[letter] for letter in letters]
        for axis, letter in enumerate(letters):
            if letters.count(letter) == 1 and draw(st.integers(0, 9)) == 0:
                shape[axis] = 1
        term = letters
        if ellipsis and draw(st.booleans()):
            own = ellipsis[draw(st.integers(0, len(ellipsis))) :]
            place = draw(st.integers(0, len(letters)))
            shape[place:place] = [1 if draw(st.integers(0, 4)) == 0 else size for size in own]
            term = letters[:place] + "..." + letters[place:]
        terms.append(term)
        arrays.append(rng.standard_normal(shape))
    text = ",".join(terms)
    if draw(st.booleans()):
        known = sorted(set(text) & set(SIZES))
        output = "".join(draw(st.permutations(known)))[: draw(st.integers(0, 3))]
        text += "->" + draw(st.sampled_from(["", "..."])) * ("..." in text) + output
        if "..." in text.split("->")[0] and "..." not in text.split("->")[1]:
            text += "..."  # NumPy does not sum over an ellipsis
    return text, arrays


@given(expressions())
@settings(max_examples=200, deadline=None)
def test_random_expressions(expression):
    text, arrays = expression
    wanted = np.einsum(text, *arrays)
    inputs = [gx.placeholder(f"x{i}", array.shape, "float64") for i, array in enumerate(arrays)]
    node = gx.einsum(text, *inputs)
    assert node.shape == wanted.shape
    (found,) = evaluate([node], dict(zip(inputs, arrays, strict=True)))
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-11)


def row(text, *shapes, named=None):
    return Row(text, lambda *x: gx.einsum(text, *x), lambda *x: np.einsum(text, *x), shapes, named)


ROWS = [
    row("ij,jk->ik", (2, 3), (3, 4), named=(("m", "k"), ("k", "n"))),
    row("ij,jk", (2, 3), (3, 4)),
    row("ij,kj->ki", (2, 3), (4, 3)),
    row("bij,bjk->bik", (2, 3, 4), (2, 4, 2), named=(("b", "m", 4), ("b", 4, "n"))),
    row("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4), named=(("b", 2, "q", 4), ("b", 2, "k", 4))),
    row("ii", (3, 3), named=(("n", "n"),)),
    row("ii->i", (3, 3), named=(("n", "n"),)),
    row("iij->ji", (3, 3, 2)),
    row("iii->i", (3, 3, 3)),
    row("ij->ji", (2, 3)),
    row("ij->", (2, 3)),
    row("i,j->ij", (2,), (3,)),
    row("i,i->", (3,), (3,)),
    row("i,i->i", (3,), (3,)),
    row("ij,j", (2, 3), (3,)),
    row("...ij,...jk->...ik", (2, 3, 4), (5, 1, 4, 2)),
    row("...,...", (2, 3), (3,)),
    row("i...->...", (2, 3, 4), named=(("n", 3, "m"),)),
    row("ij,jk,kl->il", (2, 3), (3, 4), (4, 2), named=(("a", "b"), ("b", "c"), ("c", "d"))),
    row("ij,jk,kl,lm->im", (2, 9), (9, 4), (4, 8), (8, 3)),
    row("i,j,k->", (2,), (3,), (4,)),
    row("ij,ij,jk->k", (2, 3), (2, 3), (3, 4)),
    row("abc,bd,cd,a->d", (2, 3, 4), (3, 5), (4, 5), (2,)),
    row("ij,ij->ij", (3, 1), (3, 4)),
    row(" i j , j k -> k i ", (2, 3), (3, 4)),
    row(",i->i", (), (3,)),
    row("i,->i", (3,), ()),
    row("ij,jk->ik of nothing"[:9], (2, 0), (0, 4)),
    Row("integers", lambda a, b: gx.einsum("ij,jk->ki", a, b), lambda a, b: np.einsum("ij,jk->ki", a, b),
        (np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4))),
    Row("one value twice", lambda x: gx.einsum("ij,kj->ik", x, x), lambda x: x @ x.T, ((3, 4),)),
]  # fmt: skip
ROWS = list({r.name: r for r in ROWS}.values())
EMPTY = row("ij,jk->ik", (2, 0), (0, 4))


@pytest.mark.parametrize("named", [False, True], ids=["fixed", "named"])
def test_rows_natively(named):
    assert ids(ROWS)
    check_backend([row for row in ROWS if bool(row.named) is named], "numba", named)


@pytest.mark.parametrize("named", [False, True], ids=["fixed", "named"])
def test_rows_in_onnxruntime(named):
    check_onnx([row for row in ROWS if row.named or not named], named)


def test_sums_over_nothing():
    check_backend([EMPTY], "numba")


@pytest.mark.parametrize("row", [r for r in ROWS if r.name != "integers"], ids=lambda row: row.name)
def test_gradients(row):
    check_gradient(row)


def products(node):
    """The sizes of the matrix products that a node is made of."""
    seen, found, stack = set(), [], [node]
    while stack:
        current = stack.pop()
        if current.uid not in seen:
            seen.add(current.uid)
            stack.extend(current.args)
            if isinstance(current.op, MatMul):
                found.append((current.args[0].shape[-2], current.args[0].shape[-1], current.shape[-1]))
    return found


def test_the_order_is_the_cheapest():
    """From the right: (2000 x 3) @ ((3 x 1000) @ (1000 x 1)) is 200 times cheaper than from the left."""
    a, b, c = gx.placeholder("a", (2000, 3)), gx.placeholder("b", (3, 1000)), gx.placeholder("c", (1000, 1))
    assert sorted(products(gx.einsum("ij,jk,kl->il", a, b, c))) == [(3, 1000, 1), (2000, 3, 1)]
    named = gx.placeholder("a", ("n", 3)), gx.placeholder("b", (3, "m")), gx.placeholder("c", ("m", 2))
    n, m = named[0].shape[0], named[1].shape[1]
    assert set(products(gx.einsum("ij,jk,kl->il", *named))) == {(3, m, 2), (n, 3, 2)}


def test_a_contraction_is_one_matrix_product():
    a, b = gx.placeholder("a", ("b", "n", 4, 3)), gx.placeholder("w", (5, 4, 3))
    node = gx.einsum("bnhd,mhd->bnm", a, b)
    assert len(products(node)) == 1
    assert products(node)[0][1] == 12


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda x: gx.einsum("ij", x, x), gx.ShapeError, "1 terms for 2 operands"),
        (lambda x: gx.einsum("ijk", x), gx.ShapeError, "'ijk' of 'ijk' stands for an operand of 2 axes"),
        (lambda x: gx.einsum("i->i", x), gx.ShapeError, "2 axes"),
        (lambda x: gx.einsum("ij->ik", x), gx.ShapeError, "'k' is no axis"),
        (lambda x: gx.einsum("ij->ii", x), gx.ShapeError, "an axis twice"),
        (lambda x: gx.einsum("i1->i", x), gx.DTypeError, "'1' in 'i1->i' is no letter"),
        (lambda x: gx.einsum("i......", x), gx.DTypeError, "'.' in"),
        (lambda x: gx.einsum("ij,jk", x, x), gx.ShapeError, "axis 'j' has size 3 and n"),
        (lambda x: gx.einsum("ii", x), gx.ShapeError, "axis 'i' has size"),
        (lambda x: gx.einsum("ij,ij->", x > 0, x > 0), gx.DTypeError, "bool"),
        (lambda x: gx.einsum(3, x), gx.DTypeError, "the subscripts are 3"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, says):
    with pytest.raises(error, match=says) as caught:
        make(gx.placeholder("x", ("n", 3)))
    text = str(caught.value)
    for words in ("einsum", "x: f32[n, 3]" if "bool" not in text else "", "test_einsum.py", "to do: "):
        assert words in text
