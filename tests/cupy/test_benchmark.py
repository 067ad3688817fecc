"""The workloads of the GPU benchmark in mixed precision, at tiny sizes on the emulated device."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from benchmarks import gpu_run
from graphc.backends import cupy
from graphc.backends.cupy import installation
from graphc.backends.cupy.device import Convolution
from graphc.errors import BackendError
from graphc.ir.types import DType
from graphc.lower.plan import GemmItem
from tests.cupy.emulated_device import EmulatedDevice

MODULES = ("common", "graphc_models", "graphc_resnet", "graphc_peer")


@pytest.fixture
def peer(monkeypatch, tmp_path):
    """The script of graphc's column, where the emulator stands for the GPU."""
    device = EmulatedDevice()
    monkeypatch.setattr(cupy, "first_gpu", lambda: device)
    monkeypatch.setattr(installation, "problem", lambda: None)
    monkeypatch.setenv("BENCH_TINY", "1")
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.syspath_prepend(str(gpu_run.GPU))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("graphc_peer")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["lstm_bf16", "gpt2"])
def test_they_train_on_products_of_16_bits(peer, name):
    ((_, dtype, build),) = peer.WORKLOADS[name]
    assert dtype == "bf16"
    step, facts = build()
    losses = [float(np.asarray(step()[0])) for _ in range(4)]
    assert losses[-1] < losses[0]
    plan = facts["program"].executable.plan
    items = [item for launch in plan.launches for item in launch.items if isinstance(item, GemmItem)]
    assert {item.dtype for item in items} == {DType.bfloat16}


def test_images_are_learnt_with_a_library(peer, monkeypatch):
    """The library is measured to be the faster one; where it is missing, that row says so."""
    assert [row[1:2] + row[3:] for row in peer.WORKLOADS["resnet_bf16"]] == [("bf16",), ("bf16", "graphc with cuDNN")]
    *_, (_, _, build, _) = peer.WORKLOADS["resnet_bf16"]
    monkeypatch.setattr(peer.cudnn, "installed", lambda: "")
    with pytest.raises(BackendError, match="cuDNN is not installed"):
        build()
    monkeypatch.setattr(peer.cudnn, "installed", lambda: "a version")
    device = cupy.first_gpu()
    device.library, device.seconds = {"a plan": 0}, lambda graph: 0.0 if has_convolution(graph) else 1.0
    step, facts = build()
    losses = [float(np.asarray(step()[0])) for _ in range(3)]
    assert losses[-1] < losses[0]
    assert facts["images_per_s"] == 2
    notes = facts["program"].executable.notes()
    assert len(notes) > 3
    assert all(": cudnn a plan (" in note for note in notes), notes


def has_convolution(graph) -> bool:
    return any(isinstance(task.work, Convolution) for task in graph.tasks)


def test_each_workload_has_rows_of_graphc(peer):
    assert {each for names in gpu_run.WORKLOADS.values() for each in names["graphc"]} == set(peer.WORKLOADS)
