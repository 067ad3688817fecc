"""In what a program multiplies: the policies that users know by name."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.errors import AxisError
from graphc.ir.location import user_line
from graphc.ir.types import DType

PRECISIONS = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Precision:
    """In what a program multiplies.

    Attributes:
        name: what the user says, one of ``PRECISIONS``.
        factors: what operands of products are rounded to, or None.
        tf32: whether products of float32 may round their operands to 10 bits of mantissa, where the hardware does.
    """

    name: str = "float32"
    factors: DType | None = None
    tf32: bool = False


FLOAT32 = Precision()
"""The default policy."""


def find_precision(value: str | None) -> Precision:
    """The policy of this name; None is float32.

    Raises:
        AxisError: there is none.

    >>> find_precision("mixed_bfloat16").factors
    bfloat16
    """
    name = "float32" if value is None else value
    if name not in PRECISIONS:
        raise AxisError(
            f"no precision is called {value!r}",
            at=user_line(),
            remedy=f"use one of: {', '.join(PRECISIONS)}",
        )
    kinds = {"mixed_bfloat16": DType.bfloat16, "mixed_float16": DType.float16}
    return Precision(name, kinds.get(name), name == "tf32")
