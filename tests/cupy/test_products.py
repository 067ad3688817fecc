"""Products on the GPU with what is done to their sums: the plan, the kernels that stand in, and what cuBLASLt is told."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy import CupyBackend, cublaslt
from graphc.backends.cupy.cublas import TYPES, WORKSPACE_BYTES
from graphc.backends.cupy.cublaslt import Algorithm, CublasLt, Name
from graphc.backends.cupy.device import Activation, Launch, Product
from graphc.backends.cupy.epilogues import FinishedGemm
from graphc.backends.cupy.halves import read_halves
from graphc.backends.cupy.products import FINISH_PRODUCT
from graphc.ir.types import DType
from graphc.lower.plan import KernelItem, Plan
from tests.cupy.emulated_device import EmulatedDevice, multiply, view
from tests.spine.models import batch, classifier_step

F32, F16, BF16, F64 = DType.float32, DType.float16, DType.bfloat16, DType.float64
NONE, RELU, GELU = Activation
Attributes = dict[int, bytes]


# programs


class PlanningDevice(EmulatedDevice):
    """Programs are planned for it, and not run."""

    def load(self, unit: Any) -> Any:
        return None


def arrays(dtype: DType, *shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32).astype(dtype.numpy) for shape in shapes]


def finished(plan: Plan) -> list[FinishedGemm]:
    return [item for launch in plan.launches for item in launch.items if isinstance(item, FinishedGemm)]


def kernels(plan: Plan) -> int:
    return sum(isinstance(item, KernelItem) for launch in plan.launches for item in launch.items)


def tasks(program: Any) -> list[Any]:
    (fit,) = program._fits.values()
    (recording,) = fit.bound._graphs.values()
    return [task.work for graph in recording.parts for task in graph.tasks]


def dense(x: gx.Node, w: gx.Node, b: gx.Node) -> gx.Node:
    return x @ w + b


def tanh_gelu(x: gx.Node) -> gx.Node:
    return gx.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[gx.Node], gx.Node]] = {"none": lambda x: x, "relu": gx.relu, "gelu": tanh_gelu}
TOLERANCE = {F32: 2e-6, F16: 2e-3, BF16: 1.6e-2}


SHAPES = (
    ((4, 3, 21), (21, 18)),
    ((33, 40), (40, 37)),
    ((3, 5, 19), (3, 19, 23)),  # a batch of products
    ((5, 30), (30, 1)),
)


@pytest.mark.parametrize("epilogues", [True, False])
@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_layers_are_those_of_the_reference(gpu, dtype, epilogues):
    """Each activation that the library has is part of the product, or else of a kernel that all of them share."""
    if isinstance(gpu.device, EmulatedDevice):
        gpu.device.has_epilogues = epilogues
    elif not epilogues:
        pytest.skip("a GPU's library decides")
    outputs, inputs, feeds = {}, [], {}
    for name, activation in ACTIVATIONS.items():
        for number, (left, right) in enumerate(SHAPES):
            values = arrays(dtype, left, right, right[-1:], seed=number)
            given = [
                gx.placeholder(f"{part}{name}{number}", v.shape, dtype.value)
                for part, v in zip("xwb", values, strict=True)
            ]
            inputs += given
            feeds |= dict(zip((node.name for node in given), values, strict=True))
            outputs[f"{name}{number}"] = activation(dense(*given))
    program = gx.compile(outputs, inputs, backend=gpu)
    wanted = gx.compile(outputs, inputs, backend="reference")(**feeds)
    for name, found in program(**feeds).items():
        x, y = (np.asarray(value).astype(np.float32) for value in (found, wanted[name]))
        np.testing.assert_allclose(x, y, rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype], err_msg=name)
    items = finished(program.executable.plan)
    assert len(items) == len(SHAPES) * (3 if dtype.is_half else 2)  # gelu is an approximation
    if not isinstance(gpu.device, EmulatedDevice):
        return
    large = sum(not (item.n == 1 and dtype is F32) for item in items)
    work = tasks(program)
    assert sum(isinstance(w, Product) and not w.is_plain for w in work) == large * epilogues
    assert sum(isinstance(w, Launch) and w.function == FINISH_PRODUCT for w in work) == large * (not epilogues)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_matrix_is_added_to_the_sums(side):
    x, w, r, b = arrays(F32, (20, 24), (24, 28), (20, 28), (28,))
    given = [gx.placeholder(name, value.shape) for name, value in zip("xwrb", (x, w, r, b), strict=True)]
    product = given[0] @ given[1]
    outputs = {"y": gx.relu((product + given[2] if side == "left" else given[2] + product) + given[3])}
    for device in (EmulatedDevice(), EmulatedDevice(has_epilogues=False)):
        program = gx.compile(outputs, given, backend=CupyBackend(device=device))
        np.testing.assert_allclose(program(x=x, w=w, r=r, b=b)["y"], np.maximum(x @ w + r + b, 0), rtol=1e-5, atol=1e-5)
        (item,) = finished(program.executable.plan)
        assert (item.bias is None, item.addend is None, item.activation) == (False, False, RELU)


def test_two_launches_less_in_a_step_of_a_perceptron():
    """One for each relu; the masks that its gradient read are gone, too, and the logits' bias stays in softmax."""
    sizes, feeds = [20, 32, 24, 5], batch(6, 20, 5)
    steps = [
        classifier_step(sizes, backend=CupyBackend(device=EmulatedDevice(shuffled=True))),
        classifier_step(sizes, backend="reference"),
    ]
    for _ in range(3):
        found, wanted = (step(**feeds)["loss"] for step in steps)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for a, b in zip(*(step.parameters for step in steps), strict=True):
        np.testing.assert_allclose(a.value, b.value, rtol=2e-4, atol=2e-6)
    plan, before = steps[0].executable.plan, read_halves(steps[0].plan)
    assert [item.activation for item in finished(plan)] == [RELU, RELU]
    assert kernels(plan) == kernels(before) - 2
    used = {index for launch in plan.launches for item in launch.items for index in item.buffers}
    masks = [buffer.index for buffer in before.buffers if buffer.type.dtype is DType.bool]
    assert len(masks) == 2
    assert not used & set(masks)


