"""Batches of many sizes share the memory of their intermediates where steps run one at a time."""

from __future__ import annotations

import numpy as np

import graphc as gx

SIZES = (8, 40, 3, 64, 1, 17, 64, 5)


def program(training: bool, backend: str = "numba") -> gx.Program:
    x = gx.placeholder("x", ("batch", 16))
    w = gx.parameter("w", np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32) / 4)
    h = gx.tanh(x @ w) @ w
    loss = gx.sum(gx.square(h), axis=-1)
    updates = {w: w - 0.01 * gx.grad(gx.sum(loss), [w])[0]} if training else {}
    return gx.compile({"loss": loss}, inputs=[x], updates=updates, backend=backend)


def arenas(step: gx.Program) -> tuple[dict[int, int], int]:
    """The bytes of all arenas by where they lie, and what the largest batch needs."""
    bound = list(step.executable._bound.values())
    contexts = [context for one in bound for context in one._pool]
    return {c.arena.ctypes.data: c.arena.nbytes for c in contexts}, max(one.layout.peak_bytes for one in bound)


def test_training_takes_three_times_what_the_largest_batch_needs_at_most():
    step, judge = program(True), program(True, "reference")
    rng = np.random.default_rng(1)
    for size in SIZES:
        x = rng.standard_normal((size, 16)).astype(np.float32)
        np.testing.assert_allclose(step(x=x)["loss"], judge(x=x)["loss"], rtol=2e-5)
    found, largest = arenas(step)
    assert sum(found.values()) <= 3 * largest + 1024
    assert len(found) < len(set(SIZES)) - 2


def test_inference_that_may_run_on_several_threads_has_an_arena_for_each_size():
    step = program(False)
    for size in SIZES:
        step(x=np.ones((size, 16), np.float32))
    found, _ = arenas(step)
    assert len(found) == len(set(SIZES))
