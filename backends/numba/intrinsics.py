"""The vocabulary of generated kernels: buffers, casts, scalar functions, as Numba intrinsics.

A buffer knows its element type and its number among the kernel's arguments. Buffers never overlap, and every load
and store says so to LLVM: buffer ``i`` has the alias scope ``i`` and is declared free of the scopes below ``i``,
which covers each pair once. Without that LLVM would compare all pairs of addresses at run time, and give up
vectorizing when there are many. Local arrays count on from the last buffer.

This module imports Numba, so it is only loaded to compile a kernel that is not in the cache.
"""

# pyright: reportOptionalCall=false
# Numba's decorators have no types that pyright could see.

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.extending import intrinsic, lower_builtin, register_model
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from graphc.backends.numba import error_function, halves, hyperbolic, math, trigonometric
from graphc.backends.numba import values as basic
from graphc.backends.numba.values import Value, call, copysign, scopes_of
from graphc.backends.numba.values import where as choose

I1, I8, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
ADDRESS = types.CPointer(types.int64)
ELEMENTS = {
    "bool": types.boolean,
    "uint32": types.uint32,
    "int32": types.int32,
    "int64": types.int64,
    "float16": types.uint16,  # the bits: nothing is computed in these two
    "bfloat16": types.uint16,
    "float32": types.float32,
    "float64": types.float64,
}
STORED = {
    "bool": I8,
    "uint32": ir.IntType(32),
    "int32": ir.IntType(32),
    "int64": I64,
    "float16": ir.IntType(16),
    "bfloat16": ir.IntType(16),
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
}
FIRST_LOCAL = 1000  # scopes of local arrays begin here


class BufferType(types.Type):
    """A flat array of one element type that overlaps no other buffer of the kernel."""

    def __init__(self, element: str, scope: int) -> None:
        self.element = element
        self.scope = scope
        super().__init__(f"Buffer({element}, {scope})")


@register_model(BufferType)
class BufferModel(models.PrimitiveModel):
    """A plain pointer."""

    def __init__(self, manager: Any, kind: BufferType) -> None:
        super().__init__(manager, kind, STORED[kind.element].as_pointer())


@infer_global(operator.getitem)
class BufferGet(AbstractTemplate):
    """The type of ``buffer[index]``."""

    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
        if isinstance(args[0], BufferType):
            return signature(ELEMENTS[args[0].element], args[0], types.int64)
        return None


@infer_global(operator.setitem)
class BufferSet(AbstractTemplate):
    """The types in ``buffer[index] = value``."""

    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
        if isinstance(args[0], BufferType):
            return signature(types.none, args[0], types.int64, ELEMENTS[args[0].element])
        return None


@lower_builtin(operator.getitem, BufferType, types.int64)
def load_element(context: Any, builder: Any, sig: Any, args: tuple[Any, ...]) -> Any:
    """``buffer[index]``: no bounds are checked, and a negative index is not turned around."""
    kind = sig.args[0]
    stored = STORED[kind.element]
    pointer = builder.gep(args[0], [args[1]], inbounds=True, source_etype=stored)
    loaded = builder.load(pointer, typ=stored)
    _mark_scope(builder.module, loaded, kind.scope)
    return builder.icmp_unsigned("!=", loaded, I8(0)) if kind.element == "bool" else loaded


@lower_builtin(operator.setitem, BufferType, types.int64, types.Any)
def store_element(context: Any, builder: Any, sig: Any, args: tuple[Any, ...]) -> Any:
    """``buffer[index] = value``."""
    kind = sig.args[0]
    stored = STORED[kind.element]
    pointer = builder.gep(args[0], [args[1]], inbounds=True, source_etype=stored)
    value = builder.zext(args[2], I8) if kind.element == "bool" else args[2]
    _mark_scope(builder.module, builder.store(value, pointer), kind.scope)
    return context.get_dummy_value()


