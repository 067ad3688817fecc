"""Kernels built by hand, each with arguments and what NumPy computes from them. Shared by the tests of all targets."""

from __future__ import annotations

from tests.loops.builders import F32, F64, I32, I64
from tests.loops.element_kernels import adam, chain, scaled, scaled_flat, uniform
from tests.loops.index_kernels import gather, reverse, scatter_add
from tests.loops.row_kernels import accumulators, argmax, column_sum, cumulative, moments, small_rows, softmax, total
from tests.loops.tables import bools, floats, signed, unsigned

CASES = {
    case.name: case
    for case in (
        chain(), softmax(), moments(), column_sum(), total(), argmax(), gather(), scatter_add(), uniform(), adam(),
        signed(I32), signed(I64), unsigned(), floats(F32), floats(F64), bools(), accumulators(), reverse(),
        cumulative(), small_rows(), scaled(), scaled_flat(),
    )
}  # fmt: skip
RUNS = [(name, sizes) for name, case in CASES.items() for sizes in case.sizes]
