"""The engine: rewrite bottom up until no rule fires, each node once.

A node is normal when its operands are and no rule fires on it. The normal form of every node that was met is
remembered, so work is linear in the number of nodes and firings, and the result depends on structure alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from graphc.errors import ShapeError, VerifyError
from graphc.ir import location
from graphc.ir.location import Location
from graphc.ir.node import Node, intern
from graphc.ir.op import Op
from graphc.ops.movement import broadcast_to
from graphc.rewrite.pattern import COMMUTATIVE
from graphc.rewrite.rule import RewriteRule


@dataclass(frozen=True)
class Firing:
    """One application of a rule: ``before`` became ``after``."""

    rule: str
    before: Node
    after: Node

    @property
    def loc(self) -> Location | None:
        """The user's line of the node that was replaced."""
        return self.before.loc

    def __str__(self) -> str:
        where = f"   {self.loc.short}" if self.loc else ""
        return f"{self.rule}: {self.before!r} -> {self.after!r}{where}"


@dataclass
class RewriteLog:
    """All firings in order; with ``fuel``, no more than that many, which bisects for a rule that breaks a graph.

    >>> import graphc as gx
    >>> from graphc.passes import simplify
    >>> log = RewriteLog()
    >>> x = gx.placeholder("x", (3,))
    >>> simplify(gx.log(gx.sigmoid(-(-x))), log=log)
    <negative: f32[3]>
    >>> sorted(log.counts)
    ['cancel_negatives', 'log_of_sigmoid']
    """

    fuel: int | None = None
    firings: list[Firing] = field(default_factory=list[Firing])

    @property
    def spent(self) -> bool:
        """Is there no fuel left?"""
        return self.fuel is not None and len(self.firings) >= self.fuel

    @property
    def counts(self) -> Counter[str]:
        """How often each rule fired."""
        return Counter(firing.rule for firing in self.firings)

    def __str__(self) -> str:
        return "\n".join(map(str, self.firings))


@dataclass(frozen=True, eq=False)
class RuleSet:
    """Rules in the order in which they are tried, indexed by the class of the op.

    Attributes:
        rules: no two of one name.
        share_commuted: whether ``a * b`` and ``b * a`` become one node (the order that is met first stays), and
            likewise for every commutative op. The engine does it, since it depends on what else is in the graph.
    """

    rules: tuple[RewriteRule, ...]
    share_commuted: bool = False

    @cached_property
    def _by_class(self) -> dict[type[Op], tuple[RewriteRule, ...]]:
        return {}

    def rules_for(self, op: Op) -> tuple[RewriteRule, ...]:
        """The rules that may fire on a node of this op."""
        found = self._by_class.get(type(op))
        if found is None:
            found = tuple(rule for rule in self.rules if isinstance(op, rule.heads))
            self._by_class[type(op)] = found
        return found

    def __add__(self, other: RuleSet) -> RuleSet:
        return RuleSet(self.rules + other.rules, self.share_commuted or other.share_commuted)


def rewrite(roots: Iterable[Node], rules: RuleSet, log: RewriteLog | None = None) -> tuple[Node, ...]:
    """The roots with every node in normal form.

    Args:
        roots: nodes; everything they need is rewritten.
        rules: tried in their order on each node, its operands first.
        log: gets every firing, and may limit them.

    Raises:
        VerifyError: a rule changed a type, or rules undo each other for ever: a defect, named by the rules.

    >>> import graphc as gx
    >>> from graphc.rewrite import Rule
    >>> x = gx.placeholder("x", (3,))
    >>> squares = Rule("join_square", "x * x is |x|**2.", lambda x: x * x, lambda x: gx.abs(x) ** 2)
    >>> (new,) = rewrite([gx.sin(x) * gx.sin(x)], RuleSet((squares,)))
    >>> print(gx.formula(new))
    abs(sin(x))**2
    """
    run = _Run(rules, log or RewriteLog())
    return tuple(run.normalize(root) for root in roots)


