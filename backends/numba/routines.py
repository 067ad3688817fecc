"""How routines of kernels are written as LLVM functions on vectors."""

# pyright: reportCallIssue=false
# Numba passes an intrinsic's first argument, the typing context.

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from graphc.backends.numba.contraction import vector_bytes
from graphc.backends.numba.values import Value

I8, I32, I64 = (ir.IntType(bits) for bits in (8, 32, 64))
VOID = ir.VoidType()


@dataclass(frozen=True)
class Code:
    """The body of a routine while it is written.

    Attributes:
        element: the element type of scores.
        builder: where instructions go.
    """

    element: types.Float
    builder: Any

    @property
    def width(self) -> int:
        """Of an element in bytes."""
        return self.element.bitwidth // 8

    @property
    def lanes(self) -> int:
        return vector_bytes() // self.width

    @property
    def vector_bytes(self) -> int:
        return vector_bytes()

    @cached_property
    def real(self) -> Any:
        return ir.FloatType() if self.element is types.float32 else ir.DoubleType()

    @cached_property
    def vector(self) -> Any:
        return ir.VectorType(self.real, self.lanes)

    def add(self, *terms: Any) -> Any:
        total = terms[0]
        for term in terms[1:]:
            total = self.builder.add(total, I64(term) if isinstance(term, int) else term)
        return total

    def multiply(self, a: Any, b: Any) -> Any:
        return self.builder.mul(a, I64(b) if isinstance(b, int) else b)

    def load(self, address: Any, kind: Any = None) -> Any:
        """What stands at an address; a vector of elements unless another type is given."""
        kind = self.vector if kind is None else kind
        align = 1 if kind is I8 else self.width if kind in (self.vector, self.real) else 4
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=self.width)

    def value(self, llvm: Any) -> Value:
        return Value(self.builder, llvm)

    def vector_at(self, address: Any) -> Value:
        """A vector of elements with operators."""
        return self.value(self.load(address))

    def splat(self, value: Any) -> Any:
        """A number in every lane."""
        kind = ir.VectorType(value.type, self.lanes)
        single = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
        first = ir.Constant(ir.VectorType(I32, self.lanes), None)
        return self.builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), first)

    def constant(self, number: float) -> Value:
        """A number in every lane."""
        return self.value(ir.Constant(self.vector, [number] * self.lanes))

    def real_of(self, word: Any) -> Any:
        """An element from the bits of a float64."""
        number = self.builder.bitcast(word, ir.DoubleType())
        return number if self.element is types.float64 else self.builder.fptrunc(number, self.real)

    def lane_numbers(self, kind: Any) -> Any:
        return ir.Constant(ir.VectorType(kind, self.lanes), list(range(self.lanes)))

    @contextmanager
    def range(self, count: Any) -> Iterator[Any]:
        """A loop; what it yields is the number of the step."""
        with cgutils.for_range(self.builder, count, intp=I64) as loop:
            yield loop.index

    @contextmanager
    def columns(self, vectors: Any) -> Iterator[Any]:
        """A loop over the vectors of a row; what it yields is the distance from the first in bytes."""
        with self.range(vectors) as v:
            yield self.multiply(v, self.vector_bytes)

    def variable(self, value: Any) -> Any:
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    def lowest(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)


Write = Callable[..., None]


def routine(name: str, count: int, element: types.Float, write: Write) -> Callable[..., Any]:
    """An intrinsic that calls a function of ``count`` integers, which the module has once; ``write`` writes it."""

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        module = builder.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(VOID, [I64] * count), name)
            function.linkage = "internal"
            function.attributes.add("nounwind")
            function.attributes.add("noinline")
            inner = ir.IRBuilder(function.append_basic_block())
            write(Code(element, inner), *function.args)
            inner.ret_void()
        builder.call(function, values)
        return context.get_dummy_value()

    def call(typingctx, *arguments):
        return types.void(*[types.int64] * count), codegen

    names = ["typingctx", *(f"argument{number}" for number in range(count))]
    parameters = [inspect.Parameter(given, inspect.Parameter.POSITIONAL_OR_KEYWORD) for given in names]
    vars(call)["__signature__"] = inspect.Signature(parameters)  # Numba counts the arguments by it
    return intrinsic(call)