def _add_scope(module: Any, number: int) -> None:
    scopes = scopes_of(module)
    domain = module.add_metadata(["graphc buffers"])
    scopes.setdefault(number, module.add_metadata([f"buffer {number}", domain]))


def _mark_scope(module: Any, access: Any, scope: int) -> None:
    scopes = scopes_of(module)
    lower = [scopes[number] for number in sorted(scopes) if number < scope]
    access.set_metadata("alias.scope", module.add_metadata([scopes[scope]]))
    if lower:
        access.set_metadata("noalias", module.add_metadata(lower))


def _buffer_argument(element: str) -> Any:
    def buffer(typingctx: Any, args: Any, number: Any) -> Any:
        kind = BufferType(element, number.literal_value)

        def codegen(context: Any, builder: Any, sig: Any, values: tuple[Any, ...]) -> Any:
            _add_scope(builder.module, number.literal_value)
            address = _argument(builder, values[0], number.literal_value)
            return builder.inttoptr(address, STORED[element].as_pointer())

        return kind(ADDRESS, number), codegen

    return intrinsic(prefer_literal=True)(buffer)


def _argument(builder: Any, args: Any, number: int) -> Any:
    return builder.load(builder.gep(args, [I64(number)], inbounds=True, source_etype=I64), typ=I64)


def _local_array(element: str) -> Any:
    def local(typingctx: Any, size: Any, number: Any) -> Any:
        kind = BufferType(element, FIRST_LOCAL + number.literal_value)

        def codegen(context: Any, builder: Any, sig: Any, values: tuple[Any, ...]) -> Any:
            _add_scope(builder.module, FIRST_LOCAL + number.literal_value)
            array = ir.ArrayType(STORED[element], max(size.literal_value, 1))
            place = cgutils.alloca_once(builder, array)
            place.align = 64
            return builder.bitcast(place, STORED[element].as_pointer())

        return kind(size, number), codegen

    return intrinsic(prefer_literal=True)(local)


float32_buffer, float64_buffer = _buffer_argument("float32"), _buffer_argument("float64")
int32_buffer, int64_buffer = _buffer_argument("int32"), _buffer_argument("int64")
uint32_buffer, bool_buffer = _buffer_argument("uint32"), _buffer_argument("bool")
float16_buffer, bfloat16_buffer = _buffer_argument("float16"), _buffer_argument("bfloat16")
float32_local, float64_local = _local_array("float32"), _local_array("float64")
int32_local, int64_local = _local_array("int32"), _local_array("int64")
uint32_local, bool_local = _local_array("uint32"), _local_array("bool")
float16_local, bfloat16_local = _local_array("float16"), _local_array("bfloat16")


@intrinsic(prefer_literal=True)
def size(typingctx, args, number):
    """A size argument: an int64 that is not negative."""

    def codegen(context, builder, sig, values):
        loaded = _argument(builder, values[0], number.literal_value)
        loaded.set_metadata("range", builder.module.add_metadata([I64(0), I64(1 << 62)]))
        return loaded

    return types.int64(ADDRESS, number), codegen