class _Run:
    """One rewriting with its memo."""

    def __init__(self, rules: RuleSet, log: RewriteLog) -> None:
        self.rules = rules
        self.log = log
        # Nodes are keys, not their ids: a key keeps its node alive, so that no other can get the same id.
        self.normal: dict[Node, Node] = {}
        self.pending: dict[Node, str] = {}
        self.commutative: dict[tuple[str, Node, Node], Node] = {}
        self.bodies: dict[Op, Op] = {}
        self.fired = 0

    def normalize(self, root: Node) -> Node:
        normal = self.normal
        stack: list[tuple[Node, bool, tuple[Node, Node] | None]] = [(root, False, None)]
        while stack:
            node, ready, replaced = stack.pop()
            if replaced is not None:
                before, after = replaced
                normal[before] = normal[node] = normal[after]
                self.pending.pop(before, None)
            elif node in normal:
                continue
            elif not ready:
                stack.append((node, True, None))
                stack.extend((arg, False, None) for arg in reversed(node.args) if arg not in normal)
            else:
                new = self._with_normal_args(node)
                if new in normal:
                    normal[node] = normal[new]
                    continue
                after = self._commuted(new)
                if after is None:
                    after = self._fire(new)
                if after is None:
                    normal[new] = normal[node] = new
                else:
                    stack.append((node, True, (new, after)))
                    stack.append((after, False, None))
        return normal[root]

    def _with_normal_args(self, node: Node) -> Node:
        args = tuple([self.normal[arg] for arg in node.args])
        op = self._with_normal_bodies(node.op) if node.op.bodies else node.op
        if op is node.op and all([a is b for a, b in zip(args, node.args, strict=True)]):
            return node
        return intern(op, args, node.type, node.loc)

    def _with_normal_bodies(self, op: Op) -> Op:
        """The op with its bodies rewritten by the same rules."""
        known = self.bodies.get(op)
        if known is None:
            new = [body.with_roots(self.normalize(root) for root in body.roots) for body in op.bodies]
            pairs = zip(op.bodies, new, strict=True)
            same = all(a is b for old, body in pairs for a, b in zip(old.roots, body.roots, strict=True))
            known = self.bodies[op] = op if same else op.with_bodies(new)
            self.bodies[known] = known
        return known

    def _commuted(self, node: Node) -> Node | None:
        """The normal node with the same operands in the other order, if there is one."""
        if not self.rules.share_commuted or node.op.name not in COMMUTATIVE or self.log.spent:
            return None
        left, right = node.args
        twin = self.commutative.get((node.op.name, right, left))
        if twin is None or twin is node or twin not in self.normal:
            self.commutative[node.op.name, left, right] = node
            return None
        self.log.firings.append(Firing("share_commuted", node, twin))
        return twin

    def _fire(self, node: Node) -> Node | None:
        if self.log.spent:
            return None
        with location.at(node.loc):
            for rule in self.rules.rules_for(node.op):
                after = rule.apply(node)
                if after is not None and after is not node:
                    after = self._of_same_type(rule, node, after)
                    self._guard(rule, node)
                    self.log.firings.append(Firing(rule.name, node, after))
                    return after
        return None

    def _of_same_type(self, rule: RewriteRule, node: Node, after: Node) -> Node:
        """A replacement that dropped an operand may be smaller; it is repeated to the node's shape."""
        if after.type == node.type:
            return after
        if after.dtype is node.dtype:
            with suppress(ShapeError):
                return broadcast_to(after, node.shape)
        raise VerifyError(
            f"rule {rule.name} changes {node.type} to {after.type}",
            at=node.user_line,
            remedy="this is a defect of graphc: please report it with this message",
        )

    def _guard(self, rule: RewriteRule, node: Node) -> None:
        """Stop rules that undo each other, or that grow a graph without end."""
        self.fired += 1
        if node in self.pending or self.fired > 10_000 + 100 * len(self.normal):
            names: Sequence[str] = sorted({*self.pending.values(), rule.name})
            raise VerifyError(
                f"the rules {', '.join(names)} do not come to rest on {node!r}",
                at=node.user_line,
                remedy="this is a defect of graphc: please report it with this message",
            )
        self.pending[node] = rule.name
