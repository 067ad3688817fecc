"""Launches of the functions in products.cuh: small products, and what a library's products could not do."""

from __future__ import annotations

from graphc.backends.cupy.device import Activation, Launch, Product
from graphc.backends.cupy.printer import SHORT_PRODUCT, THIN_PRODUCT
from graphc.ir.types import DType

FINISH_PRODUCT = "finish_product"
FUNCTIONS = (THIN_PRODUCT, SHORT_PRODUCT, FINISH_PRODUCT)
NARROW = 16
"""What the functions for products of small matrices take of one side, at most."""
THREADS = 256
_TYPES = (DType.float32, DType.float16, DType.bfloat16)
_ACTIVATIONS = tuple(Activation)


def small_product(item: Product) -> Launch:
    """A product of float32 matrices with a narrow side, whatever is done to its sums."""
    steps_a = (1, item.lda) if item.transpose_a else (item.lda, 1)
    steps_b = (1, item.ldb) if item.transpose_b else (item.ldb, 1)
    words = (item.a, item.b, item.c, item.bias, item.addend, item.m, item.n, item.k, *steps_a, *steps_b, item.ldc)
    words += (_ACTIVATIONS.index(item.activation),)
    if item.k <= NARROW:
        return Launch(SHORT_PRODUCT, -(-item.m * item.n // THREADS), THREADS, words)
    return Launch(THIN_PRODUCT, item.m, THREADS, words)


def finish(item: Product) -> Launch:
    """What is done to sums, once they lie where the product puts them; matrices of a batch one after another."""
    rows, number = item.m * item.batch, _ACTIVATIONS.index(item.activation)
    words = (item.c, item.bias, item.addend, rows, item.n, item.ldc, _TYPES.index(item.result), number)
    return Launch(FINISH_PRODUCT, -(-rows * item.n // THREADS), THREADS, words)