def test_mixed_precision_rounds_the_bias_with_the_weights():
    x = gx.placeholder("x", ("batch", 24))
    w, b = (gx.parameter(name, value) for name, value in zip("wb", arrays(F32, (24, 40), (40,)), strict=True))
    v = gx.parameter("v", arrays(F32, (40, 3))[0])
    loss = gx.mean((gx.relu(dense(x, w, b)) @ v) ** 2)
    updates = {p: p - 0.1 * g for p, g in zip((w, b, v), gx.grad(loss, [w, b, v]), strict=True)}
    data = arrays(F32, (16, 24))[0]
    losses = []
    for backend in (CupyBackend(device=EmulatedDevice(shuffled=True)), "reference"):
        start = [p.value.copy() for p in (w, b, v)]
        program = gx.compile({"loss": loss}, [x], updates, backend=backend, precision="mixed_bfloat16")
        losses.append([float(program(x=data)["loss"]) for _ in range(3)])
        if backend != "reference":
            (item,) = finished(program.executable.plan)
            assert item.bias is not None
            assert program.executable.plan.buffers[item.bias].type.dtype is BF16
            casts = [work.function for work in tasks(program) if isinstance(work, Launch) and "cast" in work.function]
            assert "cast_table" in casts  # one launch for weights and bias
        for p, value in zip((w, b, v), start, strict=True):
            p.value = value
    np.testing.assert_allclose(*losses, rtol=1e-2)


def test_what_somebody_else_reads_is_left_alone():
    x, w, b = (gx.placeholder(name, shape) for name, shape in (("x", (20, 24)), ("w", (24, 28)), ("b", (28,))))
    column, wide = gx.placeholder("c", (20, 1)), gx.placeholder("r", (20, 28))
    product = x @ w
    backend = CupyBackend(device=PlanningDevice())
    cases = {
        "read twice": {"y": gx.relu(product + b), "z": gx.sum(gx.exp(product), axis=0)},
        "handed out": {"y": gx.relu(product + b), "z": product},
        "a column": {"y": gx.relu(product + column)},
        "scaled": {"y": gx.relu(2 * product + b)},
        "another function": {"y": gx.tanh(product + b)},
        "no bias": {"y": gx.relu(product)},
        "behind": {"y": gx.relu(product + b) + wide},
        "doubled": {"y": product + product},
    }
    for name, outputs in cases.items():
        plan = gx.compile(outputs, [x, w, b, column, wide], backend=backend).executable.plan
        assert not finished(plan), name
    plan = gx.compile({"y": gx.relu(x[:1] @ w + b)}, [x, w, b], backend=backend).executable.plan
    assert not finished(plan)  # a row times a matrix
    double = [
        gx.placeholder(name, shape, "float64") for name, shape in (("x", (20, 24)), ("w", (24, 28)), ("b", (28,)))
    ]
    assert not finished(gx.compile({"y": gx.relu(dense(*double))}, double, backend=backend).executable.plan)


