"""LLVM values with Python's operators, so that mathematics in LLVM IR reads like mathematics.

A :class:`Value` wraps an instruction and the builder that makes the next one. Numbers stand for constants of the
other operand's type. Floating-point operations carry the flag ``contract`` (a product and a sum may become one
fused multiply-add) and no other; :meth:`Value.exact` gives a value whose operations are rounded one by one.
What llvmlite makes is annotated as Any here and in the other files of this folder: it has no types of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from llvmlite import ir

CONTRACT = ("contract",)
EXACT = ("arcp",)  # says nothing about sums and products, and keeps `contract` from being filled in later

Operand = Union["Value", float, int]


class Value:
    """An LLVM float, integer or boolean (``i1``), or a vector of these, and the place where instructions go."""

    __slots__ = ("builder", "flags", "llvm")

    def __init__(self, builder: Any, llvm: Any, flags: tuple[str, ...] = CONTRACT) -> None:
        self.builder = builder
        self.llvm = llvm
        self.flags = flags

    @property
    def element(self) -> Any:
        """The type of one number."""
        kind = self.llvm.type
        return kind.element if isinstance(kind, ir.VectorType) else kind

    @property
    def is_float(self) -> bool:
        return isinstance(self.element, ir.FloatType | ir.DoubleType)

    @property
    def bits(self) -> int:
        """The width of a number in bits."""
        if self.is_float:
            return 64 if isinstance(self.element, ir.DoubleType) else 32
        return self.element.width

    def as_many(self, element: Any) -> Any:
        """The type of as many numbers of another type."""
        kind = self.llvm.type
        return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element

    def exact(self) -> Value:
        """The same value; what is computed from it is rounded after each operation."""
        return Value(self.builder, self.llvm, EXACT)

    def constant(self, number: Operand) -> Value:
        """A number as a value of this type."""
        if isinstance(number, Value):
            return number
        plain = float(number) if self.is_float else int(number)
        kind = self.llvm.type
        return self._new(ir.Constant(kind, [plain] * kind.count if isinstance(kind, ir.VectorType) else plain))

    def _new(self, llvm: Any) -> Value:
        return Value(self.builder, llvm, self.flags)

    def _binary(self, other: Operand, float_op: str, integer_op: str, swap: bool = False) -> Value:
        left, right = self, self.constant(other)
        flags = EXACT if EXACT in (left.flags, right.flags) else CONTRACT
        if swap:
            left, right = right, left
        if self.is_float:
            llvm = getattr(self.builder, float_op)(left.llvm, right.llvm, flags=flags)
        else:
            llvm = getattr(self.builder, integer_op)(left.llvm, right.llvm)
        return Value(self.builder, llvm, flags)

    def __add__(self, other: Operand) -> Value:
        return self._binary(other, "fadd", "add")

    __radd__ = __add__

    def __sub__(self, other: Operand) -> Value:
        return self._binary(other, "fsub", "sub")

    def __rsub__(self, other: Operand) -> Value:
        return self._binary(other, "fsub", "sub", swap=True)

    def __mul__(self, other: Operand) -> Value:
        return self._binary(other, "fmul", "mul")

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> Value:
        return self._binary(other, "fdiv", "sdiv")

    def __rtruediv__(self, other: Operand) -> Value:
        return self._binary(other, "fdiv", "sdiv", swap=True)

    def __neg__(self) -> Value:
        return self._new(self.builder.fneg(self.llvm) if self.is_float else self.builder.neg(self.llvm))

    def __and__(self, other: Operand) -> Value:
        return self._binary(other, "and_", "and_")

    def __or__(self, other: Operand) -> Value:
        return self._binary(other, "or_", "or_")

    def __xor__(self, other: Operand) -> Value:
        return self._binary(other, "xor", "xor")

    def __invert__(self) -> Value:
        return self._new(self.builder.not_(self.llvm))

    def __lshift__(self, other: Operand) -> Value:
        return self._binary(other, "shl", "shl")

    def __rshift__(self, other: Operand) -> Value:
        """Arithmetic: copies of the sign come in from the left."""
        return self._binary(other, "ashr", "ashr")

    def logical_shift_right(self, other: Operand) -> Value:
        """Zeros come in from the left."""
        return self._binary(other, "lshr", "lshr")

    def _compare(self, operator: str, other: Operand) -> Value:
        right = self.constant(other).llvm
        if not self.is_float:
            return self._new(self.builder.icmp_signed(operator, self.llvm, right))
        compare = self.builder.fcmp_unordered if operator == "!=" else self.builder.fcmp_ordered
        return self._new(compare(operator, self.llvm, right))

    def __lt__(self, other: Operand) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Operand) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Operand) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Operand) -> Value:
        return self._compare(">=", other)

    def is_below(self, other: Operand) -> Value:
        """Less as an integer without sign."""
        return self._new(self.builder.icmp_unsigned("<", self.llvm, self.constant(other).llvm))

    def equals(self, other: Operand) -> Value:
        return self._compare("==", other)

    def differs(self, other: Operand) -> Value:
        return self._compare("!=", other)

    def is_nan(self) -> Value:
        return self._new(self.builder.fcmp_unordered("uno", self.llvm, self.llvm))

    def as_integer(self) -> Value:
        """The bits of a float as an integer of the same width."""
        return self._new(self.builder.bitcast(self.llvm, self.as_many(ir.IntType(self.bits))))

    def as_float(self) -> Value:
        """The float with the bits of this integer."""
        real = ir.DoubleType() if self.bits == 64 else ir.FloatType()
        return self._new(self.builder.bitcast(self.llvm, self.as_many(real)))

    def widened(self) -> Value:
        """A float32 as float64."""
        return self._new(self.builder.fpext(self.llvm, ir.DoubleType()))

    def narrowed(self) -> Value:
        """A float64 rounded to float32."""
        return self._new(self.builder.fptrunc(self.llvm, ir.FloatType()))

    def zero_extended(self, bits: int) -> Value:
        """An integer with zeros put before it."""
        return self._new(self.builder.zext(self.llvm, ir.IntType(bits)))

    def truncated(self, bits: int) -> Value:
        """The low bits of an integer."""
        return self._new(self.builder.trunc(self.llvm, ir.IntType(bits)))

    def to_float(self, like: Value) -> Value:
        """A signed integer converted to the float type of ``like``."""
        return self._new(self.builder.sitofp(self.llvm, like.llvm.type))


def where(condition: Value, yes: Operand, no: Operand) -> Value:
    """``yes`` or ``no`` without a branch."""
    like = yes if isinstance(yes, Value) else no
    if not isinstance(like, Value):
        raise TypeError("one of two numbers: give one of them as a Value")
    yes, no = like.constant(yes), like.constant(no)
    return like._new(like.builder.select(condition.llvm, yes.llvm, no.llvm))


def call(name: str, *arguments: Value) -> Value:
    """Call an LLVM intrinsic that is overloaded on one type, such as ``llvm.sqrt``."""
    first = arguments[0]
    suffix = _suffix(first)
    kind = ir.FunctionType(first.llvm.type, [argument.llvm.type for argument in arguments])
    module, full_name = first.builder.module, f"{name}.{suffix}"
    function = module.globals.get(full_name) or ir.Function(module, kind, full_name)
    return first._new(first.builder.call(function, [argument.llvm for argument in arguments]))


def _suffix(x: Value) -> str:
    """How LLVM's intrinsics are named for this type."""
    kind = x.llvm.type
    count = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
    return count + (f"f{x.bits}" if x.is_float else f"i{x.bits}")


