"""Loops that end by themselves: the host reads before each step whether there is one."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy import CupyBackend
from graphc.errors import IndexRangeError
from graphc.ops.scan import Scan
from tests.cupy.emulated_device import EmulatedDevice


def both(outputs, inputs, gpu, updates=None):
    return [gx.compile(outputs, inputs, updates, backend=backend) for backend in (gpu, "reference")]


def agree(programs, **feeds):
    found, wanted = (program(**feeds) for program in programs)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    return found


def test_it_stops_where_it_stops_elsewhere(gpu):
    x = gx.placeholder("x", ("n",))
    halved, steps = gx.while_loop(lambda v: gx.max(v) > 1, lambda v: v / 2, x, most=9)
    programs = both({"halved": halved, "steps": steps, "after": halved * 3.0 + gx.sum(x)}, [x], gpu)
    for largest, count in ((0.5, 0), (1.5, 1), (3.0, 2), (100.0, 7), (1e9, 9), (3.0, 2)):
        found = agree(programs, x=np.linspace(0, largest, 4).astype(np.float32))
        assert int(found["steps"]) == count


def test_no_step_is_allowed_and_none_runs(gpu):
    x = gx.placeholder("x", (3,))
    last, steps = gx.while_loop(lambda v: gx.sum(v) > 0, lambda v: v - 1, x, most=0)
    found = agree(both({"last": last, "steps": steps}, [x], gpu), x=np.ones(3, np.float32))
    assert int(found["steps"]) == 0


def test_loops_within_loops_and_products_in_them(gpu):
    x = gx.placeholder("x", (2, 3))
    w = gx.parameter("w", np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32) * 0.3)

    def inner(v):
        return gx.while_loop(lambda u: gx.max(gx.abs(u)) > 0.2, lambda u: gx.tanh(u @ w), v, most=4)

    def step(carry, e):
        new, count = inner(carry + e)
        return new, gx.cast(count, "float32") + gx.sum(new)

    e = gx.placeholder("e", (3, 2, 3))
    last, seen = gx.scan(step, x, e)

    def outer(v):
        return gx.scan(lambda carry, _: (carry * 0.8, None), inner(v)[0], length=2)[0]

    final, rounds = gx.while_loop(lambda v: gx.sum(gx.abs(v)) > 0.5, outer, x, most=5)
    programs = both({"last": last, "seen": seen, "final": final, "rounds": rounds}, [x, e], gpu)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        agree(programs, x=rng.standard_normal((2, 3), np.float32), e=rng.standard_normal((3, 2, 3), np.float32))


def test_state_changes_after_it_and_not_if_a_check_in_it_fails(gpu):
    ids = gx.placeholder("ids", (), "int64")
    table = gx.parameter("table", np.arange(5, dtype=np.float32))
    total = gx.parameter("total", np.float32(0))

    def body(carry):
        at, seen = carry
        return at + 1, seen + gx.take(table, at, axis=0)

    (_, seen), steps = gx.while_loop(lambda c: c[1] < 8.0, body, (ids, gx.constant(np.float32(0))), most=9)
    program = gx.compile({"seen": seen, "steps": steps}, [ids], {total: total + seen}, backend=gpu)
    assert float(program(ids=1)["seen"]) == 10.0
    assert float(total.value) == 10.0
    with pytest.raises(IndexRangeError):
        program(ids=4)
    assert float(total.value) == 10.0
    assert float(program(ids=2)["seen"]) == 9.0
    assert float(total.value) == 19.0


def test_a_step_is_recorded_once_and_runs_as_often_as_it_is_needed():
    device = EmulatedDevice()
    x = gx.placeholder("x", ())
    halved, _ = gx.while_loop(lambda v: v > 1, lambda v: v / 2, x, most=50)
    program = gx.compile({"y": halved}, [x], backend=CupyBackend(device=device))
    counts = []
    for value in (5.0, 5.0, 17.0, 5.0):
        before = (device.launches, device.recordings)
        program(x=np.float32(value))
        counts.append((device.launches - before[0], device.recordings - before[1]))
    assert [launches - counts[0][0] for launches, _ in counts] == [0, 0, 2, 0]
    assert [recordings for _, recordings in counts[1:]] == [0, 2, 0]
    started = [program.start([np.float32(value)]) for value in (9.0, 3.0)]
    assert [float(results[0]) for results in started] == [0.5625, 0.75]


# generation: all kinds write the tokens that the CPU writes


@pytest.fixture(scope="module")
def gpt():
    gx.set_seed(1)
    model = gx.models.Gpt(11, num_layers=1, d_model=8, num_heads=2, max_length=16, dropout=0.0)
    rng = np.random.default_rng(0)
    for weight in model.weights:  # far enough apart that the likeliest token is the same everywhere
        weight.value = rng.standard_normal(weight.value.shape).astype(np.float32)
    return model


PROMPTS = np.array([[1, 2, 3], [4, 5, 6]])


def test_generation_in_mixed_precision_carries_keys_and_values_in_16_bits(gpu, gpt):
    wanted = gpt.generate(PROMPTS, 6, backend="reference", precision="mixed_bfloat16")
    found = gpt.generate(PROMPTS, 6, backend=gpu, precision="mixed_bfloat16")
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_allclose(found.log_probs, wanted.log_probs, rtol=2e-2, atol=2e-2)
    plain = gpt.generate(PROMPTS, 6, backend="reference")
    np.testing.assert_allclose(found.log_probs, plain.log_probs, rtol=0.1, atol=0.1)
    program = gpt.writer(6, backend=gpu, precision="mixed_bfloat16").program()
    (loop,) = (node.op for node in program.simplified.nodes if isinstance(node.op, Scan))
    shapes = [(carry.dtype.is_half, carry.ndim) for carry in loop.body.inputs[: loop.carries] if carry.ndim > 2]
    assert shapes
    assert all(is_half for is_half, _ in shapes)  # nothing is kept in float32 beside them


WAYS = {
    "greedy": {},
    "sampled": {"temperature": 1.5, "seed": 3},
    "limited": {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "seed": 4},
    "beams": {"beams": 3, "length_penalty": 0.5},
}


@pytest.mark.parametrize("way", WAYS)
def test_generation_writes_the_tokens_of_the_cpu(gpu, gpt, way):
    free = gpt.generate(PROMPTS, 6, backend="reference", **WAYS[way]).tokens
    for end in (None, int(free.reshape(-1)[2])):  # some text ends early
        wanted = gpt.generate(PROMPTS, 6, end=end, backend="reference", **WAYS[way])
        found = gpt.generate(PROMPTS, 6, end=end, backend=gpu, **WAYS[way])
        np.testing.assert_array_equal(found.tokens, wanted.tokens)
        np.testing.assert_array_equal(found.lengths, wanted.lengths)
        np.testing.assert_allclose(found.log_probs, wanted.log_probs, rtol=1e-4, atol=1e-4)
    assert wanted.lengths.min() < 6