@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.parametrize("epilogues", [True, False])
def test_nan_and_infinities_are_what_they_are_in_the_reference(gpu, name, epilogues):
    if isinstance(gpu.device, EmulatedDevice):
        gpu.device.has_epilogues = epilogues
    bias = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 3e38, -3e38, *range(13)], np.float32)
    x, w = arrays(BF16, (20, 24), (24, 20))
    given = [gx.placeholder(part, shape, "bfloat16") for part, shape in (("x", x.shape), ("w", w.shape), ("b", (20,)))]
    outputs = {"y": ACTIVATIONS[name](dense(*given))}
    feeds = {"x": x, "w": w, "b": bias.astype(BF16.numpy)}
    program = gx.compile(outputs, given, backend=gpu)
    found, wanted = (
        p(**feeds)["y"].astype(np.float32) for p in (program, gx.compile(outputs, given, backend="reference"))
    )
    assert len(finished(program.executable.plan)) == 1
    np.testing.assert_allclose(found, wanted, rtol=1.6e-2, atol=5e-2)
    assert np.isnan(found[:, 0]).all()
    assert (found[:, 1] == np.inf).all()


# what cuBLASLt is told


class Function:
    """What ctypes makes of a function of a library: it can be called, and its types can be set."""

    argtypes: Any = None

    def __init__(self, run: Callable[..., int]) -> None:
        self._run = run

    def __call__(self, *args: Any) -> int:
        assert self.argtypes is None or len(args) == len(self.argtypes)
        return self._run(*args) or 0


