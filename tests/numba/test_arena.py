"""Batches of many sizes share the memory of their intermediates; calls that run at once have some each."""

from __future__ import annotations

import threading

import numpy as np
import pytest

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
    contexts = [context for one in bound for context in one._contexts.values()]
    return {c.arena.ctypes.data: c.arena.nbytes for c in contexts}, max(one.layout.peak_bytes for one in bound)


@pytest.mark.parametrize("training", [True, False])
def test_all_sizes_take_three_times_what_the_largest_needs_at_most(training):
    step, judge = program(training), program(training, "reference")
    rng = np.random.default_rng(1)
    for size in SIZES:
        x = rng.standard_normal((size, 16)).astype(np.float32)
        np.testing.assert_allclose(step(x=x)["loss"], judge(x=x)["loss"], rtol=2e-5)
    found, largest = arenas(step)
    assert sum(found.values()) <= 3 * largest + 1024
    assert len(found) < len(set(SIZES)) - 2


def test_threads_that_call_with_all_sizes_do_not_meet():
    step, judge = program(False), program(False, "reference")
    rng = np.random.default_rng(2)
    rows = [rng.standard_normal((size, 16)).astype(np.float32) for size in SIZES]
    wanted = [judge(x=x)["loss"] for x in rows]
    wrong = []

    def call(first: int) -> None:
        for number in range(200):
            place = (first + 3 * number) % len(rows)
            if not np.allclose(step(x=rows[place])["loss"], wanted[place], rtol=2e-5):
                wrong.append(place)

    threads = [threading.Thread(target=call, args=(first,)) for first in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong
    assert len(step.executable.lanes) <= 4
