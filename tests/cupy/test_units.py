"""What is compiled and in which order it runs: translation units of whole programs, lanes, waits."""

from __future__ import annotations

import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backends import cupy
from graphc.backends.cupy import CupyBackend
from graphc.backends.cupy.device import Launch, Product
from graphc.backends.cupy.lanes import assign_lanes
from graphc.backends.cupy.module import make_unit
from graphc.backends.cupy.nvrtc import Usage, compile_cubin
from graphc.backends.cupy.printer import POST_RESULTS
from graphc.backends.cupy.touched import Touched
from tests.cupy.emulated_device import EmulatedDevice
from tests.cupy.test_programs import recurrent_step
from tests.spine.models import classifier_step

FOLDER = Path(cupy.__file__).parent
TIME = 10


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_kernels_of_training_steps_compile_to_registers(arch):
    for program in (classifier_step([784, 512, 256, 10], 0.1), recurrent_step("numba", 64)):
        unit = make_unit(program.plan)
        usage: dict[str, Usage] = {}
        for part in unit.parts:
            found = compile_cubin(part.source, arch).usage
            assert set(part.functions) <= found.keys() <= {*part.functions, POST_RESULTS}
            usage |= found
        assert usage.keys() == set(unit.functions)
        # a division's slow path is a call, around which a register or two may be saved
        assert max(found.spill_bytes for found in usage.values()) <= 16, usage


def test_there_is_no_assembly_outside_of_its_header():
    """Machine instructions in CUDA C have a twin in the emulator, so they stand in one place."""
    for path in FOLDER.iterdir():
        if path.suffix in (".py", ".cuh") and path.name != "instructions.cuh":
            assert not re.search(r"\basm\b\s*(volatile\s*)?\(", path.read_text(encoding="utf-8")), path.name


def test_vectors_are_loads_of_16_bytes():
    source = make_unit(classifier_step([784, 512, 256, 10]).plan).source
    assert source.count("Packed<float, 4>*)") > 10


@pytest.mark.parametrize("seed", range(20))
def test_lanes_keep_every_order_that_is_asked_for(seed):
    """Running each lane as far ahead as its waits let it never overtakes a task that was to be waited for."""
    rng = random.Random(seed)
    after = [sorted(rng.sample(range(i), min(i, rng.randint(0, 3)))) for i in range(60)]
    places = assign_lanes(after, rng.randint(1, 5))
    lanes: dict[int, list[int]] = {}
    for task, place in enumerate(places):
        lanes.setdefault(place.lane, []).append(task)
    done: list[int] = []
    while any(lanes.values()):
        ready = [k for k, tasks in lanes.items() if tasks and set(places[tasks[0]].waits) <= set(done)]
        assert ready, "they wait for each other"
        done.append(lanes[rng.choice(ready)].pop(0))
    at = {task: position for position, task in enumerate(done)}
    assert all(at[earlier] < at[task] for task in range(60) for earlier in after[task])
    awaited = {earlier for place in places for earlier in place.waits}
    assert {task for task, place in enumerate(places) if place.awaited} == awaited


def test_memory_that_is_written_again_is_waited_for_once():
    touched = Touched()
    touched.add(0, [], [(0, 100)])
    touched.add(1, [(0, 50)], [(200, 300)])
    assert touched.by([(10, 20)], []) == {0}
    assert touched.by([], [(40, 60)]) == {0, 1}
    touched.add(2, [], [(0, 100)])
    assert touched.by([(0, 10)], []) == {2}
    assert touched.by([(100, 200)], [(300, 310)]) == set()


def test_branches_of_a_step_wait_only_for_what_they_read():
    program = classifier_step([20, 32, 5], backend=CupyBackend(device=EmulatedDevice()))
    program(x=np.ones((4, 20), np.float32), labels=np.zeros(4, np.int64))
    (fit,) = program._fits.values()
    (recording,) = fit.bound._graphs.values()
    (graph,) = recording.parts
    tasks = graph.tasks
    assert any(isinstance(task.work, Product) for task in tasks)
    places = assign_lanes([task.after for task in tasks], 8)
    assert len({place.lane for place in places}) > 2
    (post,) = [
        i for i, task in enumerate(tasks) if isinstance(task.work, Launch) and task.work.function == "post_results"
    ]
    assert len(tasks[post].after) < 4