@dataclass
class FakeLt:
    """Multiplies as its documentation says, with what it is told, on memory of the host.

    Attributes:
        things: attributes of what was made and not destroyed yet, by its handle.
        asked: for each question for algorithms, the attributes of the product and of what is preferred.
    """

    offers: bool = True
    keeps_nan: bool = True
    things: dict[int, Attributes] = field(default_factory=dict)
    asked: list[tuple[Attributes, Attributes]] = field(default_factory=list)
    multiplied: int = 0

    def __post_init__(self) -> None:
        self.made = 0
        for kind in ("MatmulDesc", "MatrixLayout", "MatmulPreference"):
            setattr(self, f"cublasLt{kind}Create", Function(self._create))
            setattr(self, f"cublasLt{kind}SetAttribute", Function(self._set))
            setattr(self, f"cublasLt{kind}Destroy", Function(lambda thing: self.things.pop(thing.value) and 0))
        self.cublasLtCreate = Function(lambda handle: 0)
        self.cublasLtMatmulAlgoGetHeuristic = Function(self._heuristic)
        self.cublasLtMatmul = Function(self._matmul)

    def _create(self, thing: Any, *values: int) -> int:
        self.made += 1
        thing._obj.value = self.made
        self.things[self.made] = {-1 - at: int(value).to_bytes(8, "little") for at, value in enumerate(values)}
        return 0

    def _set(self, thing: ctypes.c_void_p, name: int, value: Any, size: int) -> int:
        self.things[thing.value][name] = bytes(value._obj)
        assert len(bytes(value._obj)) == size
        return 0

    def _heuristic(
        self, handle: Any, operation: Any, a: Any, b: Any, c: Any, d: Any, preference: Any, *rest: Any
    ) -> int:
        count, algorithm, answered = rest
        assert count == 1
        self.asked.append((dict(self.things[operation.value]), dict(self.things[preference.value])))
        answered._obj.value = int(self.offers)
        algorithm._obj.data[0] = 0xA190
        return 0

    def _matmul(
        self, handle: Any, operation: Any, one: int, a: int, of_a: Any, b: int, of_b: Any, beta: int, *rest: Any
    ) -> int:
        c, of_c, d, of_d, algorithm, _, nbytes, _ = rest
        assert Algorithm.from_address(algorithm).data[0] == 0xA190
        assert nbytes == WORKSPACE_BYTES
        self.multiplied += 1
        scale = ctypes.c_float.from_address(beta).value
        assert ctypes.c_float.from_address(one).value == 1
        told = self.things[operation.value]
        number = {name: int.from_bytes(told.get(name, b""), "little") for name in Name}
        epilogue, bias = number[Name.CUBLASLT_MATMUL_DESC_EPILOGUE], number[Name.CUBLASLT_MATMUL_DESC_BIAS_POINTER]
        left, right, added, result = (
            self._columns(address, of) for address, of in ((a, of_a), (b, of_b), (c, of_c), (d, of_d))
        )
        for x, y, z, out in zip(left, right, added, result, strict=True):
            x = x.T if number[Name.CUBLASLT_MATMUL_DESC_TRANSA] else x
            y = y.T if number[Name.CUBLASLT_MATMUL_DESC_TRANSB] else y
            sums = x.astype(np.float32) @ y.astype(np.float32)
            sums += scale * z.astype(np.float32) if scale else 0
            if epilogue & Name.CUBLASLT_EPILOGUE_BIAS:
                of = out.dtype
                sums += view(bias, len(out) * of.itemsize).view(of).astype(np.float32)[:, None]
            if epilogue & Name.CUBLASLT_EPILOGUE_RELU:
                sums = np.maximum(sums, 0) if self.keeps_nan else np.fmax(sums, 0)
            if epilogue & Name.CUBLASLT_EPILOGUE_GELU:
                sums = GELU.of(sums)
            out[...] = sums
        return 0

    def _columns(self, address: int, layout: ctypes.c_void_p) -> list[np.ndarray]:
        """The matrices of a layout, column by column."""
        told = {name: int.from_bytes(value, "little") for name, value in self.things[layout.value].items()}
        dtype = next(dtype for dtype, number in TYPES.items() if number == told[-1]).numpy
        rows, columns, distance, size = told[-2], told[-3], told[-4], dtype.itemsize
        assert distance >= rows
        found = []
        for i in range(told.get(Name.CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 1)):
            start = address + i * told.get(Name.CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, 0) * size
            flat = view(start, ((columns - 1) * distance + rows) * size).view(dtype)
            found.append(np.lib.stride_tricks.as_strided(flat, (rows, columns), (size, distance * size)))
        return found


@dataclass
class Matrices:
    """A product and what it works on."""

    product: Product
    held: tuple[np.ndarray, ...]

    @classmethod
    def make(cls, dtype: DType, result: DType, **wanted: Any) -> Matrices:
        """Odd sizes, and rows that are further apart than they are long."""
        m, n, k, batch, apart = 5, 7, 9, wanted.get("batch", 1), 3
        ta, tb = wanted.get("transpose_a", False), wanted.get("transpose_b", False)
        lda, ldb, ldc = (m if ta else k) + apart, (k if tb else n) + apart, n + apart
        counts = ((k if ta else m) * lda, (n if tb else k) * ldb, m * ldc)
        a, b = arrays(dtype, (batch, counts[0]), (batch, counts[1]))
        c, bias, addend = arrays(result, (batch, counts[2]), (n,), (batch, counts[2]), seed=1)
        return cls(
            Product(
                dtype, result, a.ctypes.data, b.ctypes.data, c.ctypes.data, m, n, k, lda, ldb, ldc, ta, tb, batch, counts,
                wanted.get("tf32", False), bias.ctypes.data * wanted.get("bias", True),
                addend.ctypes.data * wanted.get("addend", False), wanted.get("activation", NONE),
            ),
            (a, b, c, bias, addend),
        )  # fmt: skip


