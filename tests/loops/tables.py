"""Every scalar function on chosen values: kernels whose rows are one application each."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from graphc.ir.types import DType
from graphc.loops.kernel import (
    Apply,
    Buffer,
    Expr,
    Kernel,
    Load,
    Stmt,
    Store,
)
from tests.loops.builders import (
    BOOL,
    F32,
    F64,
    I32,
    I64,
    U32,
    Case,
    I,
    N,
    apply,
    at,
    const,
    parallel,
    read,
    write,
)


def table(name: str, inputs: tuple[Buffer, ...], results: list[Expr]) -> Kernel:
    """Each result of each element in a row of its own; results of one dtype are in one buffer ``to_<dtype>``."""
    dtypes = sorted({result.dtype for result in results}, key=lambda dtype: dtype.value)
    stores: list[Stmt] = []
    counts = dict.fromkeys(dtypes, 0)
    for result in results:
        stores.append(Store(f"to_{result.dtype}", at(const(counts[result.dtype]), N, I), result))
        counts[result.dtype] += 1
    outputs = tuple(write(f"to_{dtype}", dtype) for dtype in dtypes)
    return Kernel(name, (*inputs, *outputs), ("n",), N, parallel(N, *stores))


def table_case(name: str, inputs: dict[str, np.ndarray], rows: dict[Apply, np.ndarray], rtol: float = 0.0) -> Case:
    """The rows of a table on fixed inputs: each application with what it must give."""
    buffers = tuple(read(key, DType(str(value.dtype))) for key, value in inputs.items())
    kernel = table(name, buffers, list(rows))
    n = len(next(iter(inputs.values())))
    outputs: dict[str, np.ndarray] = {}
    for buffer in kernel.buffers[len(inputs) :]:
        values = [value for result, value in rows.items() if result.dtype is buffer.dtype]
        outputs[buffer.name] = np.stack(values).astype(buffer.dtype.numpy)
    return Case(
        kernel,
        ((n,),),
        lambda rng, n: [*inputs.values(), *(np.empty_like(value) for value in outputs.values())],
        lambda a, n: outputs,
        rtol,
    )


def signed(dtype: DType) -> Case:
    """Arithmetic on Python's integers, then wrapped."""
    limits = np.iinfo(dtype.value)
    bits = limits.bits
    values = [0, 1, -1, 2, -2, 7, -7, 100, limits.max, limits.min, limits.min + 1, 12345]
    a, b = (np.array(x, dtype.value).reshape(-1) for x in np.meshgrid(values, values))
    x, y = Load("a", I, dtype), Load("b", I, dtype)
    shift = apply("and", y, const(bits - 1, dtype))

    def wrapped(function: Callable[[int, int], int]) -> np.ndarray:
        results = [function(p, q) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
        return np.array([(r + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for r in results], dtype.value)

    def power(p: int, q: int) -> int:
        if q >= 0:
            return pow(p, q, 2**bits)
        return {1: 1, -1: -1 if q % 2 else 1}.get(p, 0)

    rows = {
        apply("add", x, y): wrapped(lambda p, q: p + q),
        apply("sub", x, y): wrapped(lambda p, q: p - q),
        apply("mul", x, y): wrapped(lambda p, q: p * q),
        apply("neg", x): wrapped(lambda p, q: -p),
        apply("abs", x): wrapped(lambda p, q: abs(p)),
        apply("sign", x): wrapped(lambda p, q: (p > 0) - (p < 0)),
        apply("floordiv", x, y): wrapped(lambda p, q: p // q if q else 0),
        apply("mod", x, y): wrapped(lambda p, q: p % q if q else 0),
        apply("fmod", x, y): wrapped(lambda p, q: abs(p) % abs(q) * (1 if p > 0 else -1) if q else 0),
        apply("min", x, y): wrapped(min),
        apply("max", x, y): wrapped(max),
        apply("pow", x, y): wrapped(power),
        apply("and", x, y): wrapped(lambda p, q: p & q),
        apply("or", x, y): wrapped(lambda p, q: p | q),
        apply("xor", x, y): wrapped(lambda p, q: p ^ q),
        apply("not", x): wrapped(lambda p, q: ~p),
        apply("shl", x, shift): wrapped(lambda p, q: p << (q & (bits - 1))),
        apply("shr", x, shift): wrapped(lambda p, q: p >> (q & (bits - 1))),
        apply("select", apply("lt", x, y), x, const(limits.min, dtype)): wrapped(
            lambda p, q: p if p < q else limits.min
        ),
        apply("sub", x, apply("sub", y, x)): wrapped(lambda p, q: p - (q - p)),
        apply("neg", apply("neg", const(-5, dtype))): wrapped(lambda p, q: -5),
        apply("min", x, apply("add", const(1, dtype), const(2, dtype))): wrapped(lambda p, q: min(p, 3)),
        apply("cast", x, dtype=I32): (a.astype(object) % 2**32).astype(np.uint32).astype(np.int32),
        apply("cast", x, dtype=U32): (a.astype(object) % 2**32).astype(np.uint32),
        apply("cast", x, dtype=BOOL): a != 0,
        apply("cast", x, dtype=F64): a.astype(np.float64),
        apply("lt", x, y): a < b,
        apply("ge", x, y): a >= b,
        apply("eq", x, y): a == b,
    }
    if dtype is I32:
        rows.pop(apply("cast", x, dtype=I32))
        rows[apply("cast", x, dtype=I64)] = a.astype(np.int64)
    return table_case(f"signed_{dtype}", {"a": a, "b": b}, rows)


def unsigned() -> Case:
    values = [0, 1, 2, 3, 31, 1000, 2**31 - 1, 2**31, 2**32 - 1]
    a, b = (np.array(x, np.uint32).reshape(-1) for x in np.meshgrid(values, values))
    x, y = Load("a", I, U32), Load("b", I, U32)
    shift = apply("and", y, const(31, U32))

    def wrapped(function: Callable[[int, int], int]) -> np.ndarray:
        return np.array([function(p, q) % 2**32 for p, q in zip(a.tolist(), b.tolist(), strict=True)], np.uint32)

    rows = {
        apply("add", x, y): wrapped(lambda p, q: p + q),
        apply("sub", x, y): wrapped(lambda p, q: p - q),
        apply("mul", x, y): wrapped(lambda p, q: p * q),
        apply("neg", x): wrapped(lambda p, q: -p),
        apply("abs", x): a,
        apply("sign", x): wrapped(lambda p, q: p > 0),
        apply("floordiv", x, y): wrapped(lambda p, q: p // q if q else 0),
        apply("mod", x, y): wrapped(lambda p, q: p % q if q else 0),
        apply("fmod", x, y): wrapped(lambda p, q: p % q if q else 0),
        apply("min", x, y): wrapped(min),
        apply("max", x, y): wrapped(max),
        apply("pow", x, y): wrapped(lambda p, q: pow(p, q, 2**32)),
        apply("xor", x, apply("or", y, apply("not", x))): wrapped(lambda p, q: p ^ (q | ~p)),
        apply("shl", x, shift): wrapped(lambda p, q: p << (q & 31)),
        apply("shr", x, shift): wrapped(lambda p, q: p >> (q & 31)),
        apply("cast", x, dtype=I32): a.astype(np.int32),
        apply("cast", x, dtype=I64): a.astype(np.int64),
        apply("cast", x, dtype=F32): a.astype(np.float32),
        apply("gt", x, y): a > b,
    }
    return table_case("unsigned", {"a": a, "b": b}, rows)


def floats(dtype: DType) -> Case:
    """Every function of floats, on ordinary numbers and on the ends of the line."""
    kind = dtype.numpy.type
    values = [0.0, -0.0, 0.5, -0.75, 1.0, 2.0, -3.0, 7.5, -20.0, 80.0, np.inf, -np.inf, np.nan]
    a, b = (np.array(x, dtype.value).reshape(-1) for x in np.meshgrid(values, values))
    x, y = Load("a", I, dtype), Load("b", I, dtype)
    with np.errstate(all="ignore"):
        exact = a.astype(np.float64)
        rows = {
            **{
                apply(fn, x): getattr(np, fn)(a)
                for fn in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan")
            },
            **{apply(fn, x): getattr(np, fn)(a) for fn in ("sinh", "cosh", "tanh")},
            **{apply(f"a{fn}", x): getattr(np, f"arc{fn}")(a) for fn in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
            **{apply(fn, x): getattr(np, fn)(a) for fn in ("floor", "ceil", "rint", "trunc")},
            **{apply(fn, x): getattr(np, fn)(a) for fn in ("abs", "sign", "isnan", "isfinite")},
            apply("neg", x): -a,
            apply("rsqrt", x): (1 / np.sqrt(exact)).astype(kind),
            apply("sigmoid", x): (1 / (1 + np.exp(-exact))).astype(kind),
            apply("softplus", x): np.logaddexp(0, exact).astype(kind),
            apply("erf", x): np.array([math.erf(value) for value in exact.tolist()]).astype(kind),
            apply("erfc", x): np.array([math.erfc(value) for value in exact.tolist()]).astype(kind),
            apply("ndtr", x): np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in exact.tolist()]).astype(kind),
            apply("atan2", x, y): np.arctan2(a, b),
            apply("fmod", x, y): np.fmod(a, b),
            apply("add", x, y): a + b,
            apply("sub", x, apply("sub", y, x)): a - (b - a),
            apply("mul", x, y): a * b,
            apply("div", x, y): a / b,
            apply("floordiv", x, y): np.floor_divide(a, b),
            apply("mod", x, y): np.mod(a, b),
            apply("pow", x, y): np.power(a, b),
            apply("min", x, y): np.minimum(a, b),
            apply("max", x, y): np.maximum(a, b),
            apply("min", x, const(np.inf, dtype)): np.minimum(a, kind(np.inf)),
            apply("max", x, const(-np.inf, dtype)): np.maximum(a, kind(-np.inf)),
            apply("add", x, const(np.nan, dtype)): a + kind(np.nan),
            apply("mul", x, const(-0.1, dtype)): a * kind(-0.1),
            apply("select", apply("le", x, y), x, y): np.where(a <= b, a, b),
            apply("select", apply("isnan", x), const(1e-30, dtype), x): np.where(np.isnan(a), kind(1e-30), a),
            apply("ne", x, y): a != b,
            apply("gt", x, y): a > b,
            apply("cast", x, dtype=BOOL): a != 0,
            apply("cast", x, dtype=F64 if dtype is F32 else F32): a.astype(np.float64 if dtype is F32 else np.float32),
            apply("cast", apply("select", apply("isfinite", x), x, const(0.0, dtype)), dtype=I32): np.where(
                np.isfinite(a), a, 0
            ).astype(np.int32),
        }
    return table_case(f"floats_{dtype}", {"a": a, "b": b}, rows, 4e-7 if dtype is F32 else 1e-15)


def bools() -> Case:
    a, b = (x.reshape(-1) for x in np.meshgrid([False, True], [False, True]))
    x, y = Load("a", I, BOOL), Load("b", I, BOOL)
    rows = {
        apply("and", x, y): a & b,
        apply("or", x, y): a | b,
        apply("xor", x, y): a ^ b,
        apply("not", x): ~a,
        apply("not", apply("and", x, apply("or", y, apply("not", x)))): ~(a & (b | ~a)),
        apply("or", apply("and", x, y), apply("eq", x, y)): (a & b) | (a == b),
        apply("eq", x, y): a == b,
        apply("select", x, y, const(True, BOOL)): np.where(a, b, True),
        apply("cast", x, dtype=F32): a.astype(np.float32),
        apply("cast", y, dtype=I64): b.astype(np.int64),
    }
    return table_case("bools", {"a": a, "b": b}, rows)
