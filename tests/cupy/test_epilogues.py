"""Which kernels behind a product may become part of it: plans made by hand, each with one thing that forbids it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy import CupyBackend
from graphc.backends.cupy.device import Activation, Product
from graphc.backends.cupy.epilogues import FinishedGemm, finish_products
from graphc.backends.cupy.meaning import Sum, stored_by
from graphc.backends.cupy.padded import copying, pad_rows
from graphc.ir.types import DType, TensorType
from graphc.loops.affine import index, int64
from graphc.loops.kernel import Access, Apply, Buffer, Const, Expr, For, Kernel, Let, Load, LoopKind, Stmt, Store, Var
from graphc.loops.verify import verify_kernel
from graphc.lower.plan import GemmItem, KernelItem, Launch, Place, Plan, PlanBuffer
from tests.cupy.emulated_device import EmulatedDevice

F32, BOOL = DType.float32, DType.bool
ROW, COLUMN, N = (Var(name, DType.int64) for name in ("i0", "i1", "n0"))
HERE = index("add", index("mul", int64(5), ROW), COLUMN)
ZERO, ONE = Const(0.0, F32), Const(1.0, F32)
V = [Var(f"v{number}", F32) for number in range(4)]
MASK = Var("v4", BOOL)
X, W, BIAS, C, H, POSITIVE, OTHER = range(7)


def kernel(buffers: dict[str, tuple[DType, Access]], *body: Stmt) -> Kernel:
    """One over 4 rows of 5 elements."""
    inner = For("i1", int64(0), int64(5), LoopKind.VECTOR, body)
    given = tuple(Buffer(name, dtype, access) for name, (dtype, access) in buffers.items())
    made = Kernel("k", given, ("n0",), N, (For("i0", int64(0), N, LoopKind.PARALLEL, (inner,)),))
    verify_kernel(made)
    return made


def relu_of_sum(column: Expr = COLUMN, above: Const = ZERO) -> Kernel:
    """``h = relu(c + bias)``, and where that is positive."""
    read, write = (F32, Access.READ), (F32, Access.WRITE)
    return kernel(
        {"b0": read, "b1": read, "b2": write, "b3": (BOOL, Access.WRITE)},
        Let(V[0], Load("b0", HERE, F32)),
        Let(V[1], Load("b1", column, F32)),
        Let(V[2], Apply("add", (V[0], V[1]), F32)),
        Let(V[3], Apply("max", (V[2], ZERO), F32)),
        Let(MASK, Apply("gt", (V[3], above), BOOL)),
        Store("b2", HERE, V[3]),
        Store("b3", HERE, MASK),
    )  # fmt: skip


READING_MASK = kernel(
    {"b0": (BOOL, Access.READ), "b1": (F32, Access.WRITE)},
    Let(MASK, Load("b0", HERE, BOOL)),
    Store("b1", HERE, Apply("select", (MASK, ONE, ZERO), F32)),
)
COPYING = kernel(
    {"b0": (F32, Access.READ), "b1": (F32, Access.WRITE)},
    Let(V[0], Load("b0", HERE, F32)),
    Store("b1", HERE, V[0]),
)
TYPES = [
    (F32, (4, 6)),
    (F32, (6, 5)),
    (F32, (5,)),
    (F32, (4, 5)),
    (F32, (4, 5)),
    (BOOL, (4, 5)),
    (F32, (4, 5)),
    (F32, (4, 5)),
]
PRODUCT = GemmItem(F32, X, W, C, 4, 5, 6, 6, 5, 5)


def item(made: Kernel, *buffers: int) -> KernelItem:
    return KernelItem(made, buffers, (4,), 4)


FINISHING = item(relu_of_sum(), C, BIAS, H, POSITIVE)
READER = item(READING_MASK, POSITIVE, OTHER)


def plan(*launches: Any) -> Plan:
    places = {X: Place.INPUT, W: Place.STATE, BIAS: Place.ARENA}
    buffers = (
        PlanBuffer(number, "", TensorType(dtype, shape), places.get(number, Place.ARENA))
        for number, (dtype, shape) in enumerate(TYPES)
    )
    graph: Any = None
    return Plan(graph, tuple(buffers), tuple(Launch((made,), "") for made in launches), commit=len(launches))


def finished(made: Plan) -> list[FinishedGemm]:
    return [i for launch in finish_products(made).launches for i in launch.items if isinstance(i, FinishedGemm)]


def test_a_kernel_becomes_part_of_a_product_and_its_mask_is_compared_again():
    made = finish_products(plan(PRODUCT, FINISHING, READER))
    ((product,), (), (reader,)) = (launch.items for launch in made.launches)
    assert isinstance(product, FinishedGemm)
    assert (product.c, product.bias, product.addend, product.activation) == (H, BIAS, None, Activation.RELU)
    assert isinstance(reader, KernelItem)
    assert reader.buffers == (H, OTHER)
    verify_kernel(reader.kernel)
    assert reader.kernel.buffers[0].dtype is F32


SPARE = 7
FORBIDDEN: dict[str, tuple[Any, ...]] = {
    "the sums are read by another": (PRODUCT, FINISHING, READER, item(COPYING, C, SPARE)),
    "the target is read in between": (PRODUCT, item(COPYING, H, SPARE), FINISHING, READER),
    "the target is written in between": (PRODUCT, item(COPYING, SPARE, H), FINISHING, READER),
    "the bias is not there yet": (PRODUCT, item(copying(F32), SPARE, BIAS), FINISHING, READER),
    "the target is written before the mask is read": (PRODUCT, FINISHING, item(COPYING, SPARE, H), READER),
    "the mask is read by a product": (PRODUCT, FINISHING, replace(PRODUCT, a=POSITIVE, c=SPARE)),
    "the mask says something else": (PRODUCT, replace(FINISHING, kernel=relu_of_sum(above=ONE)), READER),
    "the bias is read backwards": (
        PRODUCT, replace(FINISHING, kernel=relu_of_sum(index("sub", int64(4), COLUMN))), READER,
    ),
    "rows of the sums lie apart": (replace(PRODUCT, ldc=8), FINISHING, READER),
    "the sums are those of panels": (replace(PRODUCT, in_panels=True), FINISHING, READER),
    "only a part is written": (PRODUCT, replace(FINISHING, written=10), READER),
}  # fmt: skip


@pytest.mark.parametrize("why", FORBIDDEN)
def test_it_does_not_where(why):
    made = plan(*FORBIDDEN[why])
    assert not finished(made)
    assert finish_products(made) is made


def test_sums_have_different_terms():
    def summed(other: Expr) -> Any:
        found = stored_by(
            kernel(
                {"b0": (F32, Access.READ), "b1": (F32, Access.WRITE)},
                Let(V[0], Load("b0", HERE, F32)),
                Let(V[1], Load("b0", other, F32)),
                Store("b1", HERE, Apply("add", (V[0], V[1]), F32)),
            )
        )
        assert found is not None
        return found["b1"].meaning

    assert summed(COLUMN) == Sum(frozenset([("b0", HERE), ("b0", COLUMN)]))
    assert not isinstance(summed(HERE), Sum)


def test_a_product_waits_for_what_is_added_to_it():
    shapes = {"x": (20, 24), "w": (24, 28), "r": (20, 28), "b": (28,)}
    x, w, r, b = given = [gx.placeholder(name, shape) for name, shape in shapes.items()]
    later = gx.softmax(x)
    outputs = {"y": later @ w + gx.cumsum(r, axis=1), "z": gx.relu(later @ (w * w) + gx.cumsum(b))}
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    program = gx.compile(outputs, given, backend=CupyBackend(device=EmulatedDevice(shuffled=True)))
    wanted = gx.compile(outputs, given, backend="reference")(**feeds)
    for name, found in program(**feeds).items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-4, atol=1e-4)
    (fit,) = program._fits.values()
    (recording,) = fit.bound._graphs.values()
    (graph,) = recording.parts
    products = [task for task in graph.tasks if isinstance(task.work, Product)]
    assert all(not task.work.is_plain for task in products)
    assert sorted(len(task.after) for task in products) == [2, 3]  # the operands, and what is added


# rows that lie apart


def test_what_is_added_lies_as_the_result_does():
    buffers = [
        (F32, (300, 300)),
        (F32, (300, 301)),
        (F32, (300, 301)),
        (F32, (300, 301)),
        (F32, (301, 8)),
        (F32, (300, 8)),
    ]
    product = FinishedGemm(F32, 0, 1, 2, 300, 301, 300, 300, 301, 301, addend=3)
    graph: Any = None
    made = Plan(
        graph,
        tuple(PlanBuffer(number, "", TensorType(*of), Place.ARENA) for number, of in enumerate(buffers)),
        (Launch((product,), ""), Launch((GemmItem(F32, 2, 4, 5, 300, 8, 301, 301, 8, 8),), "")),
    )
    ((first,), _) = (launch.items for launch in pad_rows(made, True).launches)
    assert isinstance(first, FinishedGemm)
    assert (first.ldb, first.ldc) == (304, 301)
    ((alone,), _) = (
        launch.items
        for launch in pad_rows(
            replace(made, launches=(Launch((replace(product, addend=None),), ""), made.launches[1])), True
        ).launches
    )
    assert isinstance(alone, FinishedGemm)
    assert (alone.ldb, alone.ldc) == (304, 304)


def test_what_is_added_stays_dense_if_the_result_does():
    buffers = [(F32, (300, 24)), (F32, (24, 301)), *[(F32, (300, 301))] * 2, (F32, (301, 256)), (F32, (300, 256))]
    graph: Any = None
    made = Plan(
        graph,
        tuple(PlanBuffer(number, "", TensorType(*of), Place.ARENA) for number, of in enumerate(buffers)),
        (
            Launch((FinishedGemm(F32, 0, 1, 2, 300, 301, 24, 24, 301, 301, addend=3),), ""),
            Launch((GemmItem(F32, 3, 4, 5, 300, 256, 301, 301, 256, 256),), ""),
        ),
    )
    ((first,), (second,)) = (launch.items for launch in pad_rows(made, True).launches)
    assert isinstance(first, FinishedGemm)
    assert isinstance(second, GemmItem)
    assert (first.ldb, first.ldc, second.lda) == (304, 301, 301)


def test_parameters_are_copied_as_long_as_they_are_old():
    buffers = [(F32, (2000, 400), Place.ARENA), (F32, (400, 401), Place.STATE), *[(F32, (2000, 401), Place.OUTPUT)] * 2]
    product = GemmItem(F32, 0, 1, 2, 2000, 401, 400, 400, 401, 401)
    update = KernelItem(copying(F32), (0, 1), (160400,), 160400)
    graph: Any = None
    made = Plan(
        graph,
        tuple(PlanBuffer(n, "", TensorType(dtype, shape), place) for n, (dtype, shape, place) in enumerate(buffers)),
        (Launch((product,), "old"), Launch((update,), "update"), Launch((replace(product, c=3),), "new")),
        commit=1,
    )
    found = pad_rows(made, True)
    assert [launch.label for launch in found.launches] == ["copy", "old", "update", "new"]
    assert found.commit == 2
    old, new = (found.launches[at].items[0] for at in (1, 3))
    assert isinstance(old, GemmItem)
    assert isinstance(new, GemmItem)
    assert (old.b, old.ldb, new.b, new.ldb) == (4, 404, 1, 401)
    assert pad_rows(made) is made  # float32 needs no tensor cores