CASES: dict[str, tuple[DType, DType, dict[str, Any]]] = {
    "bias": (F32, F32, {}),
    "tf32": (F32, F32, {"tf32": True, "activation": GELU}),
    "transposed a": (F32, F32, {"transpose_a": True, "activation": RELU}),
    "transposed b": (F32, F32, {"transpose_b": True, "activation": RELU}),
    "both": (BF16, BF16, {"transpose_a": True, "transpose_b": True, "activation": GELU}),
    "batch": (F16, F16, {"batch": 3, "activation": RELU}),
    "batch of float32": (BF16, F32, {"batch": 2, "transpose_b": True, "addend": True}),
    "matrix": (F16, F32, {"addend": True, "bias": False}),
    "all": (BF16, BF16, {"addend": True, "activation": RELU}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_library_is_told_what_is_meant(name):
    dtype, result, wanted = CASES[name]
    matrices, library = Matrices.make(dtype, result, **wanted), FakeLt()
    lt = CublasLt(library, EmulatedDevice(), 0)
    c = matrices.held[2]
    before = c.copy()
    assert lt.finishes(matrices.product)
    np.testing.assert_array_equal(c, before)  # nothing but scratch memory was written
    lt.product(matrices.product, 0, 0)
    found = c.copy()
    c[...] = before
    multiply(matrices.product)
    np.testing.assert_allclose(found.astype(np.float32), c.astype(np.float32), rtol=TOLERANCE[result], atol=1e-5)
    assert not library.things  # all descriptions are gone


def test_algorithms_add_up_in_one_order_and_are_asked_for_once_a_shape():
    matrices, library = Matrices.make(F32, F32, activation=RELU), FakeLt()
    product = matrices.product
    lt = CublasLt(library, EmulatedDevice(), 0)
    for _ in range(2):
        assert lt.finishes(product)
    ((told, preferred),) = library.asked
    assert int.from_bytes(preferred[Name.CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK], "little") == 2
    assert int.from_bytes(preferred[Name.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES], "little") == WORKSPACE_BYTES
    assert int.from_bytes(told[Name.CUBLASLT_MATMUL_DESC_EPILOGUE], "little") == 6
    assert library.multiplied == 1  # with a bias of NaN
    assert lt.finishes(replace(product, a=product.a + (1 << 20)))  # which lies as well as the other
    assert len(library.asked) == 1
    assert lt.finishes(replace(product, b=4096 + 4, activation=NONE))
    assert int.from_bytes(library.asked[1][1][Name.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], "little") == 4


def test_what_the_library_does_not_offer_is_left_to_kernels():
    matrices = Matrices.make(F32, F32)
    plain = matrices.product
    relu = replace(plain, activation=RELU)
    assert not CublasLt(FakeLt(offers=False), EmulatedDevice(), 0).finishes(plain)
    losing = CublasLt(FakeLt(keeps_nan=False), EmulatedDevice(), 0)
    assert (losing.finishes(plain), losing.finishes(relu)) == (True, False)
    lt = CublasLt(FakeLt(), EmulatedDevice(), 0)
    assert lt.finishes(relu)
    assert not lt.finishes(replace(relu, bias=0))  # there is nothing to try it with
    assert not lt.finishes(replace(plain, dtype=F64, result=F64))


def installed(suffix: str) -> Path:
    """A file of the installed library."""
    for package in ("nvidia-cublas", "nvidia-cublas-cu12"):
        try:
            found = [file for file in files(package) or () if str(file).endswith(suffix)]
        except PackageNotFoundError:
            continue
        if found:
            return Path(str(found[0].locate()))
    pytest.skip("nvidia-cublas is not installed")


def test_numbers_are_those_of_the_header():
    text = installed("cublasLt.h").read_text(encoding="utf-8")
    for name in Name:
        (value,) = re.findall(rf"^\s*{name.name} = (\d+),", text, re.MULTILINE)
        assert int(value) == name, name.name
    assert "uint64_t data[8];\n} cublasLtMatmulAlgo_t;" in text
    assert ctypes.sizeof(Algorithm) == 96


def test_the_library_takes_what_it_is_told():
    """Descriptions need no GPU."""
    library = ctypes.CDLL(str(installed("libcublasLt.so.13")))
    create = library.cublasLtCreate
    try:
        library.cublasLtCreate = lambda handle: 0
        lt = cublaslt.CublasLt(library, EmulatedDevice(), 0)
        for dtype, result, wanted in CASES.values():
            matrices = Matrices.make(dtype, result, **wanted)
            with lt._described(matrices.product) as told:
                read = ctypes.c_uint32(0)
                library.cublasLtMatmulDescGetAttribute(
                    told.operation,
                    int(Name.CUBLASLT_MATMUL_DESC_EPILOGUE),
                    ctypes.byref(read),
                    ctypes.c_size_t(4),
                    None,
                )
                assert read.value
    finally:
        library.cublasLtCreate = create