def constants(name: str, numbers: Sequence[float], index: Value) -> Value:
    """One of a table of float64, which the module has once under this name; the index must be in bounds."""
    builder, kind = index.builder, ir.DoubleType()
    table = builder.module.globals.get(name)
    if table is None:
        table: Any = ir.GlobalVariable(builder.module, ir.ArrayType(kind, len(numbers)), name)
        table.initializer = ir.Constant(table.value_type, [ir.Constant(kind, number) for number in numbers])
        table.global_constant = True
        table.linkage = "internal"
    loaded = builder.load(builder.gep(table, [index.llvm], inbounds=True, source_etype=kind), typ=kind)
    loaded.set_metadata("noalias", builder.module.add_metadata(list(scopes_of(builder.module).values())))
    return Value(builder, loaded)


def scopes_of(module: Any) -> dict[int, Any]:
    """The metadata nodes of the alias scopes that the module has, by number; see intrinsics.py."""
    return module.__dict__.setdefault("graphc_scopes", {})


def absolute(x: Value) -> Value:
    """Without the sign bit."""
    return call("llvm.fabs", x)


def copysign(magnitude: Value, sign: Value) -> Value:
    """The magnitude of one with the sign bit of the other."""
    return call("llvm.copysign", magnitude, sign)


def rint(x: Value) -> Value:
    """To the nearest integer, halves to even."""
    return call("llvm.rint", x)


def floor(x: Value) -> Value:
    """Rounded towards minus infinity."""
    return call("llvm.floor", x)


def ceil(x: Value) -> Value:
    """Rounded towards infinity."""
    return call("llvm.ceil", x)


def trunc(x: Value) -> Value:
    """Rounded towards zero."""
    return call("llvm.trunc", x)


def sqrt(x: Value) -> Value:
    """Correctly rounded."""
    return call("llvm.sqrt", x)


def scaled_by_power(x: Value, n: Value) -> Value:
    """``x * 2**n`` rounded once, for an integer n; a call to the C library where the CPU has no instruction for it."""
    name = f"llvm.ldexp.{_suffix(x)}.{_suffix(n)}"
    kind = ir.FunctionType(x.llvm.type, [x.llvm.type, n.llvm.type])
    module = x.builder.module
    function = module.globals.get(name) or ir.Function(module, kind, name)
    return x._new(x.builder.call(function, [x.llvm, n.llvm]))


def fma(a: Value, b: Value, c: Value) -> Value:
    """``a * b + c`` rounded once."""
    return call("llvm.fma", a, a.constant(b), a.constant(c))


def funnel_shift(high: Value, low: Value, count: Value) -> Value:
    """The upper half of ``high`` and ``low`` side by side, shifted left; the count is taken modulo the width."""
    return call("llvm.fshl", high, low, count)


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """``coefficients[0] + coefficients[1] * x + ...`` by Horner's rule."""
    result = x.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result
