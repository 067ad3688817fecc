"""What is said to cuDNN. A stand-in for its frontend records that; the real one plans, where it is installed.

Neither computes anything: that takes a GPU. Whether descriptions are right is tested in test_convolvers.py, where the
reference computes what they say.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from graphc.backends.cupy import cudnn
from graphc.backends.cupy.device import Convolution
from graphc.errors import BackendError
from graphc.ir.types import DType
from graphc.lower.plan import Sought


def convolution(sought: Sought = Sought.RESULT, dtype: DType = DType.bfloat16, **changes: Any) -> Convolution:
    """3 x 2 elements on images of 8 x 9 pixels, 4 channels, 6 filters, more zeros behind than before."""
    made = Convolution(
        sought, dtype, 0x1000, 0x2000, 0x3000, 5, (8, 9), (4, 10), (3, 2), (2, 1), (1, 1), (0, 1), (1, 1), 1, 4, 6
    )
    return replace(made, **changes)


class Refused(Exception):
    """What the frontend raises for what it cannot do."""


class Tensor:
    """A tensor of the stand-in: what it was made with, and what was set later."""

    def __init__(self, **given: Any) -> None:
        self.said = given

    def set_output(self, value: bool) -> Tensor:
        return self._set("output", value)

    def set_data_type(self, value: str) -> Tensor:
        return self._set("data_type", value)

    def set_dim(self, value: list[int]) -> Tensor:
        return self._set("dim", value)

    def set_stride(self, value: list[int]) -> Tensor:
        return self._set("stride", value)

    def _set(self, name: str, value: Any) -> Tensor:
        self.said[name] = value
        return self


class Graph:
    """Records the calls; some of its plans can be compiled."""

    names = ("eng0_k1=2", "an engine of the frontend", "eng7", "eng7", "eng9", *(f"eng{n}" for n in range(20, 40)))
    unusable = ("eng0_k1=2", "eng9")

    def __init__(self, calls: list[Any], **given: Any) -> None:
        self.calls = calls
        calls.append(("pygraph", given))

    def tensor(self, **given: Any) -> Tensor:
        return Tensor(**given)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, *args, kwargs) if kwargs else (name, *args))
            return Tensor() if name.startswith("conv_") else None

        return call

    def get_execution_plan_count(self) -> int:
        return len(self.names)

    def get_plan_name_at_index(self, index: int) -> str:
        return self.names[index]

    def build_plan_at_index(self, index: int) -> None:
        self.calls.append(("build", self.names[index]))
        if self.names[index] in self.unusable:
            raise Refused("Deselecting execution plan\nand more lines")

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return 100 * index


class Frontend(SimpleNamespace):
    """The stand-in for the module."""

    def __init__(self, calls: list[Any]) -> None:
        names = "BFLOAT16 HALF FLOAT DOUBLE"
        notes = "NONDETERMINISTIC DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION TENSOR_CORE"
        super().__init__(
            data_type=SimpleNamespace(**{name: name for name in names.split()}),
            numerical_note=SimpleNamespace(**{name: name for name in notes.split()}),
            heur_mode=SimpleNamespace(A="A", FALLBACK="FALLBACK"),
            cudnnGraphNotSupportedError=Refused,
            pygraph=lambda **given: Graph(calls, **given),
            create_handle=lambda: calls.append(("create_handle",)) or f"handle {len(calls)}",
            set_stream=lambda handle, stream: calls.append(("set_stream", stream)),
        )


@pytest.fixture
def calls() -> list[Any]:
    return []


@pytest.fixture
def library(calls) -> cudnn.Cudnn:
    return cudnn.Cudnn(Frontend(calls))


def said(calls: list[Any], name: str) -> Any:
    return next(call for call in calls if call[0] == name)


def test_a_convolution_is_described_with_channels_second_wherever_they_lie(library, calls):
    list(library.plans(convolution()))
    types = {"io_data_type": "BFLOAT16", "intermediate_data_type": "FLOAT", "compute_data_type": "FLOAT"}
    assert said(calls, "pygraph")[1].items() >= types.items()
    how = said(calls, "conv_fprop")[1]
    assert how.pop("image").said == {
        "dim": [5, 4, 8, 9], "stride": [8 * 9 * 4, 1, 9 * 4, 4], "data_type": "BFLOAT16", "name": "x",
    }  # fmt: skip
    assert how.pop("weight").said == {
        "dim": [6, 4, 3, 2], "stride": [3 * 2 * 4, 1, 2 * 4, 4], "data_type": "BFLOAT16", "name": "kernel",
    }  # fmt: skip
    assert how == {"pre_padding": [0, 1], "post_padding": [1, 1], "stride": [2, 1], "dilation": [1, 1]}
    order = [call[0] for call in calls]
    assert order.index("validate") < order.index("build_operation_graph") < order.index("create_execution_plans")
    assert said(calls, "create_execution_plans")[1] == ["A", "FALLBACK"]


OPERANDS = {Sought.INPUT: ("conv_dgrad", "loss", "filter"), Sought.KERNEL: ("conv_wgrad", "image", "loss")}


@pytest.mark.parametrize("sought", OPERANDS)
def test_gradients_have_sizes_that_are_said(sought, library, calls):
    list(library.plans(convolution(sought)))
    name, *operands = OPERANDS[sought]
    how = said(calls, name)[1]
    dims = {"loss": [5, 6, 4, 10], "filter": [6, 4, 3, 2], "image": [5, 4, 8, 9]}
    assert {key: how[key].said["dim"] for key in operands} == {key: dims[key] for key in operands}


UNWANTED = {
    "16 bits": (DType.float16, False, ["NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION"]),
    "TF32": (DType.float32, True, ["NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION"]),
    "float32": (
        DType.float32,
        False,
        ["NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "TENSOR_CORE"],
    ),
}


@pytest.mark.parametrize("case", UNWANTED)
def test_plans_that_round_or_whose_bits_change_are_not_wanted(case, library, calls):
    dtype, tf32, unwanted = UNWANTED[case]
    list(library.plans(convolution(dtype=dtype, tf32=tf32)))
    assert said(calls, "deselect_numeric_notes")[1] == unwanted
    assert said(calls, "deselect_workspace_greater_than")[1] == cudnn.MOST_WORKSPACE


def test_plans_are_compiled_as_they_are_asked_for(library, calls):
    plans = library.plans(convolution())
    assert next(plans) == "eng7"
    assert [call[1] for call in calls if call[0] == "build"] == ["eng0_k1=2", "eng7"]
    assert list(plans) == [f"eng{n}" for n in range(20, 20 + cudnn.MOST_PLANS - 1)]


def test_a_known_plan_is_compiled_alone_and_once(library, calls):
    chosen = convolution(plan="eng9x")
    with pytest.raises(BackendError, match="no plan 'eng9x'"):
        library.workspace(chosen)
    chosen = convolution(plan="eng7")
    assert [library.workspace(chosen) for _ in range(2)] == [200, 200]
    assert [call for call in calls if call[0] == "build"] == [("build", "eng7")]
    with pytest.raises(BackendError, match=r"refuses the plan eng9: Deselecting execution plan$"):
        library.workspace(convolution(plan="eng9"))


def test_a_convolution_runs_on_its_stream_after_all_has_been_prepared(library, calls):
    chosen = convolution(Sought.KERNEL, plan="eng7", workspace=0x9000, workspace_bytes=200)
    library.prepare(chosen, stream=77)
    assert ("set_stream", 77) in calls
    calls.clear()
    library.run(chosen, stream=77)
    ((name, places, workspace, index, how),) = calls
    assert (name, workspace, index) == ("execute_plan_at_index", 0x9000, 2)
    assert list(places.values()) == [0x1000, 0x2000, 0x3000]
    assert [tensor.said["dim"] for tensor in places] == [[5, 4, 8, 9], [6, 4, 3, 2], [5, 6, 4, 10]]
    assert how["handle"].startswith("handle")


def test_one_axis_gets_a_second_one(library, calls):
    one = convolution(sizes=(8,), counts=(4,), window=(3,), strides=(2,), dilations=(1,), low=(0,), high=(1,))
    list(library.plans(one))
    how = said(calls, "conv_fprop")[1]
    assert how["image"].said["dim"] == [5, 4, 8, 1]
    assert (how["stride"], how["post_padding"]) == ([2, 1], [1, 0])


REFUSALS = {
    "4 axes": (convolution(
        sizes=(8,) * 4, counts=(6,) * 4, window=(3,) * 4, strides=(1,) * 4, dilations=(1,) * 4, low=(0,) * 4,
        high=(0,) * 4,
    ), "along 4 axes"),
    "elements behind x": (convolution(sizes=(12, 9)), "leave out elements behind x"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_described_is_refused(case, library):
    one, reason = REFUSALS[case]
    for _ in range(2):
        with pytest.raises(BackendError, match=reason):
            list(library.plans(one))


def test_where_no_plan_is_usable_that_is_said(library, monkeypatch):
    monkeypatch.setattr(Graph, "unusable", Graph.names)
    with pytest.raises(BackendError, match="no plan for this convolution"):
        list(library.plans(convolution()))


@pytest.mark.skipif(importlib.util.find_spec("cudnn") is not None, reason="cuDNN's frontend is installed")
def test_without_the_package_the_remedy_is_an_extra():
    cudnn.frontend.cache_clear()
    with pytest.raises(BackendError, match="cuDNN is not installed") as caught:
        cudnn.frontend()
    assert caught.value.remedy == "pip install 'graphc[cudnn]'"


PROPERTIES = {
    "deviceName": "NVIDIA H100 80GB HBM3", "cudaDeviceId": 0, "deviceVer": 900, "multiProcessorCount": 132,
    "driverVer": 13000, "maxSharedMemoryPerBlockOptin": 232448, "totalGlobalMem": 85899345920, "warpSize": 32,
    "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
    "smClockRateKHz": 1980000, "memClockRateKHz": 2619000, "memoryBusWidth": 5120, "l2CacheSize": 52428800,
    "maxSharedMemoryPerBlock": 49152, "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536,
    "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "isTccDriver": 0, "supportCoopLaunch": 1,
    "pciDeviceId": 0, "oversizedSharedMemoryPerBlock": 0,
}  # fmt: skip
"""Of a GPU that need not be there: cuDNN plans for it all the same."""


@pytest.fixture(scope="module")
def real() -> cudnn.Cudnn:
    """The real library, planning for an H100."""
    if importlib.util.find_spec("cudnn") is None:
        pytest.skip("cuDNN's frontend is not installed")
    cudnn.frontend.cache_clear()
    try:
        loaded = cudnn.frontend()
        properties = loaded.create_device_properties(json.dumps(PROPERTIES))
    except (BackendError, RuntimeError) as error:
        pytest.skip(f"cuDNN does not plan here: {error}")
    return cudnn.Cudnn(loaded, device_property=properties)


REAL = {
    "as above": convolution(),
    "TF32": convolution(dtype=DType.float32, tf32=True),
    "float32": convolution(dtype=DType.float32),
    "float16": convolution(dtype=DType.float16),
    "float64": convolution(dtype=DType.float64),
    "groups": convolution(groups=2),
    "channels one by one": convolution(dtype=DType.float32, groups=4, filters=4),
    "dilated": convolution(counts=(3, 9), dilations=(2, 2)),
    "one axis": convolution(sizes=(8,), counts=(4,), window=(3,), strides=(2,), dilations=(1,), low=(0,), high=(1,)),
    "three axes": convolution(
        sizes=(8, 9, 4), counts=(4, 10, 4), window=(3, 2, 1), strides=(2, 1, 1), dilations=(1, 1, 1), low=(0, 1, 0),
        high=(1, 1, 0),
    ),
    "a layer of ResNet-50": convolution(
        batch=64, sizes=(56, 56), counts=(56, 56), window=(3, 3), strides=(1, 1), low=(1, 1), channels=64, filters=64
    ),
}  # fmt: skip


@pytest.mark.parametrize("sought", Sought)
@pytest.mark.parametrize("case", REAL)
def test_the_real_library_has_plans_for_what_is_said(case, sought, real):
    one = replace(REAL[case], sought=sought)
    names = list(real.plans(one))
    assert 0 < len(names) <= cudnn.MOST_PLANS
    assert len(set(names)) == len(names)
    assert all(real.workspace(replace(one, plan=name)) <= cudnn.MOST_WORKSPACE for name in names)
