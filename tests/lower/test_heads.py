"""Attention of heads that are parts of rows: read and written where projections read and write them."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.lower.heads import Gradients
from graphc.lower.plan import AttentionItem, KernelItem

HEADS = 2


def parameter(name: str, *shape: int) -> gx.Parameter:
    drawn = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape)
    return gx.parameter(name, (0.5 * drawn).astype(np.float32))


def heads_of(x: gx.Node) -> gx.Node:
    *_, width = x.shape
    return gx.transpose(gx.reshape(x, (x.shape[0], x.shape[1], HEADS, width // HEADS)), (0, 2, 1, 3))


def rows_of(x: gx.Node) -> gx.Node:
    turned = gx.transpose(x, (0, 2, 1, 3))
    return gx.reshape(turned, (*turned.shape[:2], turned.shape[2] * turned.shape[3]))


def step(across: bool, value_width: int, backend: str, **options: object) -> tuple[gx.Program, dict[str, np.ndarray]]:
    """A step of attention whose queries, keys and values, or the last two, are columns of one projection."""
    x, memory = gx.placeholder("x", (2, "n", 8)), gx.placeholder("memory", (2, "m", 8))
    widths = [HEADS * 4, HEADS * 4, HEADS * value_width]
    parts: list[gx.Node] = []
    made: list[gx.Parameter] = []
    for number, (source, some) in enumerate([(x, widths[:1]), (memory, widths[1:])] if across else [(x, widths)]):
        made += [parameter(f"w{number}", 8, sum(some)), parameter(f"bias{number}", sum(some))]
        y = source @ made[-2] + made[-1]
        ends = np.cumsum(some).tolist()
        parts += [y[:, :, end - width : end] for width, end in zip(some, ends, strict=True)]
    q, k, v = map(heads_of, parts)
    made.append(parameter("out", HEADS * value_width, 8))
    out = rows_of(gx.scaled_dot_product_attention(q, k, v)) @ made[-1]
    loss = gx.mean(out * out)
    updates = {p: p - 0.5 * g for p, g in zip(made, gx.grad(loss, made), strict=True)}
    inputs = [x, memory] if across else [x]
    program = gx.compile({"loss": loss}, inputs, updates, backend=backend, training=True, **options)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((2, 5, 8), np.float32), "memory": rng.standard_normal((2, 3, 8), np.float32)}
    return program, {str(node.name): feeds[str(node.name)] for node in inputs}


@pytest.mark.parametrize("across", [False, True], ids=["within", "across"])
@pytest.mark.parametrize("value_width", [4, 6])
@pytest.mark.parametrize(("precision", "rtol"), [("float32", 1e-4), ("mixed_bfloat16", 3e-2)])
def test_nothing_is_copied_between_projections_and_attention(across, value_width, precision, rtol):
    (program, feeds), (twin, _) = (
        step(across, value_width, name, precision=precision) for name in ("numba", "reference")
    )
    for _ in range(2):
        np.testing.assert_allclose(program(**feeds)["loss"], twin(**feeds)["loss"], rtol=rtol)
    for p, q in zip(program.parameters, twin.parameters, strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=10 * rtol, atol=rtol / 10)
    labels = [launch.label for launch in program.plan.launches]
    assert not {"concatenate", "copy"} & set(labels), labels
    if precision == "float32":
        moved = [item for launch in program.plan.launches for item in launch.items if isinstance(item, AttentionItem)]
        sources = {lying.buffer for lying in (moved[0].query, moved[0].key, moved[0].value)}
        assert len(sources) == 1 + across
        sums = [item for launch in program.plan.launches[:3] for item in launch.items if isinstance(item, KernelItem)]
        assert len(sums) == 1 + across  # a bias is added once for all that it belongs to


def test_gradients_that_somebody_reads_as_one_row_stay_so():
    q, g = gx.placeholder("q", (2, "n", 8)), gx.placeholder("g", (2, 2, "n", 4))
    parts = gx.vjp([gx.scaled_dot_product_attention(*[heads_of(q)] * 3)], [q], [g])
    program = gx.compile({"d": parts[0]}, [q, g], backend="numba")
    items = (item for launch in program.plan.launches for item in launch.items)
    (item,) = (item for item in items if isinstance(item, AttentionItem) and item.cotangent)
    assert len({lying.offset for lying in item.results}) == 3
    rng = np.random.default_rng(1)
    feeds = {"q": rng.standard_normal((2, 5, 8), np.float32), "g": rng.standard_normal((2, 2, 5, 4), np.float32)}
    twin = gx.compile({"d": parts[0]}, [q, g], backend="reference")
    np.testing.assert_allclose(program(**feeds)["d"], twin(**feeds)["d"], rtol=1e-4, atol=1e-5)


def test_where_joined_gradients_lie():
    """Queries apart, keys and values of another width side by side: no element is in two places, and none is left."""
    shapes = ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6))
    for joined in ((), (1, 2)):
        places = Gradients(shapes, True, joined)
        taken: list[np.ndarray] = []
        for number, shape in enumerate(shapes):
            start, steps = places.place(number)
            index = np.indices(shape)
            taken.append((start + sum(i * step for i, step in zip(index, steps, strict=True))).reshape(-1))
        total = sum(int(np.prod(shape)) for shape in shapes)
        np.testing.assert_array_equal(np.sort(np.concatenate(taken)), np.arange(total))
    assert places.block == (2, 7, 30)
    assert places.place(2)[1] == [210, 6, 30, 1]
    alike = Gradients(((1, 2, 5, 4),) * 3, True, (0, 1, 2))
    assert [alike.place(number)[0] for number in range(3)] == [0, 8, 16]
    assert alike.block == (1, 5, 24)