@intrinsic
def fail(typingctx, cell, check, detail):
    """Record (check, detail) at the address ``cell``, unless something is recorded there.

    The cell is two int64: the check's number plus one, and the detail.
    """

    def codegen(context, builder, sig, values):
        pointer = builder.inttoptr(values[0], I64.as_pointer())
        number = builder.add(values[1], I64(1))
        old = builder.cmpxchg(pointer, I64(0), number, "monotonic", "monotonic")
        with builder.if_then(builder.extract_value(old, 1)):
            builder.store(values[2], builder.gep(pointer, [I64(1)], source_etype=I64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


# scalar functions


def _unary(name: str, function: Callable[[Value], Value], result: types.Type | None = None) -> Any:
    def scalar(typingctx: Any, x: Any) -> Any:
        if not isinstance(x, types.Float):
            return None

        def codegen(context: Any, builder: Any, sig: Any, values: tuple[Any, ...]) -> Any:
            return function(Value(builder, values[0])).llvm

        return (result or x)(x), codegen

    scalar.__name__ = name
    return intrinsic(scalar)


def _same_type(
    name: str,
    floats: Callable[[Value, Value], Value] | None,
    signed: Callable[[Value, Value], Value] | None = None,
    unsigned: Callable[[Value, Value], Value] | None = None,
) -> Any:
    """A function of two arguments of one type, which is the result's."""

    def scalar(typingctx: Any, a: Any, b: Any) -> Any:
        kind = typingctx.unify_types(types.unliteral(a), types.unliteral(b))
        if isinstance(kind, types.Float):
            function = floats
        elif kind is types.boolean:
            function = unsigned
        else:
            function = signed if kind in types.signed_domain else unsigned
        if function is None:
            return None

        def codegen(context: Any, builder: Any, sig: Any, values: tuple[Any, ...]) -> Any:
            return function(Value(builder, values[0]), Value(builder, values[1])).llvm

        return kind(kind, kind), codegen

    scalar.__name__ = name
    return intrinsic(scalar)


exp, log = _unary("exp", math.exp), _unary("log", math.log)
exp2, log2, log10 = _unary("exp2", math.exp2), _unary("log2", math.log2), _unary("log10", math.log10)
expm1, log1p = _unary("expm1", math.expm1), _unary("log1p", math.log1p)
sqrt, rsqrt = _unary("sqrt", math.sqrt), _unary("rsqrt", math.rsqrt)
tanh, sigmoid, softplus = _unary("tanh", math.tanh), _unary("sigmoid", math.sigmoid), _unary("softplus", math.softplus)
erf, erfc = _unary("erf", error_function.erf), _unary("erfc", error_function.erfc)
ndtr = _unary("ndtr", error_function.ndtr)
sin, cos, tan = _unary("sin", trigonometric.sin), _unary("cos", trigonometric.cos), _unary("tan", trigonometric.tan)
asin, acos = _unary("asin", trigonometric.asin), _unary("acos", trigonometric.acos)
atan, atan2 = _unary("atan", trigonometric.atan), _same_type("atan2", trigonometric.atan2)
sinh, cosh = _unary("sinh", hyperbolic.sinh), _unary("cosh", hyperbolic.cosh)
asinh, acosh = _unary("asinh", hyperbolic.asinh), _unary("acosh", hyperbolic.acosh)
atanh = _unary("atanh", hyperbolic.atanh)
floor, ceil, rint, trunc = (_unary(name, getattr(basic, name)) for name in ("floor", "ceil", "rint", "trunc"))
isnan = _unary("isnan", math.isnan, types.boolean)
isfinite = _unary("isfinite", math.isfinite, types.boolean)


@intrinsic
def absolute(typingctx, x):
    """|x|; the lowest integer stays itself."""
    kind = types.unliteral(x)

    def codegen(context, builder, sig, values):
        value = Value(builder, values[0])
        if isinstance(kind, types.Float):
            return basic.absolute(value).llvm
        return choose(value < 0, -value, value).llvm if kind.signed else value.llvm

    return kind(kind), codegen


@intrinsic
def sign(typingctx, x):
    """-1, 0 or 1; NaN stays NaN."""
    kind = types.unliteral(x)

    def codegen(context, builder, sig, values):
        value = Value(builder, values[0])
        if isinstance(kind, types.Float):
            return math.sign(value).llvm
        one = choose(value.differs(0), value.constant(1), value.constant(0))
        return choose(value < 0, -one, one).llvm if kind.signed else one.llvm

    return kind(kind), codegen


minimum = _same_type(
    "minimum",
    math.minimum,
    lambda a, b: choose(a < b, a, b),
    lambda a, b: choose(a.is_below(b), a, b),
)
maximum = _same_type(
    "maximum",
    math.maximum,
    lambda a, b: choose(a < b, b, a),
    lambda a, b: choose(a.is_below(b), b, a),
)


def _divide_signed(a: Value, b: Value) -> tuple[Value, Value, Value]:
    """Quotient and remainder rounded towards zero, without a trap, and the divisor that was used.

    By zero the divisor is 1 (the caller gives 0); the lowest integer by -1 wraps around to itself.
    """
    lowest = -(1 << (a.bits - 1))
    traps = b.equals(0) | (a.equals(lowest) & b.equals(-1))
    divisor = choose(traps, 1, b)
    quotient = Value(a.builder, a.builder.sdiv(a.llvm, divisor.llvm))
    return quotient, a - quotient * divisor, divisor


def _floor_divide_signed(a: Value, b: Value) -> Value:
    quotient, remainder, divisor = _divide_signed(a, b)
    below = remainder.differs(0) & ((remainder ^ divisor) < 0)
    return choose(b.equals(0), 0, choose(below, quotient - 1, quotient))


def _remainder_signed(a: Value, b: Value) -> Value:
    _, remainder, divisor = _divide_signed(a, b)
    below = remainder.differs(0) & ((remainder ^ divisor) < 0)
    return choose(b.equals(0), 0, choose(below, remainder + divisor, remainder))


def _floor_divide_unsigned(a: Value, b: Value) -> Value:
    divisor = choose(b.equals(0), 1, b)
    return choose(b.equals(0), 0, Value(a.builder, a.builder.udiv(a.llvm, divisor.llvm)))


def _remainder_unsigned(a: Value, b: Value) -> Value:
    divisor = choose(b.equals(0), 1, b)
    return choose(b.equals(0), 0, Value(a.builder, a.builder.urem(a.llvm, divisor.llvm)))


def _truncated_remainder(a: Value, b: Value) -> tuple[Value, Value]:
    """C's ``fmod``, and whether Python's remainder differs from it."""
    r = Value(a.builder, a.builder.frem(a.llvm, b.llvm)).exact()
    return r, r.differs(0.0) & ((r < 0.0) ^ (b < 0.0))


def _remainder_float(a: Value, b: Value) -> Value:
    r, differs = _truncated_remainder(a, b)
    r = choose(differs, r + b, r)
    return choose(r.equals(0.0), copysign(r.constant(0.0), b), r)


def _floor_divide_float(a: Value, b: Value) -> Value:
    """As NumPy does: by way of the remainder, so that a quotient that is nearly whole is not rounded to it."""
    r, differs = _truncated_remainder(a, b)
    quotient = (a.exact() - r) / b
    quotient = choose(differs, quotient - 1.0, quotient)
    whole = basic.floor(quotient)
    whole = choose(quotient - whole > 0.5, whole + 1.0, whole)
    whole = choose(quotient.equals(0.0), copysign(quotient.constant(0.0), a / b), whole)
    return choose(b.equals(0.0), a / b, whole)


def _truncated_signed(a: Value, b: Value) -> Value:
    return choose(b.equals(0), 0, _divide_signed(a, b)[1])


def _truncated_float(a: Value, b: Value) -> Value:
    return _truncated_remainder(a, b)[0]


floor_divide = _same_type("floor_divide", _floor_divide_float, _floor_divide_signed, _floor_divide_unsigned)
remainder = _same_type("remainder", _remainder_float, _remainder_signed, _remainder_unsigned)
truncated_remainder = _same_type("truncated_remainder", _truncated_float, _truncated_signed, _remainder_unsigned)


def _power_integer(base: Value, exponent: Value, negative: Value | None) -> Value:
    """By squaring, wrapping around; a negative exponent gives the truncated reciprocal, and 0 for 1/0."""
    builder = base.builder
    kind = base.llvm.type
    result, square, rest = (cgutils.alloca_once(builder, kind) for _ in range(3))
    builder.store(kind(1), result)
    builder.store(base.llvm, square)
    builder.store(exponent.llvm if negative is None else choose(negative, 0, exponent).llvm, rest)
    head, body, done = (builder.append_basic_block(name) for name in ("power", "power.body", "power.end"))
    builder.branch(head)
    builder.position_at_end(head)
    remaining = builder.load(rest, typ=kind)
    builder.cbranch(builder.icmp_unsigned("!=", remaining, kind(0)), body, done)
    builder.position_at_end(body)
    factor = builder.load(square, typ=kind)
    old = builder.load(result, typ=kind)
    is_odd = builder.trunc(remaining, I1)
    builder.store(builder.select(is_odd, builder.mul(old, factor), old), result)
    builder.store(builder.mul(factor, factor), square)
    builder.store(builder.lshr(remaining, kind(1)), rest)
    builder.branch(head)
    builder.position_at_end(done)
    power = Value(builder, builder.load(result, typ=kind))
    if negative is None:
        return power
    unit = choose((exponent & 1).equals(0), 1, base)
    reciprocal = choose(base.equals(1) | base.equals(-1), unit, 0)
    return choose(negative, reciprocal, power)


power = _same_type(
    "power",
    math.pow,
    lambda a, b: _power_integer(a, b, b < 0),
    lambda a, b: _power_integer(a, b, None),
)


@intrinsic
def where(typingctx, condition, yes, no):
    """`yes` where the condition holds, else `no`; both are computed, and there is no branch."""
    kind = typingctx.unify_types(types.unliteral(yes), types.unliteral(no))

    def codegen(context, builder, sig, values):
        return builder.select(*values)

    return kind(types.boolean, kind, kind), codegen


@intrinsic
def threefry(typingctx, key0, key1, counter0, counter1):
    """The first word of the Threefry-2x32-20 block."""

    def codegen(context, builder, sig, values):
        k0, k1, c0, c1 = (Value(builder, value) for value in values)
        return math.threefry2x32((k0, k1), (c0, c1))[0].llvm

    word = types.uint32
    return word(word, word, word, word), codegen


# conversions from and to the floats of 16 bits, which are their bits in a uint16


def _conversion(name: str, function: Callable[[Value], Value], source: types.Type, result: types.Type) -> Any:
    def conversion(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, values: tuple[Any, ...]) -> Any:
            return function(Value(builder, values[0])).llvm

        return result(source), codegen

    conversion.__name__ = name
    return intrinsic(conversion)


from_float16 = _conversion("from_float16", halves.from_float16, types.uint16, types.float32)
to_float16 = _conversion("to_float16", halves.to_float16, types.float32, types.uint16)
from_bfloat16 = _conversion("from_bfloat16", halves.from_bfloat16, types.uint16, types.float32)
to_bfloat16 = _conversion("to_bfloat16", halves.to_bfloat16, types.float32, types.uint16)


# accumulation inside a `reduce` loop, whose order LLVM may change


def _reassociated(operation: str) -> Callable[[Value, Value], Value]:
    def function(a: Value, b: Value) -> Value:
        make = getattr(a.builder, operation)
        return Value(a.builder, make(a.llvm, b.llvm, flags=("reassoc", "contract")))

    return function


def _extreme(name: str) -> Callable[[Value, Value], Value]:
    """LLVM's NaN-propagating extreme, which it knows to vectorize as a reduction; which of two zeros is left open."""

    def function(a: Value, b: Value) -> Value:
        result = call(name, a, b)
        result.llvm.fastmath.add("nsz")
        return result

    return function


accumulate_add = _same_type("accumulate_add", _reassociated("fadd"), lambda a, b: a + b, lambda a, b: a + b)
accumulate_mul = _same_type("accumulate_mul", _reassociated("fmul"), lambda a, b: a * b, lambda a, b: a * b)
accumulate_min = _same_type(
    "accumulate_min",
    _extreme("llvm.minimum"),
    lambda a, b: choose(a < b, a, b),
    lambda a, b: choose(a.is_below(b), a, b),
)
accumulate_max = _same_type(
    "accumulate_max",
    _extreme("llvm.maximum"),
    lambda a, b: choose(a < b, b, a),
    lambda a, b: choose(a.is_below(b), b, a),
)
