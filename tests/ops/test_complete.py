"""Every registered op has every piece, or says why not; and refuses what it must."""

from __future__ import annotations

import dataclasses

import pytest

from graphc.errors import GraphcError
from graphc.ir.node import apply, placeholder
from graphc.ir.op import Absent, Op, op_class, registry
from graphc.ir.types import DType, TensorType
from graphc.loops.kernel import SCALAR_FUNCTIONS
from graphc.ops.base import Elementwise
from tests.ops.table import LEAVES, OPS, cases, draw, seeded

TAKE_EVERYTHING = {"cast", "custom_vjp", "recompute", "stop_gradient"}
"""Ops that refuse nothing, so that they have no bad cases."""


def overrides(cls: type[Op], method: str) -> bool:
    return getattr(cls, method) is not getattr(Op, method)


def differentiates(cls: type[Op], method: str) -> bool:
    if issubclass(cls, Elementwise) and getattr(cls, method) is getattr(Elementwise, method):
        return cls.chain is not Elementwise.chain
    return overrides(cls, method)


def missing(cls: type[Op]) -> list[str]:
    """The pieces that an op lacks without a reason."""
    text = cls.__dict__.get("__doc__") or ""
    found = [f"{word} in the docstring" for word in ("Shapes:", "Raises:", "Source:") if word not in text]
    found += [] if text.split("\n")[0].endswith(".") else ["a first line that is a sentence"]
    found += [piece for piece in ("infer",) if not overrides(cls, piece)]
    for piece in ("vjp", "jvp"):
        reason = getattr(cls, f"no_{piece}")
        found += [piece] if reason is None and not differentiates(cls, piece) else []
        found += [f"no_{piece} of Absent"] if reason is not None and not isinstance(reason, Absent) else []
    found += [f"{name} as an operand name" for name in cls.operands if not name.isidentifier()]
    if cls.no_reference is None:
        found += [] if overrides(cls, "reference") else ["reference"]
        found += [] if cls.cases() else ["cases"]
        found += [] if any(map(_has_empty, cls.cases())) or cls.name == "size_of" else ["a case without elements"]
    found += [] if cls.name in TAKE_EVERYTHING or cls.bad_cases() else ["bad_cases"]
    found += ["decompose"] if cls.composite and not overrides(cls, "decompose") else []
    if issubclass(cls, Elementwise) and not cls.composite and cls.scalar is Elementwise.scalar:
        arity = SCALAR_FUNCTIONS.get(cls.fn)
        found += [] if arity == len(cls.operands) else ["scalar, or fn with as many arguments"]
    holds_sizes = any(f.type in ("Shape", "Size", "tuple[Size, ...]") for f in dataclasses.fields(cls))
    found += ["with_sizes"] if holds_sizes and not overrides(cls, "with_sizes") else []
    return found


def _has_empty(case) -> bool:
    types = [TensorType(DType(operand.dtype.name), operand.shape) for operand in draw(case, seeded(case))]
    return any(0 in type.shape for type in (*types, case.op.infer(*types)))


@pytest.mark.parametrize("name", OPS)
def test_nothing_is_missing(name):
    assert missing(registry[name]) == []


def test_an_incomplete_op_is_found():
    before = dict(registry)

    @op_class
    class Halfway(Op):
        """Half an op"""

        shape: Shape  # noqa: F821

        composite = True

    registry.clear()
    registry.update(before)
    assert set(missing(Halfway)) == {
        "Shapes: in the docstring", "Raises: in the docstring", "Source: in the docstring",
        "a first line that is a sentence", "infer", "vjp", "jvp", "reference", "cases", "a case without elements",
        "bad_cases", "decompose", "with_sizes",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in OPS if registry[name].composite is False])
def test_only_composites_decompose(name):
    assert not overrides(registry[name], "decompose")


@pytest.mark.parametrize("name", OPS)
def test_a_derivative_is_not_withheld_where_floats_go_in_and_out(name):
    cls = registry[name]
    if cls.no_vjp not in (Absent.INTEGER_RESULT, Absent.INTEGER_OPERANDS, Absent.LEAF):
        return
    for case in cls.cases():
        operands = [TensorType(DType(a.dtype.name), a.shape) for a in draw(case, seeded(case))]
        assert not (case.op.infer(*operands).dtype.is_float and any(type.dtype.is_float for type in operands))


@pytest.mark.parametrize("name", [name for name in OPS if registry[name].bad_cases()])
def test_bad_operands_are_refused_with_the_op_the_line_and_a_remedy(name):
    for bad in registry[name].bad_cases():
        operands = [placeholder(f"operand{i}", type.shape, type.dtype) for i, type in enumerate(bad.operands)]
        with pytest.raises(bad.error) as caught:
            apply(bad.op, *operands)
        error, text = caught.value, str(caught.value)
        assert type(error) is bad.error
        assert isinstance(error, GraphcError)
        for words in (
            *bad.says,
            f"{name}: ",
            "test_complete.py",
            "to do: ",
            *(f"operand{i}" for i in range(len(operands))),
        ):
            assert words in text, f"{words!r} is not in:\n{text}"


@pytest.mark.parametrize("name", [name for name in OPS if registry[name].no_reference is None])
def test_sizes_bind_to_the_same_op(name):
    """An op without symbolic sizes stays itself, so that programs of fixed size build nothing twice."""
    for case in cases(registry[name]):
        assert case.op.with_sizes(lambda size: size) == case.op


def test_leaves_say_that_they_are_leaves():
    for leaf in LEAVES:
        assert (leaf.no_vjp, leaf.no_jvp) == (Absent.LEAF, Absent.LEAF)
