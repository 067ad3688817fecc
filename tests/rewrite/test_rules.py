"""Every rule of every table: it fires on its example, keeps the type, and keeps the values."""

from __future__ import annotations

import pytest

from graphc.ir.node import Node
from graphc.passes.simplify import SIMPLIFY
from graphc.passes.specialize import SPECIAL
from graphc.rewrite import FunctionRule, RewriteLog, Rule, RuleSet, rewrite
from tests.rewrite.numeric import Leaves, assert_close, values_of

SHAPES = [(2, 3), (3,), (2, 1), (), (1,), ("n", 3)]
ALL = (SIMPLIFY + SPECIAL).rules


def examples(rule: Rule | FunctionRule, leaf: Leaves) -> list[Node]:
    if isinstance(rule, FunctionRule):
        return [example(leaf) for example in rule.examples]
    dtypes = ["float32", "float64", *(["int32", "int64"] if rule.integers else [])]
    found = []
    for dtype in dtypes:
        for _ in range(3):
            shapes = [SHAPES[leaf.rng.integers(5)] for _ in rule._wildcards]
            operands = {
                name: leaf(*shape, dtype=rule.types.get(name, dtype), low=rule.domain[0], high=rule.domain[1])
                for name, shape in zip(rule._wildcards, shapes, strict=True)
            }
            if dtype.startswith("int"):
                found.append(on_integers(rule, operands))
            else:
                found.append(rule.lhs(*operands.values()))
    return found


def on_integers(rule: Rule, operands: dict[str, Node]) -> Node:
    """The left side with its float numbers as integers."""
    (dtype,) = {operand.dtype for operand in operands.values()}
    pattern = rule.pattern
    from graphc.ir.graph import rebuild
    from graphc.ir.node import Constant, apply, constant

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if node in rule._names:
            return operands[rule._names[node]]
        if isinstance(node.op, Constant):
            return constant(int(node.op.array), dtype)
        return apply(node.op, *args)

    return rebuild([pattern], replace)[0]


def check(rule: Rule | FunctionRule, leaf: Leaves) -> None:
    for node in examples(rule, leaf):
        log = RewriteLog()
        (new,) = rewrite([node], RuleSet((rule,)), log)
        assert log.counts[rule.name], f"{rule.name} did not fire on {node!r}"
        assert new is not node
        assert new.type == node.type
        before, after = values_of([node, new], leaf.values)
        assert_close(after, before)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)
def test_keeps_values(rule: Rule | FunctionRule, seed: int) -> None:
    check(rule, Leaves(seed))


@pytest.mark.parametrize("rule", [rule for rule in ALL if rule.specials], ids=lambda rule: rule.name)
def test_keeps_special_values(rule: Rule | FunctionRule) -> None:
    for seed in range(10):
        check(rule, Leaves(seed, special=True))


def test_every_rule_has_a_name_and_says_why() -> None:
    names = [rule.name for rule in ALL]
    assert len(names) == len(set(names))
    for rule in ALL:
        assert rule.name.isidentifier()
        assert rule.doc.strip().endswith("."), rule.name
        assert not isinstance(rule, FunctionRule) or rule.examples


@pytest.mark.parametrize("seed", range(20))
def test_simplified_is_a_fixpoint(seed: int) -> None:
    leaf = Leaves(seed)
    nodes = [node for rule in ALL for node in examples(rule, leaf)]
    once = rewrite(nodes, SIMPLIFY)
    assert all(a is b for a, b in zip(rewrite(once, SIMPLIFY), once, strict=True))
    for before, after in zip(values_of(nodes, leaf.values), values_of(once, leaf.values), strict=True):
        assert_close(after, before)
