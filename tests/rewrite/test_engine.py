"""The engine: fixpoint, memo, log, fuel, and its refusal of broken rules."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.node import Node, topological
from graphc.ops.arithmetic import Add, Multiply
from graphc.ops.exponential import Exp
from graphc.passes import SIMPLIFY, simplify
from graphc.rewrite import RewriteLog, Rule, RuleSet, rewrite, rule
from graphc.rewrite.pattern import uniform_value
from tests.counting import calls_of
from tests.rewrite.numeric import values_of

X, Y = gx.placeholder("x", (3,)), gx.placeholder("y", (3,))


def nothing(leaf: object) -> Node:
    return X


def test_matches_both_orders_and_repeated_wildcards() -> None:
    twice = Rule("twice", "x + exp(x).", lambda x: x + gx.exp(x), lambda x: x)
    rules = RuleSet((twice,))
    assert all(new is X for new in rewrite([gx.exp(X) + X, X + gx.exp(X)], rules))
    kept = X + gx.exp(Y)
    assert rewrite([kept], rules)[0] is kept


def test_backtracks_through_commutative_ops() -> None:
    deep = Rule("deep", "(x * 2 + y) * (x + 1).", lambda x, y: (x * 2.0 + y) * (x + 1.0), lambda x, y: x - y)
    node = (1.0 + X) * (gx.tanh(Y) + 2.0 * X)
    assert rewrite([node], RuleSet((deep,)))[0] is X - gx.tanh(Y)


def test_numbers_match_by_value_and_constants_of_any_shape() -> None:
    one = Rule("one", "x * 1.", lambda x: x * 1.0, lambda x: x)
    rules = RuleSet((one,))
    x64 = gx.placeholder("x", (3,), "float64")
    for node, expected in [
        (X * np.ones(3, np.float32), X),
        (x64 * 1.0, x64),
        (x64 * gx.ones((3,), "float64"), x64),
    ]:
        assert rewrite([node], rules)[0] is expected
    wide = rewrite([X * np.ones((2, 3), np.float32)], rules)[0]
    assert wide is gx.broadcast_to(X, (2, 3))
    integers = gx.placeholder("i", (3,), "int32") * 1
    assert rewrite([integers], rules)[0] is integers


def test_uniform_value_of_nan_is_none() -> None:
    assert uniform_value(gx.constant(np.float32(np.nan))) is None
    assert uniform_value(gx.full((0, 3), 1.0)) == 1.0
    assert uniform_value(gx.constant(np.zeros(10**6))) is None


def test_the_first_rule_wins_and_every_firing_is_logged() -> None:
    @rule(Exp, example=nothing)
    def first(node: Node) -> Node | None:
        return gx.tanh(node.args[0])

    @rule(Exp, example=nothing)
    def second(node: Node) -> Node | None:
        return gx.sin(node.args[0])

    log = RewriteLog()
    node = gx.exp(gx.exp(X))
    (new,) = rewrite([node], RuleSet((first, second)), log)
    assert new is gx.tanh(gx.tanh(X))
    assert [firing.rule for firing in log.firings] == ["first", "first"]
    assert log.firings[0].before is gx.exp(X)
    assert log.firings[0].loc is not None
    assert "test_engine.py" in str(log)
    assert "<exp: f32[3]> -> <tanh: f32[3]>" in str(log)


def test_a_shared_node_is_rewritten_once() -> None:
    calls: list[Node] = []

    @rule(Exp, example=nothing)
    def count(node: Node) -> Node | None:
        calls.append(node)
        return None

    h = gx.exp(X)
    for _ in range(50):
        h = h + h
    rewrite([h, gx.exp(X)], RuleSet((count,)))
    assert len(calls) == 1


def test_what_a_rule_builds_is_rewritten_too() -> None:
    unfold = Rule("unfold", "exp(x).", lambda x: gx.exp(x), lambda x: gx.tanh(x) + 0.0)
    zero = Rule("zero", "x + 0.", lambda x: x + 0.0, lambda x: x)
    assert rewrite([gx.exp(gx.exp(X))], RuleSet((unfold, zero)))[0] is gx.tanh(gx.tanh(X))


@pytest.mark.parametrize("fuel", range(6))
def test_fuel_limits_firings_and_every_prefix_is_valid(fuel: int) -> None:
    node = gx.negative(-(gx.log(gx.softmax((X + 0) * 1)) * 1 + 0))
    log = RewriteLog(fuel)
    new = simplify(node, log)
    full = RewriteLog()
    simplify(node, full)
    assert len(full.firings) > 5
    assert [f.rule for f in log.firings] == [f.rule for f in full.firings[:fuel]]
    values = {X: np.array([0.1, 0.2, 0.3], np.float32)}
    a, b = values_of([node, new], values)
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_fuel_bisects_a_wrong_rule() -> None:
    wrong = Rule("wrong", "exp(x) is not tanh(x).", lambda x: gx.exp(x), lambda x: gx.tanh(x))
    right = Rule("right", "x + x = x * 2.", lambda x: x + x, lambda x: x * 2)
    node = gx.exp(X) + gx.exp(X) + (Y + Y)
    values = {X: np.ones(3, np.float32), Y: np.ones(3, np.float32)}
    (expected,) = values_of([node], values)
    low, high = 0, 10
    while low < high:
        middle = (low + high) // 2
        log = RewriteLog(middle + 1)
        (found,) = values_of(rewrite([node], RuleSet((wrong, right)), log), values)
        low, high = (middle + 1, high) if np.allclose(found, expected) else (low, middle)
    log = RewriteLog(low + 1)
    rewrite([node], RuleSet((wrong, right)), log)
    assert log.firings[-1].rule == "wrong"


def test_a_rule_that_changes_a_type_is_named() -> None:
    @rule(Exp, example=nothing)
    def shrink(node: Node) -> Node | None:
        return gx.concatenate([node.args[0], node.args[0]])

    @rule(Exp, example=nothing)
    def recast(node: Node) -> Node | None:
        return gx.cast(node.args[0], "float64")

    for broken in (shrink, recast):
        with pytest.raises(gx.VerifyError, match=broken.name):
            rewrite([gx.exp(X)], RuleSet((broken,)))


def test_rules_that_undo_each_other_are_named() -> None:
    @rule(Add, example=nothing)
    def swap(node: Node) -> Node | None:
        return node.args[1] + node.args[0]

    @rule(Multiply, example=nothing)
    def grow(node: Node) -> Node | None:
        return node * 1.5 * node.args[0]

    with pytest.raises(gx.VerifyError, match="swap"):
        rewrite([X + Y], RuleSet((swap,)))
    with pytest.raises(gx.VerifyError, match="grow"):
        rewrite([X * Y], RuleSet((grow,)))


def test_nodes_keep_the_line_of_what_they_replace() -> None:
    h = gx.log(gx.sigmoid(X))
    new = simplify(h)
    assert [node.loc.line for node in topological([new]) if node.args and node.loc] == [h.loc.line] * 3  # type: ignore[union-attr]


def test_the_result_does_not_depend_on_what_was_built_before() -> None:
    def build() -> Node:
        a, b = gx.placeholder("a", (3,)), gx.parameter("b", np.ones(3, np.float32))
        return gx.mean((gx.softmax(a * b) - 1) ** 2 + b * a)

    texts = []
    for _ in range(2):
        node = build()
        texts.append(gx.formula(simplify(gx.grad(node, [topological([node])[1]])[0])))
        gx.placeholder("other", (3,)) * 2  # between the two
    assert texts[0] == texts[1]


def test_twice_the_nodes_are_twice_the_work() -> None:
    def gradients(count: int) -> list[gx.Node]:
        h = X
        parameters = [gx.parameter(f"w{i}", np.ones(3, np.float32)) for i in range(count)]
        for w in parameters:
            h = gx.tanh(h * w + 1.0) - h
        return gx.grad(gx.sum(h * X), parameters)

    some, twice = gradients(50), gradients(100)
    assert len(topological(twice)) > 1200
    work = [calls_of(lambda nodes=nodes: rewrite(nodes, SIMPLIFY)) for nodes in (some, twice)]
    assert work[1] < 2.5 * work[0], "quadratic work would be four times as much"
