"""How CUDA C writes types and scalar functions, and the words that no name may take."""

from __future__ import annotations

from graphc.ir.types import DType
from graphc.loops.printer import Form, call, infix, prefix

CHOICE, OR, AND, BIT_OR, BIT_XOR, BIT_AND, EQUAL, ORDER, SHIFT, ADD, MUL, UNARY = range(1, 13)

TYPES = {
    DType.bool: "bool",
    DType.uint32: "unsigned int",
    DType.int32: "int",
    DType.int64: "long long",
    DType.float16: "unsigned short",  # the bits: nothing is computed in these two
    DType.bfloat16: "unsigned short",
    DType.float32: "float",
    DType.float64: "double",
}


# C's precedences of the next ones surprise people: what might be misread stands in parentheses
def _comparison(symbol: str, precedence: int) -> Form:
    return Form(f"{{0}} {symbol} {{1}}", precedence, (ADD, ADD))


def _bitwise(symbol: str, precedence: int) -> Form:
    return Form(f"{{0}} {symbol} {{1}}", precedence, (UNARY, UNARY))


ANY = {
    "eq": _comparison("==", EQUAL),
    "ne": _comparison("!=", EQUAL),
    "lt": _comparison("<", ORDER),
    "le": _comparison("<=", ORDER),
    "gt": _comparison(">", ORDER),
    "ge": _comparison(">=", ORDER),
    "select": Form("{0} ? {1} : {2}", CHOICE, (CHOICE + 1,) * 3),
    "min": call("minimum", 2),
    "max": call("maximum", 2),
    "floordiv": call("floor_divide", 2),
    "mod": call("modulo", 2),
    "sign": call("sign_of", 1),
    "isnan": call("is_nan", 1),
    "isfinite": call("is_finite", 1),
    "sigmoid": call("sigmoid", 1),
    "softplus": call("softplus", 1),
    "threefry": call("threefry", 4),
}
ARITHMETIC = {
    "add": infix("+", ADD),
    "sub": infix("-", ADD),
    "mul": infix("*", MUL),
    "neg": prefix("-", UNARY),
}
NATURAL = {"floordiv": infix("/", MUL), "mod": infix("%", MUL)}
_BITS = {
    "and": _bitwise("&", BIT_AND),
    "or": _bitwise("|", BIT_OR),
    "xor": _bitwise("^", BIT_XOR),
    "not": prefix("~", UNARY),
    "shr": _bitwise(">>", SHIFT),
    "pow": call("power", 2),
    "fmod": call("truncated_remainder", 2),
}
_BOOL = {
    "and": infix("&&", AND),
    "or": Form("{0} || {1}", OR, (AND + 1, AND + 1)),
    "xor": _comparison("!=", EQUAL),
    "not": prefix("!", UNARY),
}
_UNSIGNED = {**ARITHMETIC, **_BITS, "shl": _bitwise("<<", SHIFT), "abs": Form("{0}", 0)}
_SIGNED = {
    **_BITS,
    "add": call("wrapping_add", 2),
    "sub": call("wrapping_sub", 2),
    "mul": call("wrapping_mul", 2),
    "neg": call("wrapping_neg", 1),
    "abs": call("absolute", 1),
    "shl": call("shift_left", 2),
}
MATH = {
    **{fn: fn for fn in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "erf", "erfc")},
    **{fn: fn for fn in ("sin", "cos", "tan", "asin", "acos", "atan", "floor", "ceil", "rint", "trunc")},
    "ndtr": "normcdf",
    **{fn: fn for fn in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    "abs": "fabs",
}
_MATH_OF_TWO = {"pow": "pow", "atan2": "atan2", "fmod": "fmod"}
_DOUBLE = {
    **ARITHMETIC,
    "div": infix("/", MUL),
    **{fn: call(name, 1) for fn, name in MATH.items()},
    **{fn: call(name, 2) for fn, name in _MATH_OF_TWO.items()},
}
_FLOAT = {
    **_DOUBLE,
    **{fn: call(f"{name}f", 1) for fn, name in MATH.items()},
    **{fn: call(f"{name}f", 2) for fn, name in _MATH_OF_TWO.items()},
}
BY_TYPE = {
    DType.bool: _BOOL,
    DType.uint32: _UNSIGNED,
    DType.int32: _SIGNED,
    DType.int64: _SIGNED,
    DType.float32: _FLOAT,
    DType.float64: _DOUBLE,
}
TO_BOOL = Form("{0} != 0", EQUAL, (EQUAL + 1,))
COMBINE = {"add": "Add", "mul": "Mul", "min": "Min", "max": "Max", "and": "And", "or": "Or"}

KEYWORDS = """
alignas alignof asm auto bool break case catch char class const constexpr const_cast continue decltype default delete
do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
namespace new noexcept nullptr operator private protected public register reinterpret_cast restrict return short
signed sizeof static static_assert static_cast struct switch template this throw true try typedef typeid typename
union unsigned using virtual void volatile wchar_t while and or not xor bitand bitor compl and_eq or_eq xor_eq not_eq
threadIdx blockIdx blockDim gridDim warpSize INFINITY NAN status main
from_float16 from_bfloat16 to_float16 to_bfloat16
absolute combine floor_divide from_lane is_finite is_nan maximum minimum modulo power reciprocal record_failure
rotate_left shift_left sigmoid sign_of softplus threefry truncated_remainder
wrapping_add wrapping_sub wrapping_mul wrapping_neg
team member meet shared_bytes quotient remainder
store_packed store_words
Add Mul Min Max And Or Packed WRAPPING ORDERED fmod fmodf atan2 atan2f copysign copysignf exp log pow powf
table set halted first_check
"""