class Writing(EmulatedDevice):
    """Only what is written out for it matters: memory is addresses, and nothing runs."""

    def allocate(self, nbytes: int, what: str) -> Any:
        address = self.taken = -(-(self.taken + 4096) // 256) * 256
        self.taken += nbytes
        return SimpleNamespace(address=address, nbytes=nbytes)

    def load(self, unit: Any) -> Any:
        return None

    def record(self, module: Any, tasks: Any) -> Any:
        self.tasks = tasks
        return SimpleNamespace(launch=lambda: None)

    def upload(self, *args: Any) -> None:
        pass

    download = copy = clear = upload


def longest_chain(layers: Any, batch: int) -> int:
    """How many tasks of a training step have to wait for each other."""
    gx.set_seed(0)
    device = Writing(capacity=1 << 40)
    x = gx.Input((TIME, 8))
    outputs = [layer(x) for layer in layers]
    h = outputs[0] if len(outputs) == 1 else gx.layers.Concatenate()(outputs)
    model = gx.Model(x, gx.layers.Dense(4)(h))
    model.compile("adam", "mse", backend=CupyBackend(device=device))
    shapes = (batch, TIME, 8), (batch, TIME, 4)
    model.programs["train"].start([np.zeros(shape, np.float32) for shape in shapes])
    depths: list[int] = []
    for task in device.tasks:
        depths.append(1 + max((depths[earlier] for earlier in task.after), default=0))
    return max(depths)


@pytest.mark.parametrize("batch", [2, 2048], ids=["memory of its own", "memory shared"])
def test_directions_and_independent_layers_run_side_by_side(batch):
    """A step of one direction waits for none of the other, nor a layer for another that it does not read."""

    def lstm(hidden: int) -> Any:
        return gx.layers.LSTM(hidden, return_sequences=True, recurrent_initializer="glorot_uniform")

    alone = longest_chain([lstm(16)], batch)
    assert alone > 2 * TIME
    assert longest_chain([gx.layers.Bidirectional(lstm(16))], batch) <= alone + 5
    assert longest_chain([lstm(16), lstm(12)], batch) <= alone + 8


def test_a_backend_with_tf32_says_so_to_its_products():
    x, w = gx.placeholder("x", (40, 50)), gx.parameter("w", np.ones((50, 60), np.float32))
    for tf32 in (False, True):
        program = gx.compile({"y": x @ w}, [x], backend=CupyBackend(tf32=tf32, device=EmulatedDevice()))
        program(x=np.ones((40, 50), np.float32))
        (fit,) = program._fits.values()
        (recording,) = fit.bound._graphs.values()
        (graph,) = recording.parts
        assert [task.work.tf32 for task in graph.tasks if isinstance(task.work, Product)] == [tf32]


@pytest.mark.parametrize("seed", range(8))
def test_whoever_touches_memory_waits_for_all_that_matter(seed):
    """By way of others, if need be; and for nobody who has touched something else."""
    rng = random.Random(seed)

    def spans() -> list[tuple[int, int]]:
        found = [(start, start + rng.randint(0, 12)) for start in rng.sample(range(40), rng.randint(0, 2))]
        return [(start, end) for start, end in found]

    touched, done, waits = Touched(), [], []
    for task in range(60):
        reads, writes = spans(), spans()
        found = touched.by(reads, writes)
        touched.add(task, reads, writes)
        meets = {
            earlier
            for earlier, (their_reads, their_writes) in enumerate(done)
            if any_meet(their_writes, reads + writes) or any_meet(their_reads, writes)
        }
        assert found <= meets
        reached = set(found)
        for earlier in sorted(found, reverse=True):
            reached |= waits[earlier]
        assert meets <= reached
        done.append((reads, writes))
        waits.append(reached)


def any_meet(some, others) -> bool:
    return any(a < d and c < b for a, b in some if a < b for c, d in others if c < d)
